//! The shape of the logs of services: small entries of ten types, each tagged with a customer, in the streams
//! of accounts at random.
//!
//! The fill is measured in pieces, each store in turn, and then everything else in the filled stores. Entries
//! have numbers, and each entry is the same in every store; but four writers at once may write them in
//! another order, so what is read is compared without regard to the order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals_bench::Figures;
use anyhow::{Result, ensure};

use crate::bench::{Bench, Scan, agreed, check_count, faster_drive, scan, timed_open};
use crate::child::{What, run_and_kill};
use crate::disk;
use crate::drive::together;
use crate::events::{Digest, Ledger, Random};
use crate::peers::Peer;
use crate::report::{Round, Who};
use crate::rival::{Drive, Request, Rival};
use crate::workloads::spread::weigh;

/// What this family measures.
pub const NAMES: [&str; 14] = [
    "ledger-fill",
    "ledger-64",
    "ledger-16",
    "ledger-scan",
    "ledger-scan-large",
    "ledger-stream",
    "ledger-stream-first",
    "ledger-tag",
    "ledger-tag-first",
    "ledger-tag-none",
    "ledger-size",
    "ledger-size-written",
    "ledger-memory",
    "ledger-open",
];

const PURPOSE: &str = "ledger";
/// Writers of the fill.
const WRITERS: usize = 4;
/// Entries of each of their requests.
pub const BATCH: u64 = 1_000;
/// Reads of a round in a store that is open for long.
const WARM_READS: u64 = 2_000;
/// The number of the first entry of the rounds of single appends, and how many each of them may use.
const ROUNDS_FROM: u64 = 1 << 40;
const ROUND_ENTRIES: u64 = 1 << 32;

/// Runs those of the workloads that are asked for.
///
/// # Errors
/// As the stores', or if two of them give different events.
pub fn run(bench: &mut Bench, asked: &dyn Fn(&str) -> bool) -> Result<()> {
    let ledger = Ledger::of(bench.scale.entries);
    let peers: Vec<_> = bench.peers.iter().copied().filter(|peer| peer.has_tags()).collect();
    let mut filled = fill(bench, &peers, ledger)?;
    bench.show("ledger-fill");
    if asked("ledger-size") || asked("ledger-size-written") {
        for &peer in &peers {
            let size = disk::size(&bench.place(PURPOSE, peer))?;
            weigh(bench, ["ledger-size", "ledger-size-written"], peer, size, ledger.entries);
        }
        bench.show("ledger-size");
        bench.show("ledger-size-written");
    }
    for (name, page) in [("ledger-scan", 1_000), ("ledger-scan-large", 10_000)] {
        if asked(name) {
            let log = Scan { name, purpose: PURPOSE, events: ledger.entries, page: Some(page) };
            scan(bench, &peers, &log)?;
        }
    }
    for reads in READS {
        if asked(reads.name) {
            read(bench, &peers, &reads, ledger)?;
        }
    }
    for (name, writers) in [("ledger-64", 64), ("ledger-16", 16)] {
        if asked(name) {
            single(bench, &mut filled, name, writers, ledger)?;
        }
    }
    if asked("ledger-open") {
        open(bench)?;
    }
    if asked("ledger-memory") {
        for peer in bench.embedded() {
            let used = run_and_kill(What::Use(ledger.entries), peer, &bench.place(PURPOSE, peer))?;
            bench.report.add("ledger-memory", Who::Store(peer), Round::of(used.most_bytes as f64 / 1e6));
        }
        bench.show("ledger-memory");
    }
    bench.remove(PURPOSE)
}

/// A store that was filled: how it is called, and how many events it has acknowledged.
struct Filled {
    peer: Peer,
    drive: Drive,
    events: u64,
}

