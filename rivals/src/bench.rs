//! One run: which stores, how much, where; and what every workload needs of it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_bench::Figures;
use anyhow::{Result, ensure};
use tokio::runtime::Handle;

use crate::disk::{Used, settle};
use crate::events::{Digest, EVENT_BYTES, orders, part, stream_name};
use crate::peers::{Opener, Peer};
use crate::report::{Report, Round, Who};
use crate::rival::{Drive, Request, Rival, Seen};
use crate::say::say;

/// How much is done. Two of them: quick and thorough.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rounds of a workload.
    pub rounds: usize,
    /// How long a round of appends lasts.
    pub round: Duration,
    /// Small writes of the bare device in a round.
    pub device_writes: usize,
    /// Large writes of the bare device in a round.
    pub large_writes: usize,
    /// Requests of a round of the bulk load.
    pub bulk_requests: usize,
    /// Streams of the store that is read, each of 30 events.
    pub streams: u64,
    /// Streams that are read in a round from memory, by all readers together.
    pub warm_reads: u64,
    /// Streams that are read in a round from the disk by one reader; many read four times as many together.
    pub cold_reads: u64,
    /// Streams of one event each of the large store.
    pub many: u64,
    /// Events that are appended one by one to be weighed.
    pub singles: u64,
    /// Entries of the ledger.
    pub entries: u64,
}

impl Scale {
    /// About two minutes.
    pub const QUICK: Self = Self {
        rounds: 5,
        round: Duration::from_millis(300),
        device_writes: 100,
        large_writes: 6,
        bulk_requests: 40,
        streams: 10_000,
        warm_reads: 960,
        cold_reads: 60,
        many: 500_000,
        singles: 30_000,
        entries: 1_000_000,
    };
    /// About a quarter of an hour.
    pub const THOROUGH: Self = Self {
        rounds: 7,
        round: Duration::from_millis(1_500),
        device_writes: 500,
        large_writes: 40,
        bulk_requests: 500,
        streams: 100_000,
        warm_reads: 16_000,
        cold_reads: 400,
        many: 10_000_000,
        singles: 1_000_000,
        entries: 10_000_000,
    };
}

/// Streams of the small store.
pub const FEW: u64 = 10_000;
/// Events of each stream of the store that is read.
pub const STREAM_EVENTS: u64 = 30;
/// A large write of the bare device.
const LARGE_BYTES: usize = 8 << 20;
/// Events of one request of a load.
pub const LOAD_BATCH: u64 = 1_000;

/// One run.
pub struct Bench {
    /// Opens stores.
    pub opener: Opener,
    /// Where tasks run.
    pub runtime: Handle,
    /// Where everything is written.
    pub directory: PathBuf,
    /// Who is compared; Annals is always the first.
    pub peers: Vec<Peer>,
    /// How much is done.
    pub scale: Scale,
    /// What came of it.
    pub report: Report,
    /// Time of the processors until the last table.
    pub used: Used,
}

impl Bench {
    /// These peers in the order of this round: each round begins with another.
    pub fn turn<T: Copy>(peers: &[T], round: usize) -> Vec<T> {
        let mut turn = peers.to_vec();
        let (cycle, step) = (round / peers.len().max(1), round % peers.len().max(1));
        turn.rotate_left(step);
        // The other way round in every second cycle, so that nobody always follows the same one.
        if cycle % 2 == 1 {
            turn.reverse();
        }
        turn
    }

    /// Who is measured side by side, Annals in every group: Tephra apart from those that go on writing after
    /// they have answered. Rounds of two stores are so closer to each other in time.
    pub fn groups(&self) -> Vec<(usize, Vec<Peer>)> {
        let (embedded, others): (Vec<_>, Vec<_>) = self.peers.iter().partition(|peer| peer.is_embedded_log());
        let mut groups = Vec::new();
        if embedded.len() > 1 || others.is_empty() {
            groups.push(embedded);
        }
        if !others.is_empty() {
            groups.push([vec![Peer::Annals], others].concat());
        }
        groups.into_iter().enumerate().collect()
    }

    /// The peers that are libraries over files.
    pub fn embedded(&self) -> Vec<Peer> {
        self.peers.iter().copied().filter(|peer| peer.is_embedded_log()).collect()
    }

