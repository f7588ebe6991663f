//! A group that has finished everything is stopped, and started with another number of shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals::{
    Annals, Append, EventStore, Expected, HandlerError, NewEvent, Position, Recorded, State, StreamId,
};
use annals_testkit::failover::Failover;
use parking_lot::Mutex;

use crate::databases::counter::{CounterEvent, QUICKLY, increase, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_new_number_of_partitions_repeats_nothing,
    a_stuck_partition_repeats_nothing_of_the_others,
    a_group_that_is_divided_under_a_process_is_reported_by_it,
    new_events_at_the_positions_of_lost_ones_are_delivered,
    what_a_share_had_finished_in_a_lost_history_is_not_finished,
}

async fn a_new_number_of_partitions_repeats_nothing(place: Place) {
    let delivered = Arc::new(AtomicU64::new(0));
    let start = async |shares: usize| {
        let annals = Annals::open(&place.url).await.unwrap();
        let heard = delivered.clone();
        let subscriber =
            annals.subscribe("told").partitions(shares).on(move |_: Recorded<CounterEvent>, _| {
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
    while delivered.load(Ordering::SeqCst) < 300 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    annals.settle().await.unwrap();
    annals.shutdown().await;
    drop(annals);
    // Everything is finished, and all processes are stopped.
    let annals = start(8).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    annals.settle().await.unwrap();
    assert_eq!(delivered.load(Ordering::SeqCst) - 300, 0, "told again");
}

/// The share of a stream, as `subscriber/group.rs` says.
fn share_of(counter: u64, of: u64) -> u64 {
    let hash = format!("counter-c{counter}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) % of
}

/// One share is stuck at its first event. What the others have finished does not come again, also if the work
/// is divided several times meanwhile.
async fn a_stuck_partition_repeats_nothing_of_the_others(place: Place) {
    let delivered: Arc<Mutex<Vec<u64>>> = Arc::default();
    let stuck = Arc::new(AtomicBool::new(true));
    let start = async |shares: usize| {
        let annals = Annals::open(&place.url).await.unwrap();
        let (heard, stuck) = (delivered.clone(), stuck.clone());
        let subscriber = annals.subscribe("told").partitions(shares).retry(QUICKLY).concurrency(20);
        let subscriber = subscriber.on(move |event: Recorded<CounterEvent>, _| {
            let is_stuck = event.aggregate_id() == "c0" && stuck.load(Ordering::SeqCst);
            if !is_stuck {
                heard.lock().push(event.aggregate_id()[1..].parse().unwrap());
            }
            std::future::ready(if is_stuck { Err(HandlerError::new("stuck")) } else { Ok(()) })
        });
        subscriber.start().await.unwrap();
        annals
    };
    let until_delivered = async |count: usize| {
        let all = async {
            while delivered.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), all)
            .await
            .unwrap_or_else(|_| panic!("{:?}", delivered.lock()));
    };
    let annals = start(4).await;
    for round in 0..50 {
        increase(&annals, &format!("c{}", round % 10), 1).await;
    }
    until_delivered(45).await;
    annals.shutdown().await;
    // Those of the share that is stuck come again, and nobody else's.
    let again: Vec<u64> = (1..10).filter(|counter| share_of(*counter, 4) == share_of(0, 4)).collect();
    assert!((1..9).contains(&again.len()), "{again:?}");
    for shares in [2, 3] {
        delivered.lock().clear();
        let annals = start(shares).await;
        until_delivered(again.len() * 5).await;
        annals.shutdown().await;
        let delivered = delivered.lock();
        assert!(delivered.iter().all(|counter| again.contains(counter)), "{delivered:?}, not only {again:?}");
    }
    stuck.store(false, Ordering::SeqCst);
    delivered.lock().clear();
    let annals = start(1).await;
    annals.settle().await.unwrap();
    let position = increase(&annals, "c0", 1).await;
    until(&annals, "told", |status| status.position == position).await;
    let delivered = std::mem::take(&mut *delivered.lock());
    assert_eq!(delivered.iter().filter(|counter| **counter == 0).count(), 6);
    assert!(delivered.iter().all(|counter| *counter == 0 || again.contains(counter)), "{delivered:?}");
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
        let subscriber = annals.subscribe("told").partitions(shares).retry(QUICKLY);
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

/// Increases of these counters by a number that marks them.
fn increases(by: u64, counters: impl IntoIterator<Item = u64>) -> impl Iterator<Item = Append> {
    counters.into_iter().map(move |counter| {
        let event = NewEvent::new("counter.increased", format!(r#"{{"by":{by}}}"#)).unwrap();
        Append::to(StreamId::new(format!("counter-c{counter}")).unwrap(), Expected::Any, [event])
    })
}

async fn append(store: &Failover, appends: impl IntoIterator<Item = Append>) {
    for append in appends {
        store.append(append).await.unwrap();
    }
}

/// The log may lose events; the state beside it does not.
async fn over(store: &Arc<Failover>, place: &Place) -> Annals {
    Annals::with_store(store.clone(), State::database(&place.url).unwrap()).await.unwrap()
}

type Delivered = Arc<Mutex<Vec<(u64, u64)>>>;

/// Waits until `count` events with this mark are delivered.
async fn until_marked(delivered: &Delivered, by: u64, count: usize) {
    let all = async {
        while delivered.lock().iter().filter(|(_, mark)| *mark == by).count() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(120), all).await;
    in_time.unwrap_or_else(|_| panic!("{count} of {by}: {:?}", delivered.lock()));
}

/// The loss is beyond what the share has read, so it meets no event that is gone.
async fn new_events_at_the_positions_of_lost_ones_are_delivered(place: Place) {
    let store = Failover::new();
    append(&store, increases(1, [0; 300])).await;
    append(&store, increases(1, (0..100).map(|number| 1 + number % 9))).await;
    let delivered = Delivered::default();
    let (stuck, tried) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let start = async |shares: usize| {
        let annals = over(&store, &place).await;
        let (heard, stuck, tried) = (delivered.clone(), stuck.clone(), tried.clone());
        let subscriber = annals.subscribe("told").partitions(shares).retry(QUICKLY);
        let subscriber = subscriber.on(move |event: Recorded<CounterEvent>, _| {
            let counter: u64 = event.aggregate_id()[1..].parse().unwrap();
            let CounterEvent::Increased { by } = event.event;
            let is_stuck = counter == 0 && stuck.load(Ordering::SeqCst);
            tried.fetch_add(1, Ordering::SeqCst);
            if !is_stuck {
                heard.lock().push((counter, by));
            }
            std::future::ready(if is_stuck { Err(HandlerError::new("stuck")) } else { Ok(()) })
        });
        subscriber.start().await.unwrap();
        annals
    };
    let annals = start(4).await;
    let others = (0..100).filter(|number| share_of(1 + number % 9, 4) != share_of(0, 4)).count();
    until_marked(&delivered, 1, others).await;
    annals.shutdown().await;
    // All of the others' is finished, and the one that continues it is stuck far below.
    tried.store(0, Ordering::SeqCst);
    let annals = start(1).await;
    until(&annals, "told", |_| tried.load(Ordering::SeqCst) > 0).await;
    store.lose(Position::new(350), increases(2, (0..50).map(|number| 1 + number % 9))).await;
    stuck.store(false, Ordering::SeqCst);
    until_marked(&delivered, 2, 50).await;
    until(&annals, "told", |status| status.position.get() == 400).await;
    let delivered = delivered.lock();
    assert_eq!(delivered.iter().filter(|(_, by)| *by == 2).count(), 50, "once");
    let again: Vec<_> =
        delivered.iter().filter(|(counter, by)| *by == 1 && *counter > 0).skip(others).collect();
    // At most what was lost and what the share that was stuck had not finished.
    let own = 100 - others;
    assert!(again.len() <= own + 50, "{} again, of which {own} for the first time", again.len());
}

/// One share has stepped back after the loss and has finished what is new; the process ends before the other
/// has.
async fn what_a_share_had_finished_in_a_lost_history_is_not_finished(place: Place) {
    let store = Failover::new();
    append(&store, increases(1, (0..30).map(|number| number % 10))).await;
    let delivered = Delivered::default();
    let start = async |shares: usize| {
        let annals = over(&store, &place).await;
        let heard = delivered.clone();
        let subscriber = annals.subscribe("told").partitions(shares).retry(QUICKLY);
        let subscriber = subscriber.on(move |event: Recorded<CounterEvent>, _| {
            let CounterEvent::Increased { by } = event.event;
            heard.lock().push((event.aggregate_id()[1..].parse().unwrap(), by));
            std::future::ready(Ok(()))
        });
        subscriber.start().await.unwrap();
        annals
    };
    let annals = start(2).await;
    until_marked(&delivered, 1, 30).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    let mut beside = place.beside().await;
    let (checkpoints, saved) =
        (format!("{}.checkpoints", place.name), format!("{}.saved_checkpoints", place.name));
    beside.run(&format!("CREATE TABLE {saved} AS SELECT * FROM {checkpoints}")).await;
    store.lose(Position::new(20), increases(2, (0..20).map(|number| number % 10))).await;
    let annals = start(2).await;
    until_marked(&delivered, 2, 20).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    // The first share is where it was before the loss.
    let first = "WHERE subscriber = 'told/1 of 2'";
    beside.run(&format!("DELETE FROM {checkpoints} {first}")).await;
    beside.run(&format!("INSERT INTO {checkpoints} SELECT * FROM {saved} {first}")).await;
    delivered.lock().clear();
    let annals = start(1).await;
    annals.settle().await.unwrap();
    let delivered = delivered.lock();
    let wanted: Vec<u64> =
        (0..20).map(|number| number % 10).filter(|counter| share_of(*counter, 2) == 0).collect();
    let heard: Vec<u64> = delivered.iter().filter(|(_, by)| *by == 2).map(|(counter, _)| *counter).collect();
    assert_eq!(heard, wanted, "what the first share has not had, and nothing of the second: {delivered:?}");
}
