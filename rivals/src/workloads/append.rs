//! Durable appends, each on the condition that its stream is as the writer knows it. Every writer has streams
//! of its own, and begins a new one after 30 appends. A round lasts a given time.
//!
//! Before the rounds each store is called in each of its ways, which warms it; the faster way is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_bench::Figures;
use anyhow::Result;
use bytes::Bytes;

use crate::bench::{Bench, agreed, check, check_count, faster_drive};
use crate::disk::settle;
use crate::drive::together;
use crate::events::{Digest, orders, part};
use crate::peers::Peer;
use crate::report::{Round, Who};
use crate::rival::{Drive, Request, Rival, Seen};

/// The shapes: name, writers, events of a request.
pub const SHAPES: [(&str, usize, usize); 5] = [
    ("append-1x1", 1, 1),
    ("append-64x1", 64, 1),
    ("append-128x1", 128, 1),
    ("append-64x64", 64, 64),
    ("append-64x512", 64, 512),
];

/// Appends to a stream before the writer begins another.
const STREAM_APPENDS: usize = 30;
/// Stream numbers that a round may use, and a writer in it.
const ROUND_STREAMS: u64 = 640_000;
const WRITER_STREAMS: u64 = 5_000;
/// This many events are made before the clock starts, for each second that is measured: making them is work
/// that no store does. A store that is faster has some made while it runs.
const AHEAD_PER_SECOND: f64 = 2_000_000.0;
/// A small write of the bare device: an event with its names.
const SMALL_BYTES: usize = 512;

/// What one round of writers came to.
pub struct Written {
    /// Their figures.
    pub figures: Figures,
    /// The first stream of each writer.
    pub streams: Vec<u64>,
}

/// Lets this many writers append for this long, or until each has made `appends` of them.
///
/// # Errors
/// As the store's.
pub fn write(
    bench: &Bench,
    store: &Arc<dyn Rival>,
    drive: Drive,
    (writers, batch): (usize, usize),
    round: usize,
    (lasting, appends): (Duration, usize),
) -> Result<Written> {
    let first_of = move |caller: usize| round as u64 * ROUND_STREAMS + caller as u64 * WRITER_STREAMS;
    let done = together(&bench.runtime, drive, writers, |caller| {
        let store = store.clone();
        let ahead = (AHEAD_PER_SECOND * lasting.as_secs_f64()) as usize / (writers * batch) + 1;
        let mut made =
            (0..ahead.min(appends)).map(|append| data(first_of(caller), append, batch)).collect::<Vec<_>>();
        made.reverse();
        async move {
            let (mut stream, mut seen) = (first_of(caller), Seen::default());
            let mut latencies = Vec::new();
            let started = Instant::now();
            while started.elapsed() < lasting && latencies.len() < appends {
                if !latencies.is_empty() && latencies.len() % STREAM_APPENDS == 0 {
                    (stream, seen) = (stream + 1, Seen::default());
                }
                let data = made.pop().unwrap_or_else(|| data(first_of(caller), latencies.len(), batch));
                let orders = part(stream, seen, data);
                let request = Request { parts: vec![orders], conditional: true };
                let asked = Instant::now();
                seen.position = store.append(request, caller, drive).await?.written()?;
                latencies.push(asked.elapsed());
                seen.version += batch as u64;
            }
            // What is left is dropped when the time was taken.
            Ok((latencies, made))
        }
    })?;
    let latencies: Vec<_> = done.each.into_iter().flat_map(|(latencies, _)| latencies).collect();
    let events = (latencies.len() * batch) as u64;
    let figures = Figures::new(events, done.elapsed, latencies, 0);
    Ok(Written { figures, streams: (0..writers).map(first_of).collect() })
}

/// The data of a writer's append with this number.
fn data(first_stream: u64, append: usize, batch: usize) -> Vec<Bytes> {
    let stream = first_stream + (append / STREAM_APPENDS) as u64;
    orders(stream, (append % STREAM_APPENDS * batch) as u64 + 1, batch)
}

struct Contender {
    peer: Peer,
    store: Arc<dyn Rival>,
    drive: Drive,
    events: u64,
}