    /// Rounds of the group that is measured now: the first group is the one with targets.
    pub fn rounds(&self) -> usize {
        if self.report.group == 0 { self.scale.rounds } else { self.scale.rounds.div_ceil(2) }
    }

    /// The directory of a peer's store for this purpose.
    pub fn place(&self, purpose: &str, peer: Peer) -> PathBuf {
        self.directory.join(purpose).join(peer.name())
    }

    /// Opens a store for each of these peers.
    ///
    /// # Errors
    /// As the stores'.
    pub fn open_all(&self, purpose: &str, peers: &[Peer]) -> Result<Vec<(Peer, Arc<dyn Rival>)>> {
        let open = |&peer: &Peer| Ok((peer, self.opener.open(peer, &self.place(purpose, peer))?));
        peers.iter().map(open).collect()
    }

    /// Removes what was written for this purpose.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn remove(&self, purpose: &str) -> Result<()> {
        let directory = self.directory.join(purpose);
        if directory.exists() {
            std::fs::remove_dir_all(directory)?;
        }
        Ok(())
    }

    /// Prints a workload's table, and how much of the machine others had since the last one was printed.
    pub fn show(&mut self, workload: &str) {
        let (since, now) = (self.used, Used::now());
        self.used = now;
        say(&self.report.table(workload));
        if let Some(percent) = now.others(since) {
            say(&format!("  other processes had {percent:.0} % of the processors\n"));
        }
    }

    /// What the disk does by itself with large writes, a sync after each, as events in a second.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn large_writes(&mut self, workload: &'static str) -> Result<()> {
        let figures = annals_bench::bare(&self.directory, LARGE_BYTES, self.scale.large_writes)?;
        let events = figures.requests_per_second() * (LARGE_BYTES / EVENT_BYTES) as f64;
        self.report.add(workload, Who::Device, Round::rate(events, &figures));
        Ok(())
    }
}

/// Loads a store: these streams, `each` events in each, 1,000 a request, without conditions. The events of a
/// stream are spread over the whole log.
///
/// # Errors
/// As the store's.
pub async fn load(store: &dyn Rival, streams: Range<u64>, each: u64) -> Result<()> {
    let drive = store.drives()[0];
    for version in 0..each {
        for first in streams.clone().step_by(LOAD_BATCH as usize) {
            let streams = first..(first + LOAD_BATCH).min(streams.end);
            let orders_of = |stream| {
                let seen = Seen { version, position: 0 };
                part(stream, seen, orders(stream, version + 1, 1))
            };
            let request = Request { parts: streams.map(orders_of).collect(), conditional: false };
            store.append(request, 0, drive).await?.written()?;
        }
    }
    Ok(())
}

/// Reads a stream, and its digest.
///
/// # Errors
/// As the store's.
pub async fn read(store: &dyn Rival, name: &str, caller: usize) -> Result<Digest> {
    let mut digest = Digest::default();
    store.stream(name, caller, &mut |data| digest.see(data)).await?;
    Ok(digest)
}

/// Reads a stream and holds it against what was written.
///
/// # Errors
/// If there is none, or another event in it.
pub async fn check(store: &dyn Rival, stream: u64) -> Result<Vec<Vec<u8>>> {
    let mut read = Vec::new();
    store.stream(&stream_name(stream), 0, &mut |data| read.push(data.to_vec())).await?;
    let written = orders(stream, 1, read.len());
    ensure!(!read.is_empty(), "stream {stream} has no events");
    ensure!(read.iter().eq(written.iter()), "stream {stream} has other events than were written");
    Ok(read)
}

/// Calls a store in each of its ways, which warms it; returns the faster way, and how many events were
/// appended. `append` gets the number of the way.
///
/// # Errors
/// As the store's.
pub fn faster_drive(
    store: &dyn Rival,
    mut append: impl FnMut(usize, Drive) -> Result<Figures>,
) -> Result<(Drive, u64)> {
    let (mut tried, mut events) = (Vec::new(), 0);
    for (way, &drive) in store.drives().iter().enumerate() {
        let figures = append(way, drive)?;
        events += figures.events;
        tried.push((figures.events_per_second(), drive));
    }
    let best = tried.into_iter().max_by(|one, other| one.0.total_cmp(&other.0));
    Ok((best.expect("a store can be called in one way at least").1, events))
}

