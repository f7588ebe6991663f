//! Clauses on event ids: the same events sent again are the same append; any other reuse is a mistake.

use annals_core::{Append, EventId, Expected, NewEvent, Version};

use crate::Trial;
use crate::given::{
    Picture, Store, at, done, event, events_of, invalid, key, log, named, new, race, some, stream,
};

fn to(name: &str, expected: Expected, ids: &[&str]) -> Append {
    Append::to(stream(name), expected, ids.iter().map(|id| named(id)))
}

/// Sends an append that is in the log already, and checks that it is a duplicate.
async fn check_repeated(store: &Store, append: Append, first: u64, version: u64) {
    let before = Picture::of(store).await;
    let count = append.writes.len() as u64;
    let again = done(store.append(append).await);
    assert!(again.duplicate, "the events stand there already: {again:?}");
    assert_eq!((again.first.get(), again.count()), (first, count));
    assert_eq!(again.version(), Version::new(version));
    assert_eq!(Picture::of(store).await, before);
}

async fn check_invalid(store: &Store, append: Append, field: &str) {
    let before = Picture::of(store).await;
    let refusal = invalid(store.append(append).await);
    assert_eq!(refusal.field, field, "{refusal}");
    assert_eq!(Picture::of(store).await, before);
}

/// G5: an append whose events are already in the log at the versions that it expects gets the original
/// outcome, for every form of the expectation.
pub async fn the_same_events_again_are_a_duplicate(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(to("order-7", Expected::NoStream, &["a", "b"])).await);
    new(store.append(to("order-7", at(2), &["c"])).await);
    new(store.append(some("order-8", Expected::NoStream, 1)).await);
    for expected in [Expected::NoStream, at(0), Expected::Any] {
        check_repeated(store, to("order-7", expected, &["a", "b"]), 1, 2).await;
    }
    for expected in [at(2), Expected::Exists, Expected::Any] {
        check_repeated(store, to("order-7", expected, &["c"]), 3, 3).await;
    }
    check_repeated(store, to("order-7", Expected::NoStream, &["a"]), 1, 1).await;
    check_repeated(store, to("order-7", at(1), &["b", "c"]), 2, 3).await;
}

/// G5: the same events are a duplicate even if a condition on another stream has become stale.
pub async fn the_same_events_are_a_duplicate_in_spite_of_other_conditions(trial: &mut Trial) {
    let store = trial.store();
    let append = to("order-7", Expected::NoStream, &["a"]).expecting(stream("price-1"), Expected::NoStream);
    new(store.append(append.clone()).await);
    new(store.append(some("price-1", Expected::NoStream, 1)).await);
    check_repeated(store, append, 1, 1).await;
}

/// G5: an append to several streams is recognised by its events too.
pub async fn the_same_events_of_several_streams_are_a_duplicate(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("stock-1", Expected::NoStream, 2)).await);
    let append =
        to("order-7", Expected::NoStream, &["a", "b"]).and_to(stream("stock-1"), at(2), [named("c")]);
    let first = new(store.append(append.clone()).await);
    let again = done(store.append(append.clone()).await);
    assert!(again.duplicate);
    assert_eq!((again.first, again.last, &again.streams), (first.first, first.last, &first.streams));
    let turned =
        to("order-7", Expected::NoStream, &["b", "a"]).and_to(stream("stock-1"), at(2), [named("c")]);
    check_invalid(store, turned, "events[0].id").await;
}

/// G5: events that are already in the stream, at other versions than the append expects, are refused.
pub async fn the_same_events_wanted_elsewhere_are_refused(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(to("order-7", Expected::NoStream, &["a", "b", "c"])).await);
    check_invalid(store, to("order-7", at(3), &["a"]), "events[0].id").await;
    check_invalid(store, to("order-7", at(1), &["c"]), "events[0].id").await;
    check_invalid(store, to("order-7", Expected::NoStream, &["b"]), "events[0].id").await;
    check_invalid(store, to("order-7", Expected::Exists, &["a"]), "events[0].id").await;
    check_invalid(store, to("order-7", Expected::Any, &["b", "a"]), "events[0].id").await;
    check_invalid(store, to("order-7", Expected::Any, &["a", "c"]), "events[0].id").await;
}