/// Runs the workload with this name.
///
/// # Errors
/// As the stores', or if one of them does not hold what it acknowledged.
pub fn run(bench: &mut Bench, name: &'static str, writers: usize, batch: usize) -> Result<()> {
    for (group, peers) in bench.groups() {
        bench.report.group = group;
        run_group(bench, &peers, name, (writers, batch))?;
        bench.remove(name)?;
    }
    bench.show(name);
    Ok(())
}

fn run_group(
    bench: &mut Bench,
    peers: &[Peer],
    name: &'static str,
    (writers, batch): (usize, usize),
) -> Result<()> {
    let mut contenders = Vec::new();
    for (peer, store) in bench.open_all(name, peers)? {
        let lasting = (bench.scale.round / 2, usize::MAX);
        let append = |way, drive| {
            write(bench, &store, drive, (writers, batch), way, lasting).map(|written| written.figures)
        };
        let (drive, events) = faster_drive(&*store, append)?;
        contenders.push(Contender { peer, store, drive, events });
    }
    // The disk has its turn beside the first group.
    let device_turns = usize::from(bench.report.group == 0);
    let turns: Vec<_> = (0..contenders.len() + device_turns).collect();
    let mut streams = Vec::new();
    // One writer waits for nothing but the disk, which has good and bad moments: shorter rounds, and more of
    // them.
    let slices = if writers == 1 { 3 } else { 1 };
    for round in 0..bench.rounds() * slices {
        for turn in Bench::turn(&turns, round) {
            settle();
            let Some(contender) = contenders.get_mut(turn) else {
                device(bench, name, writers, batch)?;
                continue;
            };
            let lasting = (bench.scale.round / slices as u32, usize::MAX);
            let shape = (writers, batch);
            let written = write(bench, &contender.store, contender.drive, shape, round + 2, lasting)?;
            contender.events += written.figures.events;
            streams = written.streams;
            let rate = Round::rate(written.figures.events_per_second(), &written.figures);
            bench.report.add(name, Who::Store(contender.peer), rate);
        }
    }
    verify(bench, name, &contenders, &streams[..writers.min(8)])
}

/// What the disk does by itself in this round, as events in a second; for small requests only where one
/// writer waits for each.
fn device(bench: &mut Bench, name: &'static str, writers: usize, batch: usize) -> Result<()> {
    if batch > 1 {
        bench.large_writes(name)?;
    } else if writers == 1 {
        let figures = annals_bench::bare(&bench.directory, SMALL_BYTES, bench.scale.device_writes)?;
        bench.report.add(name, Who::Device, Round::rate(figures.requests_per_second(), &figures));
    }
    Ok(())
}

/// Every store holds as many events as it acknowledged, and in some streams exactly those that were written.
fn verify(bench: &mut Bench, name: &'static str, contenders: &[Contender], streams: &[u64]) -> Result<()> {
    let mut found = Vec::new();
    for Contender { peer, store, drive, events: acknowledged } in contenders {
        let events = bench.runtime.block_on(async {
            check_count(&**store, &bench.place(name, *peer), *acknowledged).await?;
            let mut events = Vec::new();
            for &stream in streams {
                events.push(check(&**store, stream).await?);
            }
            anyhow::Ok(events)
        })?;
        found.push((*peer, events));
        bench.report.note(name, format!("{peer}: {acknowledged} events are there, called by {drive:?}"));
    }
    // In the same time one store writes more than another: what all of them have is compared.
    let shortest = |place: usize| found.iter().map(|(_, streams)| streams[place].len()).min().unwrap_or(0);
    let digest = |(peer, streams): &(Peer, Vec<Vec<Vec<u8>>>)| {
        let mut digest = Digest::default();
        for (place, events) in streams.iter().enumerate() {
            events[..shortest(place)].iter().for_each(|data| digest.see(data));
        }
        (*peer, digest)
    };
    let digest = agreed(name, &found.iter().map(digest).collect::<Vec<_>>())?;
    let (events, hash) = (digest.events, digest.hash);
    bench.report.note(name, format!("all: the same {events} events were read back, digest {hash:016x}"));
    Ok(())
}
