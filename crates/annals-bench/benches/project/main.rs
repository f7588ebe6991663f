//! Projections into PostgreSQL and MariaDB beside the same rows written by hand, one row an event, in turn;
//! and what projections and a publisher cost that have nothing to do:
//!
//! ```text
//! cargo bench -p annals-bench --bench project -- [EVENTS] [ROUNDS] [SECONDS]
//! ```
//!
//! The servers are started here and do not wait for the disk. The log is in memory. A round writes into
//! tables of its own. Of `SECONDS` 0, only the first part runs; of `EVENTS` 0, only the second.
//!
//! The files: `deposits` (the projections), `by_hand`, `delay` (a proxy that makes round trips longer),
//! `idle`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark speaks to its user and ends at a surprise"
)]

mod by_hand;
mod delay;
mod deposits;
mod idle;

use std::sync::Arc;
use std::time::Duration;

use annals_bench::{Ratio, consume};
use annals_core::EventStore;
use annals_testservers::kind::Kind;
use annals_testservers::place::Place;

use crate::delay::Delay;
use crate::deposits::{All, Awaited, Queued, project};

/// Of the events, this share is written where each round trip takes a millisecond longer.
const DELAYED: usize = 10;

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(100_000);
    let rounds = numbers.get(1).copied().unwrap_or(5);
    let seconds = numbers.get(2).copied().unwrap_or(60) as u64;
    for kind in [Kind::Postgres, Kind::MariaDb] {
        if events > 0 {
            rows(kind, events, rounds).await;
        }
        if seconds > 0 {
            idle::run(kind, Duration::from_secs(seconds)).await;
        }
    }
}

async fn log_of(events: usize) -> Arc<dyn EventStore> {
    let log = annals::open_store(&"memory:".parse().unwrap()).await.unwrap();
    consume::fill(&*log, events, 1_000).await.unwrap();
    log
}

/// Events a second of each way, by round.
#[derive(Default)]
struct Rates {
    by_hand: Vec<f64>,
    awaited: Vec<f64>,
    queued: Vec<f64>,
    all: Vec<f64>,
    bulk: Vec<f64>,
    far_by_hand: Vec<f64>,
    far_queued: Vec<f64>,
}

async fn rows(kind: Kind, events: usize, rounds: usize) {
    let log = log_of(events).await;
    let few = (events / DELAYED).max(1);
    let short = log_of(few).await;
    let mut rates = Rates::default();
    for _ in 0..rounds {
        rates.by_hand.push(by_hand::awaited(&*log, &Place::on(kind).await.url).await);
        rates.awaited.push(project::<Awaited>(&log, &Place::on(kind).await.url).await);
        rates.queued.push(project::<Queued>(&log, &Place::on(kind).await.url).await);
        rates.all.push(project::<All>(&log, &Place::on(kind).await.url).await);
        rates.bulk.push(by_hand::bulk(&*log, &Place::on(kind).await).await);
        let place = Place::on(kind).await;
        rates.far_by_hand.push(by_hand::awaited(&*short, Delay::to(&place.url).url()).await);
        let place = Place::on(kind).await;
        rates.far_queued.push(project::<Queued>(&short, Delay::to(&place.url).url()).await);
    }
    report(kind, events, few, &rates);
}

fn report(kind: Kind, events: usize, few: usize, rates: &Rates) {
    let thousands = |rates: &[f64]| Ratio::spread(rates.iter().map(|rate| rate / 1e3)).unwrap();
    let ratio =
        |one: &[f64], other: &[f64]| Ratio::of(one.iter().copied().zip(other.iter().copied())).unwrap();
    let bulk = if kind.is_postgres() { "COPY" } else { "LOAD DATA" };
    println!("{kind:?}, {events} events, {} rounds, medians with the spread", rates.by_hand.len());
    println!("a loop that awaits each row             thousand rows/s  {}", thousands(&rates.by_hand));
    println!("`apply` that awaits each row            thousand rows/s  {}", thousands(&rates.awaited));
    println!("`apply` that queues each row            thousand rows/s  {}", thousands(&rates.queued));
    println!(
        "  of the loop                           ratio            {}",
        ratio(&rates.queued, &rates.by_hand)
    );
    println!("`apply_all`, a statement for many rows  thousand rows/s  {}", thousands(&rates.all));
    println!("{bulk:<10} of all rows at once         thousand rows/s  {}", thousands(&rates.bulk));
    println!("  of `apply_all`                        ratio            {}", ratio(&rates.bulk, &rates.all));
    println!("with a millisecond more for each round trip, {few} events");
    println!("  a loop that awaits each row           thousand rows/s  {}", thousands(&rates.far_by_hand));
    println!("  `apply` that queues each row          thousand rows/s  {}", thousands(&rates.far_queued));
    let far = ratio(&rates.far_queued, &rates.far_by_hand);
    println!("  of the loop                           ratio            {far}");
}