/// G5: an append of which only some events are already in the log is refused, and changes nothing.
pub async fn a_partly_known_append_is_refused(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(to("order-7", Expected::NoStream, &["a", "b"])).await);
    check_invalid(store, to("order-7", Expected::NoStream, &["a", "b", "c"]), "events[0].id").await;
    check_invalid(store, to("order-7", at(1), &["b", "c"]), "events[0].id").await;
    check_invalid(store, to("order-7", at(2), &["c", "b"]), "events[1].id").await;
    check_invalid(store, to("order-7", Expected::Any, &["c", "d", "a"]), "events[2].id").await;
    let other = to("order-8", Expected::NoStream, &["a", "b"]).and_to(stream("order-7"), at(2), [named("b")]);
    check_invalid(store, other, "events[2].id").await;
    assert!(events_of(store, "order-8").await.is_empty());
}

/// G5: an id is unique within a stream; in another stream it identifies another event.
pub async fn the_same_id_in_another_stream_is_another_event(trial: &mut Trial) {
    let store = trial.store();
    for name in ["order-7", "order-8", "order", "Order-7"] {
        new(store.append(to(name, Expected::NoStream, &["a", "b"])).await);
    }
    let both = to("x-1", Expected::NoStream, &["a"]).and_to(stream("x-2"), Expected::NoStream, [named("a")]);
    new(store.append(both).await);
    assert_eq!(log(store).await.len(), 10);
}

/// G5: two events for one stream with the same id in one append are refused.
pub async fn one_id_twice_in_an_append_is_refused(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 1)).await);
    check_invalid(store, to("order-7", at(1), &["a", "b", "a"]), "events[2].id").await;
    let apart = to("order-7", at(1), &["a"])
        .and_to(stream("order-8"), Expected::NoStream, [named("a")])
        .and_to(stream("order-7"), Expected::Any, [named("a")]);
    check_invalid(store, apart, "events[2].id").await;
}

/// G5: a reused id is invalid rather than a conflict, even if a condition does not hold.
pub async fn a_reused_id_is_named_before_a_stale_version(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(to("order-7", Expected::NoStream, &["a", "b"])).await);
    check_invalid(store, to("order-7", at(1), &["a"]), "events[0].id").await;
}

/// G5: a known key is looked up first, whatever the ids of the events are.
pub async fn a_used_key_is_answered_before_ids_are_looked_at(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(to("order-7", Expected::NoStream, &["a"]).once(key("request-1"))).await);
    let another = to("order-7", at(5), &["b", "a"]).once(key("request-1"));
    assert!(matches!(store.append(another.clone()).await, Err(annals_core::Error::Reused(_))));
    let again = done(store.append(another.or_original()).await);
    assert!(again.duplicate);
    assert_eq!(again.count(), 1);
}

/// G5: of concurrent appends of the same events, without a key, exactly one writes.
pub async fn concurrent_retries_of_the_same_events_write_once(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 1)).await);
    for (round, expected) in [at(1), Expected::Any, Expected::Exists].into_iter().enumerate() {
        let append = to("order-7", expected, &[&format!("{round}-a"), &format!("{round}-b")]);
        let answers = race(12, |_| {
            let (store, append) = (store.clone(), append.clone());
            async move { store.append(append).await }
        })
        .await;
        let answers: Vec<_> = answers.into_iter().map(done).collect();
        assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1, "one of them writes");
        assert!(answers.iter().all(|answer| answer.first == answers[0].first));
    }
    assert_eq!(events_of(store, "order-7").await.len(), 7);
}

/// G5: every UUID is an id, including the one of all zeros and the one of all ones.
pub async fn every_uuid_is_an_id(trial: &mut Trial) {
    let store = trial.store();
    let ids = [[0_u8; 16], [255; 16], *b"0123456789abcdef"].map(EventId::from_bytes);
    let written: Vec<NewEvent> = ids.iter().map(|id| event("order.placed").with_id(*id)).collect();
    new(store.append(Append::to(stream("order-7"), Expected::NoStream, written)).await);
    let read: Vec<_> = events_of(store, "order-7").await.iter().map(|event| event.id()).collect();
    assert_eq!(read, ids);
    for id in ids {
        let again = Append::to(stream("order-7"), at(3), [event("order.changed").with_id(id)]);
        check_invalid(store, again, "events[0].id").await;
    }
}
