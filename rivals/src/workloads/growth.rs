//! What a request costs as the ledger grows: Annals alone, in one store that is filled to each size in turn.
//!
//! Peers that keep an index in memory do not fit beside it. So each figure is compared with the same figure
//! at the first size.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use annals_bench::Ratio;
use annals_core::{
    Append, EventStore, Expected, IdempotencyKey, LogRead, NewEvent, Position, Query, StreamId, Tag,
};
use annals_engine::EngineStore;
use anyhow::{Result, ensure};

use crate::bench::{Bench, read, timed_open};
use crate::child::{USED_ENTRIES, What, run_and_kill};
use crate::disk;
use crate::events::{Digest, Ledger, Random};
use crate::peers::Peer;
use crate::peers::annals::AnnalsStore;
use crate::report::figure;
use crate::rival::Rival;
use crate::say::say;
use crate::workloads::ledger::{BATCH, fill_with};

/// The sizes of the ledger, in entries.
pub const SIZES: [u64; 3] = [1_000_000, 10_000_000, 100_000_000];

const PURPOSE: &str = "growth";
/// Entries of a round of the fill that is measured: the last ones of each size.
const FILL_ENTRIES: u64 = 200_000;
/// Requests of a round.
const REQUESTS: u64 = 1_000;

/// A figure that is taken at each size.
struct Row {
    name: &'static str,
    unit: &'static str,
    /// By how much the cost may grow from the first size on, as a factor; `None` if more is done in a larger
    /// ledger, or if it is a total.
    limit: Option<f64>,
    is_rate: bool,
}

const fn rate(name: &'static str, unit: &'static str) -> Row {
    Row { name, unit, limit: Some(LIMIT), is_rate: true }
}

const fn cost(name: &'static str, unit: &'static str, limit: Option<f64>) -> Row {
    Row { name, unit, limit, is_rate: false }
}

const LIMIT: f64 = 1.5;

/// In the order in which they are measured.
const ROWS: [Row; 14] = [
    rate("fill: 4 writers, 1,000 entries a request", "events/s"),
    cost("open and read one stream", "ms", None),
    cost("first 1,000 keys that were never used", "us", Some(LIMIT)),
    cost("key that was never used", "us", Some(LIMIT)),
    cost("stream that is not there", "us", Some(LIMIT)),
    cost("tag that is nowhere", "us", Some(LIMIT)),
    cost("entries of a customer", "us", None),
    cost("stream of an account", "us", None),
    cost("append of an entry, 1 writer", "us", Some(LIMIT)),
    cost("append to a new stream with a key, 1 writer", "us", Some(LIMIT)),
    rate("scan by pages of 1,000", "events/s"),
    cost("size, as written", "bytes/event", Some(LIMIT)),
    cost("memory of a process that reads and appends", "MB", None),
    cost("size, allocated", "MB", None),
];

/// Grows the ledger and prints the table.
///
/// # Errors
/// As the store's, or if something other than what was written is read.
pub fn run(bench: &mut Bench, sizes: &[u64]) -> Result<()> {
    let mut columns: Vec<Vec<f64>> = Vec::new();
    let (mut filled, mut entries) = (0, 0);
    for &size in sizes {
        say(&format!("filling up to {} entries\n", figure(size as f64)));
        let figures = measure(bench, size, &mut filled, &mut entries)?;
        columns.push(figures);
        say(&table(sizes, &columns));
    }
    bench.remove(PURPOSE)
}

