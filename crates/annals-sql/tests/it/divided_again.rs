//! A group that has finished everything is stopped, and started with another number of shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals::{Annals, Failure, Recorded};
use parking_lot::Mutex;

use crate::counter::{CounterEvent, QUICKLY, increase, until};
use crate::place::Place;

on_each_database! {
    what_a_group_has_finished_is_not_told_again_when_it_is_divided_otherwise,
    what_other_shares_have_finished_is_not_told_again_because_one_is_stuck,
    a_group_that_is_divided_under_a_process_is_reported_by_it,
}

async fn what_a_group_has_finished_is_not_told_again_when_it_is_divided_otherwise(place: Place) {
    let told = Arc::new(AtomicU64::new(0));
    let start = async |shares: usize| {
        let annals = Annals::open(&place.url).await.unwrap();
        let heard = told.clone();
        let subscriber = annals.subscribe("told").group(shares).on(move |_: Recorded<CounterEvent>, _| {
            heard.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(()))
        });
        subscriber.start().await.unwrap();
        annals
    };
    let annals = start(16).await;
    // Five streams: most shares have none.
    for number in 0..300 {
        increase(&annals, &format!("c{}", number % 5), 1).await;
    }
    while told.load(Ordering::SeqCst) < 300 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    annals.settle().await.unwrap();
    annals.shutdown().await;
    drop(annals);
    // Everything is finished, and all processes are stopped.
    let annals = start(8).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    annals.settle().await.unwrap();
    assert_eq!(told.load(Ordering::SeqCst) - 300, 0, "told again");
}

/// The share of a stream, as `subscriber/group.rs` says.
fn share_of(counter: u64, of: u64) -> u64 {
    let hash = format!("counter-c{counter}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) % of
}

/// One share is stuck at its first event. What the others have finished does not come again, also if the work is divided
/// several times meanwhile.
async fn what_other_shares_have_finished_is_not_told_again_because_one_is_stuck(place: Place) {
    let told: Arc<Mutex<Vec<u64>>> = Arc::default();
    let stuck = Arc::new(AtomicBool::new(true));
    let start = async |shares: usize| {
        let annals = Annals::open(&place.url).await.unwrap();
        let (heard, stuck) = (told.clone(), stuck.clone());
        let subscriber = annals.subscribe("told").group(shares).retry(QUICKLY).concurrency(20);
        let subscriber = subscriber.on(move |event: Recorded<CounterEvent>, _| {
            let is_stuck = event.aggregate_id() == "c0" && stuck.load(Ordering::SeqCst);
            if !is_stuck {
                heard.lock().push(event.aggregate_id()[1..].parse().unwrap());
            }
            std::future::ready(if is_stuck { Err(Failure::new("stuck")) } else { Ok(()) })
        });
        subscriber.start().await.unwrap();
        annals
    };
    let until_told = async |count: usize| {
        let all = async {
            while told.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), all)
            .await
            .unwrap_or_else(|_| panic!("{:?}", told.lock()));
    };
    let annals = start(4).await;
    for round in 0..50 {
        increase(&annals, &format!("c{}", round % 10), 1).await;
    }
    until_told(45).await;
    annals.shutdown().await;
    // Those of the share that is stuck come again, and nobody else's.
    let again: Vec<u64> = (1..10).filter(|counter| share_of(*counter, 4) == share_of(0, 4)).collect();
    assert!((1..9).contains(&again.len()), "{again:?}");
    for shares in [2, 3] {
        told.lock().clear();
        let annals = start(shares).await;
        until_told(again.len() * 5).await;
        annals.shutdown().await;
        let told = told.lock();
        assert!(told.iter().all(|counter| again.contains(counter)), "{told:?}, not only {again:?}");
    }
    stuck.store(false, Ordering::SeqCst);
    told.lock().clear();
    let annals = start(1).await;
    annals.settle().await.unwrap();
    let position = increase(&annals, "c0", 1).await;
    until(&annals, "told", |status| status.position == position).await;
    let told = std::mem::take(&mut *told.lock());
    assert_eq!(told.iter().filter(|counter| **counter == 0).count(), 6);
    assert!(told.iter().all(|counter| *counter == 0 || again.contains(counter)), "{told:?}");
    annals.shutdown().await;
    // What is noted goes when it is not needed any more.
    let annals = start(2).await;
    annals.shutdown().await;
    let mut beside = place.beside().await;
    let rows = beside.number(&format!("SELECT count(*) FROM {}.checkpoints", place.name)).await;
    assert_eq!(rows, 2);
}

/// A process that has other shares than the rest of the group does nothing, and says why.
async fn a_group_that_is_divided_under_a_process_is_reported_by_it(place: Place) {
    let start = async |shares: usize| {
        let annals = Annals::open(&place.url).await.unwrap();
        let subscriber = annals.subscribe("told").group(shares).retry(QUICKLY);
        let subscriber = subscriber.on(|_: Recorded<CounterEvent>, _| std::future::ready(Ok(())));
        subscriber.start().await.unwrap();
        annals
    };
    let one = start(4).await;
    increase(&one, "a", 1).await;
    one.settle().await.unwrap();
    let two = start(2).await;
    increase(&one, "a", 1).await;
    let status = until(&one, "told", |status| status.failing.is_some()).await;
    assert!(status.failing.unwrap().error.contains("same number"));
    one.shutdown().await;
    until(&two, "told", |status| status.position.get() == 2).await;
}
