//! Clauses on idempotency keys: the caller's name for an append that must be applied once.

use annals_core::{
    Append, ContentType, Error, EventId, EventStore, Expected, Metadata, NewEvent, Timestamp, Version,
};

use crate::Trial;
use crate::given::{
    Picture, at, done, event, event_type, events, events_of, invalid, key, log, new, one, race, read,
    refused, some, stream, tag,
};

/// G5: the same append with the same key gets the original outcome, marked as a duplicate, and writes
/// nothing.
pub async fn the_same_key_gets_the_original_outcome(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-1", Expected::NoStream, 1)).await);
    let append = some("order-7", Expected::NoStream, 2)
        .and_to(stream("stock-1"), Expected::NoStream, events(1))
        .once(key("request-1"));
    let first = new(store.append(append.clone()).await);
    let before = Picture::of(store).await;
    let mut original = first.clone();
    original.duplicate = true;
    for _ in 0..3 {
        assert_eq!(done(store.append(append.clone()).await), original);
    }
    assert_eq!(Picture::of(store).await, before);
}

/// G5: the original outcome does not change when its streams grow.
pub async fn the_original_outcome_does_not_move_on(trial: &mut Trial) {
    let store = trial.store();
    let append = some("order-7", Expected::NoStream, 2).once(key("request-1"));
    let first = new(store.append(append.clone()).await);
    trial.clock().advance(std::time::Duration::from_secs(60));
    new(store.append(some("order-7", at(2), 5)).await);
    let again = done(store.append(append).await);
    assert!(again.duplicate);
    assert_eq!(again.streams, [(stream("order-7"), Version::new(2))]);
    assert_eq!((again.first, again.last, again.recorded_at), (first.first, first.last, first.recorded_at));
}

/// G5: a key identifies one append. Other events, other streams or another number of events with a used key
/// are refused, and the error names the append that used it first. An append that requests the original
/// outcome gets it instead. Neither writes anything.
pub async fn a_used_key_with_other_events_writes_nothing(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("stock-1", Expected::NoStream, 3)).await);
    let original = Append::to(stream("order-7"), Expected::NoStream, [given("a"), event("order.paid")]);
    let first = new(store.append(original.clone().once(key("request-1"))).await);
    let before = Picture::of(store).await;
    let changed = |change: fn(&mut NewEvent)| {
        let mut append = original.clone();
        change(&mut append.writes[0].event);
        append
    };
    let mut turned = original.clone();
    turned.writes.swap(0, 1);
    for (append, field) in [
        (some("order-7", Expected::Any, 5), "the number of events"),
        (Append::to(stream("order-8"), Expected::Any, [given("a"), event("order.paid")]), "events[0].stream"),
        (changed(|event| event.event_type = event_type("order.cancelled")), "events[0].type"),
        (changed(|event| event.data = "[]".into()), "events[0].data"),
        (changed(|event| event.content_type = ContentType::Binary), "events[0].content_type"),
        (changed(|event| event.tags = vec![tag("vip")]), "events[0].tags"),
        (changed(|event| event.schema_version = 2), "events[0].schema_version"),
        (changed(|event| event.occurred_at = Some(Timestamp::from_micros(1))), "events[0].occurred_at"),
        (changed(|event| event.metadata.initiator = Some("user:7".into())), "events[0].metadata"),
        (changed(|event| drop(event.metadata.own.insert("a".into(), "b".into()))), "events[0].metadata"),
        (changed(|event| event.id = EventId::from_name(b"b")), "events[0].id"),
        (turned, "events[0].type"),
    ] {
        let append = append.once(key("request-1"));
        match store.append(append.clone()).await {
            Err(Error::Reused(reused)) => {
                assert_eq!((reused.first, &reused.stream), (first.first, &first.streams[0].0), "{reused}");
                assert_eq!(
                    (reused.key.as_ref(), reused.field.as_str()),
                    (append.key.as_ref(), field),
                    "{reused}"
                );
            }
            answer => panic!("another append with a used key ({field}) was answered {answer:?}"),
        }
        let again = done(store.append(append.or_original()).await);
        assert!(again.duplicate);
        assert_eq!((again.first, again.last, &again.streams), (first.first, first.last, &first.streams));
    }
    let mut same = original.clone();
    same.writes[0].event.metadata.trace = Some("00-another-request-01".into());
    same.writes[1].event.id = EventId::generate();
    assert!(
        done(store.append(same.once(key("request-1"))).await).duplicate,
        "a made id and a trace may differ"
    );
    assert_eq!(Picture::of(store).await, before);
}

