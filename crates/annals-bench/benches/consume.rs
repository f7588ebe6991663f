//! Subscribers and projections beside the same work by hand, on an embedded log, in turn:
//!
//! ```text
//! cargo bench -p annals-bench --bench consume -- [EVENTS] [ROUNDS]
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark speaks to its user and ends at a surprise"
)]

use std::time::Duration;

use annals::State;
use annals_bench::consume::{Deposits, ManyDeposits};
use annals_bench::{Ratio, consume};

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(500_000);
    let rounds = numbers.get(1).copied().unwrap_or(5);
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().join("log").display()).parse().unwrap();
    let store = annals::open_store(&url).await.unwrap();
    consume::fill(&*store, events, 1_000).await.unwrap();
    let waited = Duration::from_millis(1);
    let short = annals::open_store(&"memory:".parse().unwrap()).await.unwrap();
    consume::fill(&*short, 20_000, 1_000).await.unwrap();
    let (mut read, mut subscribed, mut waits) = (vec![], vec![], vec![]);
    let (mut rows, mut all, mut lag) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        let place = |name: &str| {
            let place = directory.path().join(format!("{name}-{round}"));
            std::fs::create_dir_all(&place).unwrap();
            place
        };
        let by_hand = consume::read_by_hand(&*store).await.unwrap();
        let state = State::directory(place("subscriber"));
        let subscriber = consume::subscriber(&store, state, "none", 1, Duration::ZERO).await.unwrap();
        assert_eq!((by_hand.events, subscriber.digest), (events as u64, events as u64));
        read.push(by_hand.events_per_second());
        subscribed.push(subscriber.events_per_second());

        let timers = consume::timers(16, 20_000, waited).await;
        let state = State::directory(place("waits"));
        let waiting = consume::subscriber(&short, state, "waits", 16, waited).await.unwrap();
        waits.push((waiting.events_per_second(), timers.events_per_second()));

        let by_hand = consume::projection_by_hand(&*store, &place("by-hand")).await.unwrap();
        let each = consume::projection(Deposits, &store, &place("projection")).await.unwrap();
        let many = consume::projection(ManyDeposits, &store, &place("many")).await.unwrap();
        assert_eq!((by_hand.digest, by_hand.digest), (each.digest, many.digest));
        rows.push((each.events_per_second(), by_hand.events_per_second()));
        all.push((many.events_per_second(), by_hand.events_per_second()));

        let live_url = format!("file:{}", place("live").display()).parse().unwrap();
        let live = annals::open_store(&live_url).await.unwrap();
        let (appends, handled) =
            consume::live(&live, State::directory(place("live-state")), 500).await.unwrap();
        lag.push((handled.latency(0.5).as_secs_f64() - appends.latency(0.5).as_secs_f64()) * 1e6);
    }
    let thousands = |numbers: &[f64]| Ratio::spread(numbers.iter().map(|number| number / 1e3)).unwrap();
    println!("{events} events, {rounds} rounds, medians with the spread");
    println!("read by hand                                thousand events/s  {}", thousands(&read));
    println!("subscriber that does nothing                thousand events/s  {}", thousands(&subscribed));
    println!("16 partitions that wait 1 ms, of 16 loops   ratio              {}", Ratio::of(waits).unwrap());
    let of: Vec<f64> = rows.iter().map(|(projection, _)| *projection).collect();
    println!("projection into SQLite, a row an event      thousand events/s  {}", thousands(&of));
    println!("the same, of the loop by hand               ratio              {}", Ratio::of(rows).unwrap());
    println!("`apply_all`, of the loop by hand            ratio              {}", Ratio::of(all).unwrap());
    println!(
        "from append to handler beyond the append    microseconds, p50  {}",
        Ratio::spread(lag).unwrap()
    );
}
