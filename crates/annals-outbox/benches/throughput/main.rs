//! How fast messages are published, on each database, in one run: this publisher beside the loop that a team
//! would write (every message by itself: publish, mark), in turns, over the same tables, durably.
//!
//! ```text
//! cargo bench -p annals-outbox [-- --rounds N] [--messages N]
//! ```
//!
//! The sink counts, so what is measured is the database's part. Messages are of 256 bytes, of 200 aggregates,
//! and written before the clock starts; that they were published and marked is checked after it stops.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures and speaks to its user"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use annals_outbox::{Message, NewMessage, Options, Outbox, Pool};
use annals_testservers::server;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

const AGGREGATES: usize = 200;

#[tokio::main]
async fn main() {
    let (mut rounds, mut messages) = (5, 10_000);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for pair in arguments.chunks(2) {
        match (pair[0].as_str(), pair.get(1)) {
            ("--rounds", Some(count)) => rounds = count.parse().unwrap(),
            ("--messages", Some(count)) => messages = count.parse().unwrap(),
            _ => panic!("`{}` is not --rounds N or --messages N", pair.join(" ")),
        }
    }
    let postgres = server::newest_postgres(&[]);
    let mariadb = server::mariadb(&[]);
    println!("{}\n{}", postgres.version(), mariadb.version());
    let directory = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}/bench.db?mode=rwc", directory.path().display());
    for (name, url) in [("postgres", postgres.url()), ("mariadb", mariadb.url()), ("sqlite", file)] {
        let outbox = Outbox::new(Pool::connect(&url).await.unwrap());
        let pool = Pool::connect(&url).await.unwrap();
        outbox.migrate().await.unwrap();
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=rounds {
            write(&outbox, &pool, messages).await;
            let one = publish(&outbox, messages).await;
            // The loop is much slower: it gets a part of them.
            write(&outbox, &pool, messages / 10).await;
            let other = by_itself(&pool, messages / 10).await;
            // The first round warms up.
            if round > 0 {
                ours.push(one);
                theirs.push(other);
                ratios.push(one / other);
            }
        }
        println!("rate publish@{name} outbox {:.0}", median(&mut ours));
        println!("rate publish@{name} loop {:.0}", median(&mut theirs));
        let ratio = median(&mut ratios);
        println!(
            "ratio publish@{name} loop {ratio:.2} ({:.2} to {:.2})",
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
}

/// Does the same on each kind of pool.
macro_rules! each {
    ($pool:expr, $name:ident => $body:expr) => {
        match $pool {
            Pool::Postgres($name) => $body,
            Pool::MySql($name) => $body,
            Pool::Sqlite($name) => $body,
            _ => unreachable!("there are three"),
        }
    };
}

/// Messages to be published, in transactions of a hundred.
async fn write(outbox: &Outbox, pool: &Pool, count: usize) {
    let data = serde_json::json!({"text": "x".repeat(245)});
    each!(pool, pool => for first in (0..count).step_by(100) {
        let mut transaction = pool.begin().await.unwrap();
        for number in first..count.min(first + 100) {
            let order = format!("{}", number % AGGREGATES);
            let message = NewMessage::json("order", order, "order.changed", &data).unwrap();
            outbox.write(&mut *transaction, &message).await.unwrap();
        }
        transaction.commit().await.unwrap();
    });
}

/// Messages a second.
async fn publish(outbox: &Outbox, count: usize) -> f64 {
    let seen = Arc::new(AtomicUsize::new(0));
    let sink = {
        let seen = seen.clone();
        move |_: Message| {
            seen.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        }
    };
    let begun = Instant::now();
    let publisher = outbox.publisher(sink).options(Options::default()).start().await.unwrap();
    while seen.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    publisher.stop().await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    assert_eq!((outbox.status().await.unwrap().pending, seen.load(Ordering::Relaxed)), (0, count));
    rate
}

/// The same by a loop that takes one message after the other.
async fn by_itself(pool: &Pool, count: usize) -> f64 {
    let mut seen = 0;
    let begun = Instant::now();
    each!(pool, pool => loop {
        let rows = pool
            .fetch_all("SELECT position, event_data FROM outbox WHERE processed = FALSE ORDER BY position LIMIT 256")
            .await
            .unwrap();
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let (position, data): (i64, String) = (row.get(0), row.get(1));
            seen += usize::from(!data.is_empty());
            let mark = format!("UPDATE outbox SET processed = TRUE WHERE position = {position}");
            pool.execute(AssertSqlSafe(mark)).await.unwrap();
        }
    });
    assert_eq!(seen, count);
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The middle of these, which are sorted.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