/// G5: metadata and the time of occurrence are part of the event: an event that differs in them is another
/// one. The trace belongs to the request, and may differ.
pub async fn a_used_key_with_another_time_or_metadata_is_refused(trial: &mut Trial) {
    let store = trial.store();
    let mut event = event("order.placed");
    event.occurred_at = Some(Timestamp::from_micros(1_700_000_000_123_456));
    event.metadata.process = Some("order-7".into());
    event.metadata.predecessor = Some("message-1".into());
    event.metadata.trace = Some("00-the-first-request-01".into());
    event.metadata.own.insert("channel".into(), "web".into());
    let once =
        |event: NewEvent| Append::to(stream("order-7"), Expected::NoStream, [event]).once(key("request-1"));
    let first = new(store.append(once(event.clone())).await);
    let before = Picture::of(store).await;
    let changed = |change: fn(&mut NewEvent)| {
        let mut event = event.clone();
        change(&mut event);
        once(event)
    };
    for (append, field) in [
        (changed(|event| event.occurred_at = None), "events[0].occurred_at"),
        (
            changed(|event| event.occurred_at = Some(Timestamp::from_micros(1_700_000_000_123_457))),
            "events[0].occurred_at",
        ),
        (changed(|event| event.metadata.process = None), "events[0].metadata"),
        (changed(|event| event.metadata.predecessor = Some("message-2".into())), "events[0].metadata"),
        (
            changed(|event| drop(event.metadata.own.insert("channel".into(), "shop".into()))),
            "events[0].metadata",
        ),
        (changed(|event| event.metadata = Metadata::default().into()), "events[0].metadata"),
    ] {
        match store.append(append).await {
            Err(Error::Reused(reused)) => {
                assert_eq!((reused.first, reused.field.as_str()), (first.first, field))
            }
            answer => panic!("an append that differs in {field} was answered {answer:?}"),
        }
    }
    for same in [
        changed(|_| ()),
        changed(|event| event.metadata.trace = Some("00-the-second-request-01".into())),
        changed(|event| event.metadata.trace = None),
    ] {
        assert!(done(store.append(same).await).duplicate);
    }
    assert_eq!(Picture::of(store).await, before);
}

/// G5: JSON data is compared by value, independent of its form. Other data is compared byte by byte.
pub async fn the_same_json_in_another_form_is_the_same_event(trial: &mut Trial) {
    let store = trial.store();
    let once = |data: &str, content_type: ContentType, name: &str| {
        let mut event = event("order.placed");
        event.data = data.to_owned().into();
        event.content_type = content_type;
        Append::to(stream("order-7"), Expected::Any, [event]).once(key(name))
    };
    let text = r#"{"total":1.0,"lines":[{"sku":"caf\u00e9","count":2}]}"#;
    new(store.append(once(text, ContentType::Json, "json")).await);
    new(store.append(once(text, ContentType::new("application/order+json"), "named")).await);
    new(store.append(once(text, ContentType::Binary, "bytes")).await);
    let before = Picture::of(store).await;
    let again = "{ \"lines\": [{\"count\": 2e0, \"sku\": \"café\"}], \"total\": 1 }";
    let other = r#"{"total":1.0000000000000000001,"lines":[{"sku":"café","count":2}]}"#;
    for (name, content_type) in
        [("json", ContentType::Json), ("named", ContentType::new("application/order+json"))]
    {
        assert!(done(store.append(once(again, content_type.clone(), name)).await).duplicate, "{name}");
        match store.append(once(other, content_type, name)).await {
            Err(Error::Reused(reused)) => assert_eq!(reused.field, "events[0].data"),
            answer => panic!("another number under the key {name} was answered {answer:?}"),
        }
    }
    match store.append(once(again, ContentType::Binary, "bytes")).await {
        Err(Error::Reused(reused)) => assert_eq!(reused.field, "events[0].data"),
        answer => panic!("other bytes were answered {answer:?}"),
    }
    assert_eq!(Picture::of(store).await, before);
}

/// G5: an id identifies an event: the same ids at the same versions with other types or data are refused, and
/// the error names the position of the first use.
pub async fn a_used_id_with_another_event_is_refused(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 1)).await);
    let original = Append::to(stream("order-7"), at(1), [given("a"), given("b")]);
    new(store.append(original.clone()).await);
    let before = Picture::of(store).await;
    let mut other_type = original.clone();
    other_type.writes[0].event.event_type = event_type("order.cancelled");
    let mut other_data = original.clone();
    other_data.writes[1].event.data = "[]".into();
    for (append, field) in [(other_type, "events[0].type"), (other_data, "events[1].data")] {
        for append in [append.clone(), append.once(key("request-1")).or_original()] {
            let keyed = append.key.is_some();
            match store.append(append).await {
                Err(Error::Reused(reused)) => {
                    assert_eq!((reused.key.as_ref(), reused.first.get()), (None, 2), "{reused}");
                    assert_eq!(reused.field, field, "{reused}");
                }
                answer => panic!("another event with a used id ({field}, {keyed}) was answered {answer:?}"),
            }
        }
    }
    assert!(done(store.append(original).await).duplicate);
    assert_eq!(Picture::of(store).await, before);
}