/// Opens a store and reads one stream, so that nothing is put off unseen; closes it again. Returns the
/// milliseconds, and how many events the stream has.
///
/// # Errors
/// As the store's.
pub fn timed_open(bench: &Bench, peer: Peer, place: &Path, stream: &str) -> Result<(Round, u64)> {
    let started = Instant::now();
    let store = bench.opener.open(peer, place)?;
    let digest = bench.runtime.block_on(read(&*store, stream, 0))?;
    Ok((Round::of(started.elapsed().as_secs_f64() * 1e3), digest.events))
}

/// What is scanned, and how.
pub struct Scan {
    /// Name of the workload.
    pub name: &'static str,
    /// Where the stores are.
    pub purpose: &'static str,
    /// Events of the log.
    pub events: u64,
    /// Events of a page; `None` for the way that is the store's fastest. Events that were appended by several
    /// writers at once may be in another order in each store: by pages, what was read is compared without
    /// regard to the order.
    pub page: Option<usize>,
}

/// One reader reads the whole log, again and again, in each of these peers' stores.
///
/// # Errors
/// As the stores', or if two of them give different events.
pub fn scan(bench: &mut Bench, peers: &[Peer], scan: &Scan) -> Result<()> {
    // Opened again, so that what a store does on opening is done before it is asked.
    let stores = bench.open_all(scan.purpose, peers)?;
    let turns: Vec<_> = stores.iter().collect();
    let mut digests = Vec::new();
    // The first round warms all of them.
    for round in 0..=bench.rounds() {
        for (peer, store) in Bench::turn(&turns, round) {
            settle();
            let mut digest = Digest::default();
            let started = Instant::now();
            bench.runtime.block_on(async {
                match scan.page {
                    None => store.log(&mut |data| digest.see(data)).await,
                    Some(events) => store.pages(events, &mut |data| digest.add(Digest::of(data))).await,
                }
            })?;
            let elapsed = started.elapsed().as_secs_f64();
            digests.push((*peer, digest));
            if round > 0 {
                let rate = Round::of(digest.events as f64 / elapsed);
                bench.report.add(scan.name, Who::Store(*peer), rate);
            }
        }
    }
    let Digest { events, bytes, hash } = agreed(scan.name, &digests)?;
    ensure!(events == scan.events, "the log was read to its end");
    let note = format!("all: the same {events} events ({bytes} bytes), digest {hash:016x}");
    bench.report.note(scan.name, note);
    bench.show(scan.name);
    Ok(())
}

/// What all stores have read, if it is the same.
///
/// # Errors
/// If it is not.
pub fn agreed(purpose: &str, digests: &[(Peer, Digest)]) -> Result<Digest> {
    let Some(&(first, digest)) = digests.first() else { return Ok(Digest::default()) };
    for (peer, other) in digests {
        ensure!(*other == digest, "{purpose}: {first} has read {digest:?}, and {peer} {other:?}");
    }
    Ok(digest)
}

/// How many events a store has, if it is this many.
///
/// # Errors
/// If it is not.
pub async fn check_count(store: &dyn Rival, path: &Path, events: u64) -> Result<()> {
    let count = store.count().await?;
    ensure!(count == events, "{} has {count} events, and {events} were acknowledged", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_and_all_have_their_turn() {
        let firsts = |peers: &[usize]| (0..12).map(|round| Bench::turn(peers, round)[0]).collect::<Vec<_>>();
        for peers in [&[1, 2][..], &[1, 2, 3], &[1, 2, 3, 4]] {
            for peer in peers {
                let times = firsts(peers).into_iter().filter(|first| first == peer).count();
                assert_eq!(times, 12 / peers.len(), "{peers:?}: {:?}", firsts(peers));
            }
        }
        for round in 0..6 {
            let mut turn = Bench::turn(&[1, 2, 3], round);
            turn.sort_unstable();
            assert_eq!(turn, [1, 2, 3]);
        }
    }

    #[test]
    fn two_stores_that_disagree_are_reported() {
        let (mut one, other) = (Digest::default(), Digest::default());
        one.see(b"event");
        assert!(agreed("scan", &[(Peer::Annals, one), (Peer::Tephra, one)]).is_ok());
        assert!(agreed("scan", &[(Peer::Annals, one), (Peer::Tephra, other)]).is_err());
    }
}
