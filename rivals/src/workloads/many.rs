//! What a large number of streams costs: a store of 10 thousand streams of one event each, and one of many
//! more.
//!
//! The large one is loaded by a process of its own, whose memory is taken, and which is killed while it
//! appends. Then it is opened: after a kill, after a close, and with nothing in memory. Then both are asked
//! for what does not exist.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_bench::Figures;
use anyhow::{Result, ensure};

use crate::bench::{Bench, FEW, load, read, timed_open};
use crate::child::{What, run_and_kill};
use crate::disk;
use crate::drive::together;
use crate::events::{Random, orders, part, stream_name};
use crate::peers::Peer;
use crate::report::{Round, Who};
use crate::rival::{Answer, Request, Rival, Seen};
use crate::say::say;

/// What this family measures.
pub const NAMES: [&str; 8] =
    ["memory", "memory-open", "open-killed", "open", "open-cold", "refuse", "exists", "exists-append"];

const SMALL: &str = "few";
const LARGE: &str = "many";
const WRITERS: usize = 64;
/// Streams from this number on do not exist when a workload begins.
const NEW: u64 = 1_000_000_000;

/// Runs those of the workloads that are asked for.
///
/// # Errors
/// As the stores'.
pub fn run(bench: &mut Bench, asked: &dyn Fn(&str) -> bool) -> Result<()> {
    let peers = bench.embedded();
    for &peer in &peers {
        let place = bench.place(LARGE, peer);
        std::fs::create_dir_all(&place)?;
        let started = Instant::now();
        let loaded = run_and_kill(What::Load(bench.scale.many), peer, &place)?;
        let (events, seconds) = (bench.scale.many, started.elapsed().as_secs_f64());
        say(&format!(
            "  {peer:<9} loaded {events} streams of one event in a process of its own in {seconds:.1} s\n"
        ));
        bench.report.add("memory", Who::Store(peer), Round::of(loaded.most_bytes as f64 / 1e6));
        // A cost over a cost is a rate over a rate turned round.
        bench.report.add_flat("memory", peer, &[(loaded.most_bytes as f64, loaded.part_bytes as f64)]);
    }
    if asked("memory") {
        bench
            .report
            .note("memory", format!("one load of {} events; small is a half of it", bench.scale.many));
        bench.show("memory");
    }
    if NAMES[1..5].iter().any(|name| asked(name)) {
        open(bench, &peers)?;
        for name in NAMES[1..5].iter().filter(|name| asked(name)) {
            bench.show(name);
        }
    }
    if NAMES[5..].iter().any(|name| asked(name)) {
        probe(bench, &peers, asked)?;
    }
    bench.remove(SMALL)?;
    bench.remove(LARGE)
}

fn open(bench: &mut Bench, peers: &[Peer]) -> Result<()> {
    let stream = stream_name(bench.scale.many / 2);
    for round in 0..bench.rounds() {
        for peer in Bench::turn(peers, round) {
            let place = bench.place(LARGE, peer);
            let timed = |bench: &Bench| {
                let (opened, events) = timed_open(bench, peer, &place, &stream)?;
                ensure!(events == 1, "{peer}: stream {stream} has {events} events");
                anyhow::Ok(opened)
            };
            let loaded = run_and_kill(What::Write(1 + round as u64), peer, &place)?;
            bench.report.add("memory-open", Who::Store(peer), Round::of(loaded.open_bytes as f64 / 1e6));
            let killed = timed(bench)?;
            bench.report.add("open-killed", Who::Store(peer), killed);
            let closed = timed(bench)?;
            bench.report.add("open", Who::Store(peer), closed);
            disk::forget(&place)?;
            let cold = timed(bench)?;
            bench.report.add("open-cold", Who::Store(peer), cold);
        }
    }
    Ok(())
}

/// One store in two sizes.
struct Pair {
    peer: Peer,
    small: Arc<dyn Rival>,
    large: Arc<dyn Rival>,
}