/// Fills the stores piece by piece, in turn, and closes them.
fn fill(bench: &mut Bench, peers: &[Peer], ledger: Ledger) -> Result<Vec<Filled>> {
    let stores = bench.open_all(PURPOSE, peers)?;
    let turns: Vec<_> = stores.iter().collect();
    let batches = ledger.entries / BATCH;
    let pieces = bench.rounds() as u64;
    let mut digests = Vec::new();
    for piece in 0..pieces {
        let numbers = batches * piece / pieces..batches * (piece + 1) / pieces;
        for (peer, store) in Bench::turn(&turns, piece as usize) {
            disk::settle();
            let figures = fill_with(bench, store, ledger, numbers.clone())?;
            let rate = Round::rate(figures.events_per_second(), &figures);
            bench.report.add("ledger-fill", Who::Store(*peer), rate);
        }
    }
    let mut filled = Vec::new();
    for (peer, store) in &stores {
        let digest = bench.runtime.block_on(async {
            check_count(&**store, &bench.place(PURPOSE, *peer), batches * BATCH).await?;
            let mut digest = Digest::default();
            store.log(&mut |data| digest.add(Digest::of(data))).await?;
            anyhow::Ok(digest)
        })?;
        digests.push((*peer, digest));
        filled.push(Filled { peer: *peer, drive: store.drives()[0], events: digest.events });
    }
    let Digest { events, hash, .. } = agreed("ledger-fill", &digests)?;
    bench.report.note("ledger-fill", format!("all: the same {events} events, digest {hash:016x}"));
    Ok(filled)
}

/// Fills a store with the entries of these batches.
///
/// # Errors
/// As the store's.
pub fn fill_with(
    bench: &Bench,
    store: &Arc<dyn Rival>,
    ledger: Ledger,
    batches: Range<u64>,
) -> Result<Figures> {
    let drive = store.drives()[0];
    let next = Arc::new(AtomicU64::new(batches.start));
    let done = together(&bench.runtime, drive, WRITERS, |writer| {
        let (store, next) = (store.clone(), next.clone());
        async move {
            let mut latencies = Vec::new();
            loop {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                if batch >= batches.end {
                    return Ok(latencies);
                }
                let entries = batch * BATCH..(batch + 1) * BATCH;
                let parts = entries.map(|number| ledger.entry(number)).collect();
                let asked = Instant::now();
                store.append(Request { parts, conditional: false }, writer, drive).await?.written()?;
                latencies.push(asked.elapsed());
            }
        }
    })?;
    let events = (batches.end - batches.start) * BATCH;
    Ok(Figures::new(events, done.elapsed, done.each.concat(), 0))
}

/// Single entries to accounts at random, unconditional.
fn single(
    bench: &mut Bench,
    filled: &mut [Filled],
    name: &'static str,
    writers: usize,
    ledger: Ledger,
) -> Result<()> {
    let peers: Vec<_> = filled.iter().map(|filled| filled.peer).collect();
    let stores = bench.open_all(PURPOSE, &peers)?;
    let lasting = bench.scale.round;
    let write = |bench: &Bench, place: usize, drive: Drive, round: usize, lasting: Duration| {
        let store = &stores[place].1;
        let first = ROUNDS_FROM + (round as u64 * 2 + u64::from(writers == 64)) * ROUND_ENTRIES;
        let done = together(&bench.runtime, drive, writers, |writer| {
            let store = store.clone();
            async move {
                let mut latencies = Vec::new();
                let started = Instant::now();
                while started.elapsed() < lasting {
                    let number = first + (latencies.len() * writers + writer) as u64;
                    let request = Request { parts: vec![ledger.entry(number)], conditional: false };
                    let asked = Instant::now();
                    store.append(request, writer, drive).await?.written()?;
                    latencies.push(asked.elapsed());
                }
                Ok(latencies)
            }
        })?;
        let latencies = done.each.concat();
        anyhow::Ok(Figures::new(latencies.len() as u64, done.elapsed, latencies, 0))
    };
    for (place, filled) in filled.iter_mut().enumerate() {
        let append = |way, drive| write(bench, place, drive, way, lasting / 2);
        let (drive, events) = faster_drive(&*stores[place].1, append)?;
        filled.drive = drive;
        filled.events += events;
    }
    for round in 0..bench.rounds() {
        for place in Bench::turn(&(0..filled.len()).collect::<Vec<_>>(), round) {
            disk::settle();
            let figures = write(bench, place, filled[place].drive, round + 2, lasting)?;
            filled[place].events += figures.events;
            let rate = Round::rate(figures.events_per_second(), &figures);
            bench.report.add(name, Who::Store(filled[place].peer), rate);
        }
    }
    for (Filled { peer, drive, events }, (_, store)) in filled.iter().zip(&stores) {
        bench.runtime.block_on(check_count(&**store, &bench.place(PURPOSE, *peer), *events))?;
        bench.report.note(name, format!("{peer}: {events} events are there, called by {drive:?}"));
    }
    bench.show(name);
    Ok(())
}

