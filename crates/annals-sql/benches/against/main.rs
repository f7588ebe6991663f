//! The stores on SQL databases beside the tables and the code that a team would write itself, and beside the
//! shape of Message DB: on the same server, in the same run, in turns, as durable.
//!
//! ```text
//! cargo bench -p annals-sql [-- --rounds N] [--seconds N] [--only append|wake|move]
//! ratio append-64x1@postgres table 2.31      Annals over the peer: the median of the rounds' ratios, with the range
//! ```
//!
//! Each append is one event of 256 bytes, conditional on the version of its stream, and durable when it is
//! answered. Each writer has a stream of its own, and the peers have a connection for each writer, which is
//! their best case. The files: `peers`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures and speaks to its user"
)]

mod peers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use annals::{Append, Expected, NewEvent, StreamId, Tenants};
use annals_testservers::server;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::peers::{Annals, MessageDb, MySqlTable, Peer, PostgresTable};

#[tokio::main]
async fn main() {
    let (mut rounds, mut seconds, mut only) = (5, 1.0, String::new());
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for pair in arguments.chunks(2) {
        match (pair[0].as_str(), pair.get(1)) {
            ("--rounds", Some(count)) => rounds = count.parse().unwrap(),
            ("--seconds", Some(count)) => seconds = count.parse().unwrap(),
            ("--only", Some(what)) if ["append", "wake", "move"].contains(&what.as_str()) => {
                only.clone_from(what)
            }
            _ => panic!("`{}` is not --rounds N, --seconds N or --only append|wake|move", pair.join(" ")),
        }
    }
    let length = Duration::from_secs_f64(seconds);
    let wanted = |what: &str| only.is_empty() || only == what;
    {
        let postgres = server::newest_postgres(&[]);
        println!("{}", postgres.version());
        let url = postgres.url();
        let annals: Arc<dyn Peer> = Arc::new(Annals::on_postgres(&url).await);
        let peers: [(&str, Arc<dyn Peer>); 2] = [
            ("table", Arc::new(PostgresTable::new(&url).await)),
            ("messagedb", Arc::new(MessageDb::new(&url).await)),
        ];
        if wanted("append") {
            side_by_side("postgres", &annals, &peers, rounds, length).await;
        }
        if wanted("wake") {
            waking(&Annals::on_postgres(&url).await, Annals::on_postgres(&url).await, "postgres").await;
        }
        if wanted("move") {
            let place = |name: &str| format!("{url}?schema={name}");
            moving([place("directory"), place("old"), place("new")], "postgres").await;
        }
    }
    let mariadb = server::mariadb(&["max-connections=200"]);
    println!("{}", mariadb.version());
    let url = mariadb.url();
    let annals: Arc<dyn Peer> = Arc::new(Annals::on_mysql(&url).await);
    let peers: [(&str, Arc<dyn Peer>); 1] = [("table", Arc::new(MySqlTable::new(&url).await))];
    if wanted("append") {
        side_by_side("mariadb", &annals, &peers, rounds, length).await;
    }
    if wanted("wake") {
        waking(&Annals::on_mysql(&url).await, Annals::on_mysql(&url).await, "mariadb").await;
    }
    if !wanted("move") {
        return;
    }
    let mut owner = MySqlConnection::connect(&url).await.unwrap();
    let server = url.strip_suffix("/annals").unwrap();
    let place = |name: &str| format!("{server}/{name}");
    for name in ["directory", "old", "new"] {
        owner.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    }
    moving([place("directory"), place("old"), place("new")], "mariadb").await;
}

/// Moves a log of twenty thousand events while somebody appends: events a second, and how long the longest
/// append took.
async fn moving([directory, old, new]: [String; 3], server: &str) {
    const EVENTS: u64 = 20_000;
    let tenants = Tenants::open(&directory).await.unwrap();
    tenants.add("acme", &old).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    let append = async |stream: &str| {
        let event = NewEvent::new("account.noted", peers::data()).unwrap();
        log.append(Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event])).await.unwrap();
    };
    for _ in 0..EVENTS / 1_000 {
        futures_of(1_000, || append("account-1")).await;
    }
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    let mut moved = std::pin::pin!(tenants.move_to("acme", &new, |_| {}));
    let took = loop {
        let sent = Instant::now();
        let mut appending = std::pin::pin!(append("account-2"));
        tokio::select! {
            () = &mut appending => longest = longest.max(sent.elapsed()),
            done = &mut moved => {
                done.unwrap();
                let took = begun.elapsed();
                appending.await;
                longest = longest.max(sent.elapsed());
                break took;
            }
        }
    };
    let rate = EVENTS as f64 / took.as_secs_f64();
    println!(
        "move {server} {rate:.0} events/s, longest append meanwhile {:.0} ms",
        longest.as_secs_f64() * 1e3
    );
}

/// Runs `count` futures at once, and waits for all.
async fn futures_of<F: Future<Output = ()>>(count: usize, make: impl Fn() -> F) {
    let mut under_way: Vec<_> = (0..count).map(|_| Some(Box::pin(make()))).collect();
    std::future::poll_fn(move |context| {
        for slot in &mut under_way {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *slot = None;
            }
        }
        if under_way.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Runs Annals and its peers in turns and prints their rates and ratios.
async fn side_by_side(
    server: &str,
    annals: &Arc<dyn Peer>,
    peers: &[(&str, Arc<dyn Peer>)],
    rounds: usize,
    length: Duration,
) {
    for writers in [1, 64] {
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); peers.len() + 1];
        for round in 0..=rounds {
            for (index, peer) in std::iter::once(annals).chain(peers.iter().map(|(_, peer)| peer)).enumerate()
            {
                let rate = run(peer.clone(), writers, round, length).await;
                // The first round warms up.
                if round > 0 {
                    rates[index].push(rate);
                }
            }
        }
        let workload = format!("append-{writers}x1@{server}");
        println!("rate {workload} annals {:.0}", median(&mut rates[0].clone()));
        for ((name, _), theirs) in peers.iter().zip(&rates[1..]) {
            let mut ratios: Vec<f64> =
                rates[0].iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            let ratio = median(&mut ratios);
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            println!("rate {workload} {name} {:.0}", median(&mut theirs.clone()));
            println!("ratio {workload} {name} {ratio:.2} ({least:.2} to {most:.2})");
        }
    }
}

/// Appends a second by that many writers at once.
async fn run(peer: Arc<dyn Peer>, writers: usize, round: usize, length: Duration) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (peer, stop) = (peer.clone(), stop.clone());
            tokio::spawn(async move {
                let stream = format!("account-{writers}.{round}.{writer}");
                let mut version = 0;
                while !stop.load(Ordering::Relaxed) {
                    peer.append(&stream, version).await;
                    version += 1;
                }
                version
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    done as f64 / begun.elapsed().as_secs_f64()
}

/// From the acknowledgement of an append to the moment at which a subscriber of another process has the
/// event.
async fn waking(writer: &Annals, other: Annals, server: &str) {
    let mut taken = Vec::new();
    let mut heard = other.follow().await;
    for number in 0..200 {
        // Long enough apart that nobody is awake already.
        tokio::time::sleep(Duration::from_millis(7)).await;
        writer.append("wake-1", number).await;
        let committed = Instant::now();
        heard.recv().await.unwrap();
        taken.push(committed.elapsed().as_secs_f64() * 1e3);
    }
    taken.sort_by(f64::total_cmp);
    println!(
        "wake {server} p50 {:.2} ms, p99 {:.2} ms",
        taken[taken.len() / 2],
        taken[taken.len() * 99 / 100]
    );
}

/// The middle of these, which are sorted.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