fn probe(bench: &mut Bench, peers: &[Peer], asked: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut pairs = Vec::new();
    for &peer in peers {
        let small = bench.opener.open(peer, &bench.place(SMALL, peer))?;
        bench.runtime.block_on(load(&*small, 1..FEW + 1, 1))?;
        drop(small);
        let small = bench.opener.open(peer, &bench.place(SMALL, peer))?;
        let large = bench.opener.open(peer, &bench.place(LARGE, peer))?;
        // What was measured before has made the system forget it.
        disk::recall(&bench.place(LARGE, peer))?;
        pairs.push(Pair { peer, small, large });
    }
    let probes: [(&'static str, Probe); 3] =
        [("refuse", refuse), ("exists", missing), ("exists-append", make)];
    for (name, probe) in probes.into_iter().filter(|(name, _)| asked(name)) {
        let mut flats = vec![Vec::new(); pairs.len()];
        // The first round warms.
        for round in 0..=bench.rounds() {
            for index in Bench::turn(&(0..pairs.len()).collect::<Vec<_>>(), round) {
                let Pair { peer, small, large } = &pairs[index];
                let sizes = [(small, FEW), (large, bench.scale.many)];
                let mut rates = [0.0; 2];
                for size in Bench::turn(&[0, 1], round) {
                    disk::settle();
                    let (store, streams) = sizes[size];
                    let figures = probe(bench, store, streams, round)?;
                    rates[size] = figures.requests_per_second();
                    if round > 0 && size == 1 {
                        bench.report.add(name, Who::Store(*peer), Round::rate(rates[1], &figures));
                    }
                }
                if round > 0 {
                    flats[index].push((rates[0], rates[1]));
                }
            }
        }
        for (pair, rates) in pairs.iter().zip(flats) {
            bench.report.add_flat(name, pair.peer, &rates);
        }
        let many = bench.scale.many;
        bench.report.note(name, format!("rates are those in the store of {many} streams; small is {FEW}"));
        bench.show(name);
    }
    Ok(())
}

type Probe = fn(&Bench, &Arc<dyn Rival>, u64, usize) -> Result<Figures>;

/// Appends by a writer that does not know that the stream exists: all are refused.
fn refuse(bench: &Bench, store: &Arc<dyn Rival>, streams: u64, round: usize) -> Result<Figures> {
    repeat(
        bench,
        store,
        1,
        move |store, _, random| async move {
            let request = beginning(1 + random % streams);
            let asked = Instant::now();
            let answer = store.append(request, 0, store.drives()[0]).await?;
            ensure!(answer == Answer::Refused, "a stale append was applied");
            Ok(asked.elapsed())
        },
        round,
    )
}

/// Reads of streams that do not exist.
fn missing(bench: &Bench, store: &Arc<dyn Rival>, _: u64, round: usize) -> Result<Figures> {
    repeat(
        bench,
        store,
        1,
        |store, _, random| async move {
            let name = format!("order-none-{:08}", random % 100_000_000);
            let asked = Instant::now();
            let digest = read(&*store, &name, 0).await?;
            ensure!(digest.events == 0, "{name} exists");
            Ok(asked.elapsed())
        },
        round,
    )
}

/// Appends of many writers, each of which makes a stream that must not exist.
fn make(bench: &Bench, store: &Arc<dyn Rival>, _: u64, round: usize) -> Result<Figures> {
    repeat(
        bench,
        store,
        WRITERS,
        |store, caller, number| async move {
            // None of that many numbers comes twice.
            let request = beginning(NEW + number % 1_000_000_000_000_000);
            let asked = Instant::now();
            store.append(request, caller, store.drives()[0]).await?.written()?;
            Ok(asked.elapsed())
        },
        round,
    )
}

/// Lets this many callers do the same again and again for the time of a round, each time with another random
/// number; what is done tells how long the store took for it.
fn repeat<F, W>(
    bench: &Bench,
    store: &Arc<dyn Rival>,
    callers: usize,
    ask: F,
    round: usize,
) -> Result<Figures>
where
    F: Fn(Arc<dyn Rival>, usize, u64) -> W + Copy + Send + 'static,
    W: Future<Output = Result<Duration>> + Send,
{
    let lasting = bench.scale.round;
    let done = together(&bench.runtime, store.drives()[0], callers, |caller| {
        let (store, mut random) = (store.clone(), Random::new((round as u64) << 32 | caller as u64));
        async move {
            let mut latencies = Vec::new();
            let started = Instant::now();
            while started.elapsed() < lasting {
                latencies.push(ask(store.clone(), caller, random.next()).await?);
            }
            Ok(latencies)
        }
    })?;
    let latencies: Vec<_> = done.each.into_iter().flatten().collect();
    Ok(Figures::new(latencies.len() as u64, done.elapsed, latencies, 0))
}

/// The first event of a stream, if it does not exist.
fn beginning(stream: u64) -> Request {
    let orders = part(stream, Seen::default(), orders(stream, 1, 1));
    Request { parts: vec![orders], conditional: true }
}
