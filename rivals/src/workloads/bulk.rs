//! A bulk load: one writer, 1,000 events a request, 40 new streams of 25 events each, on the condition that
//! none of the streams exists.

use std::sync::Arc;
use std::time::Instant;

use annals_bench::Figures;
use anyhow::Result;

use crate::bench::{Bench, agreed, check, check_count, faster_drive};
use crate::disk::settle;
use crate::drive::together;
use crate::events::{Digest, orders, part};
use crate::peers::Peer;
use crate::report::{Round, Who};
use crate::rival::{Drive, Request, Rival, Seen};

const NAME: &str = "bulk";
const STREAMS: u64 = 40;
const EVENTS: u64 = 25;
/// Bytes that a request has in a log: events of 256 bytes with their names.
const REQUEST_BYTES: usize = 320_000;
/// Requests of each way in which a store is called before the rounds.
const WARM_REQUESTS: usize = 10;

/// Runs the workload.
///
/// # Errors
/// As the stores', or if one of them does not hold what it acknowledged.
pub fn run(bench: &mut Bench) -> Result<()> {
    for (group, peers) in bench.groups() {
        bench.report.group = group;
        run_group(bench, &peers)?;
        bench.remove(NAME)?;
    }
    bench.show(NAME);
    Ok(())
}

fn run_group(bench: &mut Bench, peers: &[Peer]) -> Result<()> {
    let stores = bench.open_all(NAME, peers)?;
    let mut contenders = Vec::new();
    let mut next = 1;
    for (peer, store) in stores {
        next = 1;
        let append = |_, drive| write(bench, &store, drive, requests(&mut next, WARM_REQUESTS));
        let (drive, events) = faster_drive(&*store, append)?;
        contenders.push((peer, store, drive, events / (STREAMS * EVENTS)));
    }
    // Beyond what any store was warmed with.
    next = next.max(1 + 2 * WARM_REQUESTS as u64 * STREAMS);
    // The disk has its turn beside the first group.
    let device_turns = usize::from(bench.report.group == 0);
    let turns: Vec<_> = (0..contenders.len() + device_turns).collect();
    for round in 0..bench.rounds() {
        let made = requests(&mut next, bench.scale.bulk_requests);
        for turn in Bench::turn(&turns, round) {
            settle();
            let Some((peer, store, drive, written)) = contenders.get_mut(turn) else {
                device(bench)?;
                continue;
            };
            *written += made.len() as u64;
            let figures = write(bench, store, *drive, made.clone())?;
            bench.report.add(NAME, Who::Store(*peer), Round::rate(figures.events_per_second(), &figures));
        }
    }
    let mut digests = Vec::new();
    for (peer, store, drive, written) in &contenders {
        let digest = bench.runtime.block_on(async {
            let events = written * STREAMS * EVENTS;
            check_count(&**store, &bench.place(NAME, *peer), events).await?;
            let mut digest = Digest::default();
            for stream in next - STREAMS..next {
                check(&**store, stream).await?.iter().for_each(|data| digest.see(data));
            }
            anyhow::Ok(digest)
        })?;
        digests.push((*peer, digest));
        bench.report.note(NAME, format!("{peer}: {written},000 events are there, called by {drive:?}"));
    }
    let digest = agreed(NAME, &digests)?;
    let (events, hash) = (digest.events, digest.hash);
    bench.report.note(NAME, format!("all: the same {events} events were read back, digest {hash:016x}"));
    Ok(())
}

/// What the disk does by itself with writes of as many bytes as a request has, a sync after each, over zeros.
fn device(bench: &mut Bench) -> Result<()> {
    let figures = annals_bench::bare(&bench.directory, REQUEST_BYTES, bench.scale.bulk_requests)?;
    let rate = figures.requests_per_second() * (STREAMS * EVENTS) as f64;
    bench.report.add(NAME, Who::Device, Round::rate(rate, &figures));
    Ok(())
}

/// Requests for new streams from this number on. They are made before the time is taken.
fn requests(next: &mut u64, count: usize) -> Vec<Request> {
    let mut request = || {
        let streams = *next..*next + STREAMS;
        *next = streams.end;
        let orders_of = |stream| part(stream, Seen::default(), orders(stream, 1, EVENTS as usize));
        Request { parts: streams.map(orders_of).collect(), conditional: true }
    };
    (0..count).map(|_| request()).collect()
}

fn write(bench: &Bench, store: &Arc<dyn Rival>, drive: Drive, requests: Vec<Request>) -> Result<Figures> {
    let done = together(&bench.runtime, drive, 1, |_| {
        let (store, requests) = (store.clone(), requests.clone());
        async move {
            let mut latencies = Vec::with_capacity(requests.len());
            for request in requests {
                let asked = Instant::now();
                store.append(request, 0, drive).await?.written()?;
                latencies.push(asked.elapsed());
            }
            Ok(latencies)
        }
    })?;
    let latencies: Vec<_> = done.each.into_iter().flatten().collect();
    let events = latencies.len() as u64 * STREAMS * EVENTS;
    Ok(Figures::new(events, done.elapsed, latencies, 0))
}