/// Fills the store up to this size and takes all figures. `filled` entries of the ledger were written before,
/// and `events` with those of requests that were measured.
fn measure(bench: &Bench, size: u64, filled: &mut u64, events: &mut u64) -> Result<Vec<f64>> {
    let place = bench.place(PURPOSE, Peer::Annals);
    std::fs::create_dir_all(&place)?;
    let ledger = Ledger::of(size);
    let rounds = bench.scale.rounds as u64;
    let mut figures = Vec::new();

    let store = Arc::new(AnnalsStore::open(&place)?);
    let last = size - (rounds * FILL_ENTRIES).min(size - *filled);
    fill(bench, &store, ledger, *filled, last)?;
    let rates = (0..rounds).map(|round| {
        let part = |round| last + (size - last) * round / rounds / BATCH * BATCH;
        disk::settle();
        fill(bench, &store, ledger, part(round), part(round + 1))
    });
    figures.push(median(rates.collect::<Result<Vec<_>>>()?));
    *events += size - *filled;
    *filled = size;
    ensure!(bench.runtime.block_on(store.count())? == *events, "what was acknowledged is there");
    drop(store);

    let opened = (0..rounds).map(|_| {
        disk::settle();
        Ok(timed_open(bench, Peer::Annals, &place, &Ledger::stream(0))?.0.value)
    });
    figures.push(median(opened.collect::<Result<Vec<_>>>()?));

    let mut firsts = Vec::new();
    for round in 0..rounds {
        disk::settle();
        let rival = AnnalsStore::open(&place)?;
        firsts.push(bench.runtime.block_on(requests(|number| missing_key(&rival.store, round, number)))?);
    }
    figures.push(median(firsts));

    let kept = AnnalsStore::open(&place)?;
    let (rival, store) = (&kept, &kept.store);
    let mut random = Random::new(size);
    figures.push(each(bench, |round, number| missing_key(store, 1_000 + round, number))?);
    figures.push(each(bench, |round, number| async move {
        let name = format!("nobody-{size}-{round}-{number}");
        let digest = read(rival, &name, 0).await?;
        ensure!(digest.events == 0, "{name} has no events");
        Ok(())
    })?);
    figures.push(each(bench, |round, number| async move {
        let tag = Tag::new(Ledger::tag(1_000_000_000 + round * REQUESTS + number))?;
        let page = store.read_log(LogRead::forward(Position::FIRST).matching(Query::tags([tag]))).await?;
        ensure!(page.events.is_empty(), "no entry has the tag");
        Ok(())
    })?);
    figures.push(each(bench, |_, _| {
        let customer = random.below(ledger.customers());
        async move {
            let mut digest = Digest::default();
            rival.tag(&Ledger::tag(customer), 0, &mut |data| digest.add(Digest::of(data))).await
        }
    })?);
    figures.push(each(bench, |_, _| {
        let account = random.below(ledger.accounts);
        async move { read(rival, &Ledger::stream(account), 0).await.map(drop) }
    })?);
    figures.push(each(bench, |round, number| {
        let mut entry = ledger.entry((1 << 40) + round * REQUESTS + number);
        async move {
            let event = NewEvent::new(entry.event_type, entry.data.remove(0))?;
            let event = event.with_tag(Tag::new(entry.tag.unwrap_or_default())?);
            store.append(Append::to(StreamId::new(entry.stream)?, Expected::Any, [event])).await?;
            Ok(())
        }
    })?);
    figures.push(each(bench, |round, number| async move {
        let name = format!("new-{size}-{round}-{number}");
        let event = NewEvent::new("account.opened", "{}")?;
        let append = Append::to(StreamId::new(name.clone())?, Expected::NoStream, [event]);
        store.append(append.once(IdempotencyKey::new(name)?)).await?;
        Ok(())
    })?);
    *events += 2 * (rounds + 1) * REQUESTS;

    let mut scans = Vec::new();
    for _ in 0..rounds {
        disk::settle();
        let (mut count, started) = (0, Instant::now());
        bench.runtime.block_on(rival.pages(1_000, &mut |_| count += 1))?;
        ensure!(count == *events, "{count} events were read of {events}");
        scans.push(count as f64 / started.elapsed().as_secs_f64());
    }
    figures.push(median(scans));

    // Closed: everything that may be written is written.
    drop(kept);
    let written = disk::size(&place)?;
    figures.push(written.written as f64 / *events as f64);
    let used = run_and_kill(What::Use(size), Peer::Annals, &place)?;
    *events += USED_ENTRIES;
    figures.push(used.most_bytes as f64 / 1e6);
    figures.push(written.allocated as f64 / 1e6);
    Ok(figures)
}

/// Fills the store with these entries. Returns the events in a second.
fn fill(bench: &Bench, store: &Arc<AnnalsStore>, ledger: Ledger, from: u64, to: u64) -> Result<f64> {
    let store: Arc<dyn Rival> = store.clone();
    Ok(fill_with(bench, &store, ledger, from / BATCH..to / BATCH)?.events_per_second())
}

async fn missing_key(store: &EngineStore, round: u64, number: u64) -> Result<()> {
    let key = IdempotencyKey::new(format!("never-used-{round}-{number}"))?;
    ensure!(store.outcome(&key).await?.is_none(), "nobody used the key");
    Ok(())
}

/// Makes requests round by round, of which the first warms; each is given its round and its number. Returns
/// the mean time of a request, in microseconds, in the middle of the rounds.
fn each<W: Future<Output = Result<()>>>(
    bench: &Bench,
    mut request: impl FnMut(u64, u64) -> W,
) -> Result<f64> {
    let mut times = Vec::new();
    for round in 0..=bench.scale.rounds as u64 {
        disk::settle();
        let time = bench.runtime.block_on(requests(|number| request(round, number)))?;
        times.extend((round > 0).then_some(time));
    }
    Ok(median(times))
}

/// Makes the requests of a round, one after the other. Returns the mean time, in microseconds.
async fn requests<W: Future<Output = Result<()>>>(mut request: impl FnMut(u64) -> W) -> Result<f64> {
    let started = Instant::now();
    for number in 0..REQUESTS {
        request(number).await?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / REQUESTS as f64)
}

fn median(values: Vec<f64>) -> f64 {
    Ratio::spread(values).expect("there is a round").median
}

/// The figures so far, each with how it has grown since the first size.
fn table(sizes: &[u64], columns: &[Vec<f64>]) -> String {
    let mut text = format!("\n  {:<46}", "entries");
    for size in &sizes[..columns.len()] {
        let _ = write!(text, "{:>22}", figure(*size as f64));
    }
    text.push('\n');
    for (row, Row { name, unit, limit, is_rate }) in ROWS.iter().enumerate() {
        let _ = write!(text, "  {:<46}", format!("{name}, {unit}"));
        let first = columns[0][row];
        let mut worst = 1.0;
        for (number, column) in columns.iter().enumerate() {
            let value = column[row];
            let grown = if *is_rate { first / value } else { value / first };
            worst = f64::max(worst, grown);
            let times = if number > 0 { format!(" {grown:>6.2}x") } else { String::new() };
            let _ = write!(text, "{:>22}", figure(value) + &times);
        }
        match limit {
            Some(limit) if worst > *limit => drop(write!(text, "  above {limit}")),
            Some(_) | None => {}
        }
        text.push('\n');
    }
    text
}