/// An event with an id given by the caller.
fn given(name: &str) -> NewEvent {
    event("order.placed").with_id(EventId::from_name(name.as_bytes()))
}

/// G5: a used key gets its outcome even if the conditions are stale by now.
pub async fn a_used_key_is_answered_in_spite_of_stale_conditions(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 1).once(key("request-1"))).await);
    new(store.append(some("order-7", at(1), 1)).await);
    let before = Picture::of(store).await;
    for expected in [Expected::NoStream, at(0), at(1), at(9)] {
        let again = some("order-7", expected, 1)
            .expecting(stream("absent-1"), Expected::Exists)
            .unless(annals_core::Query::all(), annals_core::Position::ZERO)
            .once(key("request-1"));
        let again = done(store.append(again).await);
        assert!(again.duplicate);
        assert_eq!(again.version(), Version::FIRST);
    }
    assert_eq!(Picture::of(store).await, before);
}

/// G5: of concurrent retries with one key exactly one writes, and all get the same outcome.
pub async fn concurrent_retries_with_one_key_write_once(trial: &mut Trial) {
    let store = trial.store();
    for round in 0..5 {
        let append = some(&format!("order-{round}"), Expected::Any, 3).once(key(&format!("request-{round}")));
        let answers = race(12, |number| {
            // Half of them are retries of the same events, half are other events under the same key.
            let append = if number % 2 == 0 {
                append.clone()
            } else {
                Append { writes: fresh(&append), ..append.clone() }
            };
            let store = store.clone();
            async move { store.append(append).await }
        })
        .await;
        let answers: Vec<_> = answers.into_iter().map(done).collect();
        assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1, "one of them writes");
        for answer in &answers {
            assert_eq!((answer.first, answer.last), (answers[0].first, answers[0].last));
            assert_eq!(answer.streams, answers[0].streams);
            assert_eq!(answer.recorded_at, answers[0].recorded_at);
        }
        assert_eq!(log(store).await.len(), (round + 1) * 3);
    }
}

fn fresh(append: &Append) -> Vec<annals_core::Write> {
    let mut writes = append.writes.clone();
    for write in &mut writes {
        write.event.id = annals_core::EventId::generate();
    }
    writes
}

/// G5: the outcome of a key can be looked up: `None` before it is used, the original outcome after.
pub async fn the_outcome_of_a_key_can_be_asked_for(trial: &mut Trial) {
    let store = trial.store();
    assert_eq!(read(store.outcome(&key("request-1")).await), None);
    let append = some("order-7", Expected::NoStream, 2).and_to(stream("a-1"), Expected::Any, events(1));
    let mut first = new(store.append(append.once(key("request-1"))).await);
    new(store.append(some("order-7", at(2), 1)).await);
    first.duplicate = true;
    assert_eq!(read(store.outcome(&key("request-1")).await), Some(first));
    assert_eq!(read(store.outcome(&key("request-2")).await), None);
}

/// G5: a refused or invalid append does not use its key.
pub async fn a_refused_append_does_not_use_its_key(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 1)).await);
    refused(store.append(some("order-7", Expected::NoStream, 1).once(key("request-1"))).await);
    invalid(store.append(Append::new().once(key("request-1"))).await);
    assert_eq!(read(store.outcome(&key("request-1")).await), None);
    let corrected = new(store.append(some("order-7", at(1), 1).once(key("request-1"))).await);
    assert_eq!(corrected.version(), Version::new(2));
}

/// G5: keys are compared in full, byte by byte.
pub async fn keys_are_compared_whole(trial: &mut Trial) {
    let store = trial.store();
    let long = "k".repeat(annals_core::IdempotencyKey::BYTES_MAX - 1);
    let (long_a, long_b) = (format!("{long}a"), format!("{long}b"));
    let names = [
        "request",
        "Request",
        "request ",
        "request-1",
        "request-10",
        "요청",
        "요청 ",
        &long_a,
        &long_b,
        &long,
    ];
    for name in names {
        new(store.append(one("order-7", event("order.placed")).once(key(name))).await);
    }
    assert_eq!(events_of(store, "order-7").await.len(), names.len());
    for (index, name) in names.iter().enumerate() {
        let outcome = read(store.outcome(&key(name)).await).expect("the key is known");
        assert_eq!(outcome.version(), Version::new(index as u64 + 1), "the outcome of `{name}`");
    }
}

/// G5: the key is recorded with its append, on the first event, so that a copied log keeps its keys.
pub async fn the_key_is_recorded_on_the_first_event(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 3).once(key("request-1"))).await);
    new(store.append(some("order-7", at(3), 2)).await);
    let keys: Vec<_> = log(store).await.into_iter().map(|event| event.idempotency_key()).collect();
    assert_eq!(keys, [Some(key("request-1")), None, None, None, None]);
}
