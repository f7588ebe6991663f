//! A process that has lost a lease, and does not know it yet, writes nothing under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::{Annals, Phase, Recorded};

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, increase, sum};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_process_whose_leases_are_lost_acquires_them_again_and_does_nothing_twice,
}

async fn a_process_whose_leases_are_lost_acquires_them_again_and_does_nothing_twice(place: Place) {
    let (late, heard) = (Annals::open(&place.url).await.unwrap(), Arc::<AtomicU64>::default());
    let sums = Sums::<1>::default();
    let applied = sums.applied.clone();
    late.project(sums).retry(QUICKLY).start().await.unwrap();
    let count = heard.clone();
    let subscriber = late.subscribe("heard").retry(QUICKLY).on(move |_: Recorded<CounterEvent>, _| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
    let first = increase(&late, "a", 5).await;
    assert_eq!(sum::<1>(&late, "a", first).await, Some((5, 1)));
    late.settle().await.unwrap();
    let mut beside = place.beside().await;
    let name = &place.name;
    let checkpoint = format!("SELECT position FROM {name}.checkpoints WHERE subscriber = 'heard'");
    while beside.number(&checkpoint).await < 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let held = format!("SELECT count(*) FROM {name}.leases WHERE holder IS NOT NULL AND token > 0");
    assert_eq!(beside.number(&held).await, 2, "one of the projection, one of the subscriber");
    // Another process has acquired both, or the rows were brought back as they were at another time.
    beside.run(&format!("UPDATE {name}.leases SET token = token + 1")).await;
    increase(&late, "a", 7).await;
    // The first write of each is refused, though this process still has the locks of its session.
    assert_eq!(sum::<1>(&late, "a", first.next()).await, Some((12, 2)));
    while beside.number(&checkpoint).await < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let again = format!("SELECT count(*) FROM {name}.leases WHERE holder IS NOT NULL AND token > 2");
    assert_eq!(beside.number(&again).await, 2, "both were refused, and acquired again");
    assert_eq!(beside.number(&format!("SELECT amount FROM {name}$sums_v1.sums")).await, 12);
    let (heard, applied) = (heard.load(Ordering::SeqCst), applied.load(Ordering::SeqCst));
    assert!(heard <= 5 && applied <= 5, "again and again: {heard} and {applied} for two events");
    // The same where the rows are gone.
    beside.run(&format!("DELETE FROM {name}.leases")).await;
    increase(&late, "a", 1).await;
    assert_eq!(sum::<1>(&late, "a", first.next().next()).await, Some((13, 3)));
    // And with its connection it loses the locks.
    assert!(place.cut().await > 0);
    increase(&late, "a", 1).await;
    assert_eq!(sum::<1>(&late, "a", first.next().next().next()).await, Some((14, 4)));
}

/// The role may not write `leases`: a table of a migration that somebody else has carried through.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_that_cannot_be_written_costs_the_others_nothing() {
    let place = Place::postgres().await;
    let annals = Annals::open(&place.url).await.unwrap();
    let subscribe = |name: &str| {
        let handle = |_: Recorded<CounterEvent>, _| std::future::ready(Ok(()));
        annals.subscribe(name).retry(QUICKLY).on(handle).start()
    };
    let phase = async |name: &str| {
        let all = annals.status().await.unwrap();
        let status = all.into_iter().find(|status| status.name == name).unwrap();
        (status.phase, status.notice.unwrap_or_default())
    };
    subscribe("first").await.unwrap();
    while phase("first").await.0 != Phase::Live {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut beside = place.beside().await;
    let name = &place.name;
    beside.run(&format!("REVOKE ALL ON {name}.leases FROM {name}")).await;
    subscribe("second").await.unwrap();
    while !phase("second").await.1.contains("cannot be acquired") {
        assert_eq!(phase("first").await.0, Phase::Live);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_, notice) = phase("second").await;
    assert!(notice.contains("permission denied"), "{notice}");
    beside.run(&format!("GRANT ALL ON {name}.leases TO {name}")).await;
    while phase("second").await.0 != Phase::Live {
        assert_eq!(phase("first").await.0, Phase::Live);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