/// Reads by one reader. The figure is the mean time of a read.
struct Reads {
    name: &'static str,
    what: Read,
    /// Only this many, in a store that was just opened; `None` for a store that is open for long.
    first: Option<u64>,
}

enum Read {
    Stream,
    Tag,
    MissingTag,
}

const READS: [Reads; 5] = [
    Reads { name: "ledger-stream", what: Read::Stream, first: None },
    Reads { name: "ledger-stream-first", what: Read::Stream, first: Some(500) },
    Reads { name: "ledger-tag", what: Read::Tag, first: None },
    Reads { name: "ledger-tag-first", what: Read::Tag, first: Some(200) },
    Reads { name: "ledger-tag-none", what: Read::MissingTag, first: Some(200) },
];

fn read(bench: &mut Bench, peers: &[Peer], reads: &Reads, ledger: Ledger) -> Result<()> {
    let kept = if reads.first.is_none() { bench.open_all(PURPOSE, peers)? } else { Vec::new() };
    let mut seen = Digest::default();
    for round in 0..=bench.rounds() {
        let mut digests = Vec::new();
        for place in Bench::turn(&(0..peers.len()).collect::<Vec<_>>(), round) {
            let peer = peers[place];
            let store = match kept.get(place) {
                Some((_, store)) => store.clone(),
                None => bench.opener.open(peer, &bench.place(PURPOSE, peer))?,
            };
            disk::settle();
            let count = reads.first.unwrap_or(WARM_READS);
            let mut random = Random::new(round as u64);
            let mut digest = Digest::default();
            let latencies = bench.runtime.block_on(async {
                let mut latencies = Vec::new();
                for _ in 0..count {
                    let (stream, name) = match reads.what {
                        Read::Stream => (true, Ledger::stream(random.below(ledger.accounts))),
                        Read::Tag => (false, Ledger::tag(random.below(ledger.customers()))),
                        Read::MissingTag => (false, Ledger::tag(1_000_000_000 + random.below(1_000_000))),
                    };
                    let mut see = |data: &[u8]| digest.add(Digest::of(data));
                    let asked = Instant::now();
                    match stream {
                        true => store.stream(&name, 0, &mut see).await?,
                        false => store.tag(&name, 0, &mut see).await?,
                    }
                    latencies.push(asked.elapsed());
                }
                anyhow::Ok(latencies)
            })?;
            digests.push((peer, digest));
            if round > 0 {
                let total: Duration = latencies.iter().sum();
                let figures = Figures::new(digest.events, total, latencies, 0);
                let mean = total.as_secs_f64() * 1e6 / count as f64;
                bench.report.add(reads.name, Who::Store(peer), Round::rate(mean, &figures));
            }
        }
        seen.add(agreed(reads.name, &digests)?);
    }
    let Digest { events, hash, .. } = seen;
    bench.report.note(reads.name, format!("all: the same {events} events, digest {hash:016x}"));
    bench.show(reads.name);
    Ok(())
}

fn open(bench: &mut Bench) -> Result<()> {
    let peers = bench.embedded();
    for round in 0..bench.rounds() {
        for peer in Bench::turn(&peers, round) {
            disk::settle();
            let place = bench.place(PURPOSE, peer);
            let (opened, events) = timed_open(bench, peer, &place, &Ledger::stream(0))?;
            ensure!(events > 0, "{peer}: the first account has no entries");
            bench.report.add("ledger-open", Who::Store(peer), opened);
        }
    }
    bench.show("ledger-open");
    Ok(())
}
