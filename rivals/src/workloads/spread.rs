//! Reads of a store that is loaded once: many streams of 30 events, the events of each spread over the whole
//! log. The whole log by one reader; single streams by one and by 16, from memory and from the disk. And its
//! size.

use std::sync::Arc;
use std::time::Instant;

use annals_bench::Figures;
use anyhow::{Result, ensure};

use crate::bench::{Bench, STREAM_EVENTS, Scan, agreed, check_count, load, read, scan};
use crate::disk::{self, Size};
use crate::drive::together;
use crate::events::{Digest, Random, stream_name};
use crate::peers::Peer;
use crate::report::{Round, Who};
use crate::rival::Rival;
use crate::say::say;

/// What this family measures.
pub const NAMES: [&str; 7] =
    ["scan", "stream-warm-1", "stream-warm-16", "stream-cold-1", "stream-cold-16", "size", "size-written"];

const PURPOSE: &str = "spread";
const READERS: usize = 16;

/// Runs those of the workloads that are asked for.
///
/// # Errors
/// As the stores', or if two of them give different events.
pub fn run(bench: &mut Bench, asked: &dyn Fn(&str) -> bool) -> Result<()> {
    let reads_streams = NAMES.into_iter().any(|name| name.starts_with("stream") && asked(name));
    let peers = if reads_streams { bench.peers.clone() } else { bench.embedded() };
    fill(bench, &peers)?;
    if asked("size") || asked("size-written") {
        for &peer in peers.iter().filter(|peer| **peer != Peer::Postgres) {
            let size = disk::size(&bench.place(PURPOSE, peer))?;
            weigh(bench, ["size", "size-written"], peer, size, bench.scale.streams * STREAM_EVENTS);
        }
        bench.show("size");
        bench.show("size-written");
    }
    if asked("scan") {
        bench.report.group = 0;
        let events = bench.scale.streams * STREAM_EVENTS;
        let log = Scan { name: "scan", purpose: PURPOSE, events, page: None };
        scan(bench, &bench.embedded(), &log)?;
    }
    let reads: [(_, _, Reads); 4] = [
        ("stream-warm-1", 1, warm),
        ("stream-warm-16", READERS, warm),
        ("stream-cold-1", 1, cold),
        ("stream-cold-16", READERS, cold),
    ];
    for (name, readers, reads) in reads.into_iter().filter(|(name, ..)| asked(name)) {
        for (group, peers) in bench.groups() {
            bench.report.group = group;
            let Digest { events, hash, .. } = reads(bench, &peers, name, readers)?;
            let who = if group == 0 { "all" } else { "and again" };
            bench.report.note(name, format!("{who}: the same {events} events, digest {hash:016x}"));
        }
        bench.show(name);
    }
    bench.report.group = 0;
    bench.remove(PURPOSE)
}

fn fill(bench: &Bench, peers: &[Peer]) -> Result<()> {
    let streams = bench.scale.streams;
    for &peer in peers {
        let place = bench.place(PURPOSE, peer);
        let store = bench.opener.open(peer, &place)?;
        let started = Instant::now();
        bench.runtime.block_on(async {
            load(&*store, 1..streams + 1, STREAM_EVENTS).await?;
            check_count(&*store, &place, streams * STREAM_EVENTS).await
        })?;
        let events = streams * STREAM_EVENTS;
        let seconds = started.elapsed().as_secs_f64();
        say(&format!("  {peer:<9} loaded {events} events in {seconds:.1} s\n"));
    }
    Ok(())
}

/// Takes in how large a store is: as it is allocated, and as far as it is written.
pub fn weigh(bench: &mut Bench, names: [&'static str; 2], peer: Peer, size: Size, events: u64) {
    let figures = [size.allocated, size.written].map(|bytes| bytes as f64 / events as f64);
    for (name, figure) in names.into_iter().zip(figures) {
        bench.report.add(name, Who::Store(peer), Round::of(figure));
    }
    let apparent = size.apparent as f64 / events as f64;
    let note = format!("{peer}: {events} events, lengths of files {apparent:.1} bytes/event");
    bench.report.note(names[0], note);
}

type Reads = fn(&mut Bench, &[Peer], &'static str, usize) -> Result<Digest>;

/// Reads random streams, the same in every store: `reads` in all, divided among the readers.
fn read_streams(
    bench: &Bench,
    store: &Arc<dyn Rival>,
    readers: usize,
    round: usize,
    reads: u64,
) -> Result<(Figures, Digest)> {
    let streams = bench.scale.streams;
    let done = together(&bench.runtime, store.drives()[0], readers, |reader| {
        let store = store.clone();
        let mut random = Random::new((round as u64) << 32 | reader as u64);
        async move {
            let (mut latencies, mut sum) = (Vec::new(), Digest::default());
            for _ in 0..reads / readers as u64 {
                let name = stream_name(1 + random.below(streams));
                let asked = Instant::now();
                let digest = read(&*store, &name, reader).await?;
                latencies.push(asked.elapsed());
                ensure!(digest.events == STREAM_EVENTS, "{name} has {} events", digest.events);
                sum.add(digest);
            }
            Ok((latencies, sum))
        }
    })?;
    let (mut latencies, mut sum) = (Vec::new(), Digest::default());
    for (waited, digest) in done.each {
        latencies.extend(waited);
        sum.add(digest);
    }
    Ok((Figures::new(sum.events, done.elapsed, latencies, sum.hash), sum))
}

fn warm(bench: &mut Bench, peers: &[Peer], name: &'static str, readers: usize) -> Result<Digest> {
    let stores = bench.open_all(PURPOSE, peers)?;
    let turns: Vec<_> = stores.iter().collect();
    let mut seen = Digest::default();
    for round in 0..=bench.rounds() {
        let mut digests = Vec::new();
        for (peer, store) in Bench::turn(&turns, round) {
            disk::settle();
            let (figures, digest) = read_streams(bench, store, readers, round, bench.scale.warm_reads)?;
            digests.push((*peer, digest));
            if round > 0 {
                let rate = Round::rate(figures.requests_per_second(), &figures);
                bench.report.add(name, Who::Store(*peer), rate);
            }
        }
        seen.add(agreed(name, &digests)?);
    }
    Ok(seen)
}

fn cold(bench: &mut Bench, peers: &[Peer], name: &'static str, readers: usize) -> Result<Digest> {
    let peers: Vec<_> = peers.iter().copied().filter(|peer| bench.opener.can_forget(*peer)).collect();
    let reads = if readers == 1 { bench.scale.cold_reads } else { 4 * bench.scale.cold_reads };
    let mut seen = Digest::default();
    for round in 0..bench.rounds() {
        let mut digests = Vec::new();
        for peer in Bench::turn(&peers, round) {
            let place = bench.place(PURPOSE, peer);
            bench.opener.forget(peer)?;
            let store = bench.opener.open(peer, &place)?;
            disk::settle();
            // After opening: what a store has read into its own memory counts, what the system kept does not.
            disk::forget(&place)?;
            let (figures, digest) = read_streams(bench, &store, readers, round, reads)?;
            digests.push((peer, digest));
            bench.report.add(name, Who::Store(peer), Round::rate(figures.requests_per_second(), &figures));
        }
        seen.add(agreed(name, &digests)?);
    }
    Ok(seen)
}
