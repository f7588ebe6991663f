//! Clauses on durability: everything that was acknowledged outlives the process.

use std::time::Duration;

use annals_consume::{Ladder, Subscription};
use annals_core::{Append, Clock, EventStore, EventStoreExt, Expected, Position, Query, Timestamp, Version};

use crate::Trial;
use crate::given::{
    Picture, at, category, done, event, event_type, events, invalid, key, log, named, new, one, race, read,
    refused, some, stream, tag,
};

/// G1: everything that was acknowledged is in the store after it was closed and opened again, by every way of
/// reading.
pub async fn acknowledged_events_survive_reopening(trial: &mut Trial) {
    let store = trial.store();
    race(4, |writer| {
        let store = store.clone();
        async move {
            for number in 0..20 {
                let noted = event("order.paid").with_tag(tag(&format!("customer:{number}")));
                let append = Append::to(stream(&format!("order-{writer}")), Expected::Any, [noted]);
                new(store.append(append.and_to(stream("b-1"), Expected::Any, events(2))).await);
            }
        }
    })
    .await;
    let before = Picture::of(store).await;
    let queries = [
        Query::types([event_type("order.paid")]),
        Query::tags([tag("customer:7")]),
        Query::category(category("order")),
    ];
    for _ in 0..3 {
        let store = trial.reopen().await;
        assert_eq!(Picture::of(store).await, before);
        for query in &queries {
            let meant: Vec<_> = before.events.iter().filter(|event| query.matches(event)).cloned().collect();
            assert_eq!(read(store.log_events(query.clone()).await), meant);
        }
        let of_stream: Vec<_> =
            before.events.iter().filter(|event| event.stream() == stream("order-2")).cloned().collect();
        assert_eq!(read(store.stream_events(&stream("order-2")).await), of_stream);
    }
}

/// G1: a store that was never written can be closed and opened again.
pub async fn an_empty_store_survives_reopening(trial: &mut Trial) {
    for _ in 0..3 {
        let store = trial.reopen().await;
        assert_eq!(read(store.head().await), Position::ZERO);
    }
    let first = new(trial.reopen().await.append(some("a-1", Expected::NoStream, 1)).await);
    assert_eq!(first.first, Position::FIRST);
}

/// G1: versions and positions continue after reopening, and stale versions are refused as before.
pub async fn versions_and_positions_continue_after_reopening(trial: &mut Trial) {
    for round in 0..5_u64 {
        let store = trial.store();
        let done = new(store.append(some("order-7", at(round * 2), 2)).await);
        assert_eq!((done.first, done.version()), (Position::new(round * 2 + 1), Version::new(round * 2 + 2)));
        let store = trial.reopen().await;
        let conflict = refused(store.append(some("order-7", at(round * 2), 2)).await);
        assert_eq!(conflict.violations[0].unseen.len(), 2, "what was written before is carried as unseen");
        refused(store.append(some("x-1", Expected::Any, 1).unless(Query::all(), Position::new(round))).await);
    }
}

/// G4: recorded times are unchanged after reopening, even if the clock was moved meanwhile.
pub async fn recorded_times_are_unchanged_after_reopening(trial: &mut Trial) {
    for _ in 0..3 {
        new(trial.store().append(some("order-7", Expected::Any, 2)).await);
        trial.clock().advance(Duration::from_secs(7));
    }
    let times = async |store: &crate::given::Store| -> Vec<Timestamp> {
        log(store).await.iter().map(|event| event.recorded_at()).collect()
    };
    let before = times(trial.store()).await;
    assert!(before.is_sorted() && before[0] < before[5], "{before:?}");
    let now = trial.clock().now();
    for moved in [now.plus(Duration::from_secs(86_400)), Timestamp::from_micros(0)] {
        trial.clock().set(moved);
        let store = trial.reopen().await;
        assert_eq!(times(store).await, before);
    }
}

/// G5: a key is known after reopening, with its original outcome.
pub async fn keys_survive_reopening(trial: &mut Trial) {
    let append = some("order-7", Expected::NoStream, 2)
        .and_to(stream("stock-1"), Expected::NoStream, events(1))
        .once(key("request-1"));
    let mut first = new(trial.store().append(append.clone()).await);
    new(trial.store().append(some("order-7", at(2), 1)).await);
    first.duplicate = true;
    for _ in 0..2 {
        let store = trial.reopen().await;
        assert_eq!(read(store.outcome(&key("request-1")).await), Some(first.clone()));
        assert_eq!(done(store.append(append.clone()).await), first);
        assert_eq!(log(store).await.len(), 4);
    }
    let store = trial.store().clone();
    let answers = race(8, |_| {
        let another = some("order-9", Expected::Any, 1).once(key("request-1"));
        let (store, append) = (store.clone(), another.or_original());
        async move { store.append(append).await }
    })
    .await;
    assert!(answers.into_iter().all(|answer| done(answer) == first));
}

/// G5: event ids are known after reopening: the same events are a duplicate, any other reuse is refused.
pub async fn event_ids_survive_reopening(trial: &mut Trial) {
    let append = Append::to(stream("order-7"), Expected::NoStream, [named("a"), named("b")]);
    new(trial.store().append(append.clone()).await);
    let store = trial.reopen().await;
    assert!(done(store.append(append).await).duplicate);
    invalid(store.append(Append::to(stream("order-7"), at(2), [named("b")])).await);
    new(store.append(one("order-8", named("a"))).await);
    assert_eq!(log(store).await.len(), 3);
}

/// G4: recorded time does not decrease across reopening, even if the clock was set back meanwhile.
pub async fn recorded_time_is_held_across_reopening(trial: &mut Trial) {
    trial.clock().advance(Duration::from_secs(3_600));
    let before = new(trial.store().append(some("a-1", Expected::NoStream, 1)).await).recorded_at;
    trial.clock().set(Timestamp::from_micros(before.as_micros() - 1_000_000));
    let store = trial.reopen().await;
    assert_eq!(new(store.append(some("a-1", at(1), 1)).await).recorded_at, before);
}

/// G7: a consumer with its checkpoint resumes from there after reopening.
pub async fn a_checkpoint_survives_reopening(trial: &mut Trial) {
    new(trial.store().append(some("a-1", Expected::NoStream, 5)).await);
    let mut subscription = Subscription::new(trial.store().clone(), Ladder::default(), Query::all());
    for _ in 0..3 {
        read(subscription.next().await);
    }
    let checkpoint = subscription.checkpoint().to_bytes();
    drop(subscription);
    let store = trial.reopen().await.clone();
    assert_eq!(read(store.head().await), Position::new(5));
    let checkpoint = Ladder::from_bytes(&checkpoint).expect("it is read as it was written");
    let mut subscription = Subscription::new(store.clone(), checkpoint, Query::all());
    new(store.append(some("b-1", Expected::NoStream, 1)).await);
    for position in 4..=6 {
        assert_eq!(read(subscription.next().await).position(), Position::new(position));
    }
}

/// G10: the identity of a log does not change when it is opened again.
pub async fn the_identity_survives_reopening(trial: &mut Trial) {
    let id = trial.store().id();
    assert_eq!(trial.reopen().await.id(), id);
    new(trial.store().append(some("a-1", Expected::NoStream, 1)).await);
    assert_eq!(trial.reopen().await.id(), id);
}
