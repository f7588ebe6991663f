//! A process that has lost a lease, and does not know it yet, writes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::{Annals, Recorded};

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, increase, sum};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_process_that_has_lost_its_leases_moves_no_checkpoint_and_writes_no_row,
}

async fn a_process_that_has_lost_its_leases_moves_no_checkpoint_and_writes_no_row(place: Place) {
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
    // Another process has taken both, as it does after this one's connection was lost.
    beside.run(&format!("UPDATE {name}.leases SET token = token + 1")).await;
    increase(&late, "a", 7).await;
    // Both try, are refused, and try again from where they were.
    while heard.load(Ordering::SeqCst) < 4 || applied.load(Ordering::SeqCst) < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(beside.number(&checkpoint).await, 1);
    assert_eq!(beside.number(&format!("SELECT amount FROM {name}$sums_v1.sums")).await, 5);
    assert_eq!(beside.number(&format!("SELECT position FROM {name}$sums_v1.annals_checkpoint")).await, 1);
    // With its connection it loses the locks, and the next holder has leases with greater tokens.
    assert!(place.cut().await > 0);
    assert_eq!(sum::<1>(&late, "a", first.next()).await, Some((12, 2)));
    assert_eq!(beside.number(&format!("SELECT amount FROM {name}$sums_v1.sums")).await, 12);
}
