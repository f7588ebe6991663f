//! Logs that are not what they were: another one in the same place, lost events, holes.

use std::sync::Arc;
use std::time::Duration;

use annals::contract::{LogRead, StreamRead, Violated, Violation, Witness};
use annals::{
    Append, Error, EventId, EventStore, EventStoreExt, Expected, NewEvent, Position, Query, StreamId, Tag,
    Version,
};

use annals_testservers::gate::Gate;
use annals_testservers::place::Place;

/// Ends a call that hangs.
const HANG: Duration = Duration::from_secs(120);

annals_testservers::on_each_database! {
    a_log_recreated_under_a_store_is_another,
    what_was_decided_on_lost_events_is_a_conflict,
    a_loss_that_is_found_while_an_append_is_under_way_is_a_conflict,
    after_a_loss_an_append_that_is_in_the_log_is_a_duplicate,
    after_a_loss_each_condition_that_names_a_place_is_named,
    waiting_callers_learn_that_events_were_lost,
    after_a_loss_the_log_is_read_and_written_as_it_is,
    a_hole_is_damage,
}

async fn open(place: &Place) -> Arc<dyn EventStore> {
    annals::open_store(&place.url.parse().unwrap()).await.unwrap()
}

fn append(stream: &str, expected: Expected) -> Append {
    let event = NewEvent::new("thing.done", "{}").unwrap();
    Append::to(StreamId::new(stream).unwrap(), expected, [event])
}

async fn a_log_recreated_under_a_store_is_another(place: Place) {
    let store = open(&place).await;
    store.append(append("thing-1", Expected::Any)).await.unwrap();
    let mut owner = place.beside().await;
    // With the same tables, so that nothing but the identity tells.
    let id = if place.is_postgres() { "gen_random_uuid()" } else { "UNHEX(REPLACE(UUID(), '-', ''))" };
    owner.run(&format!("UPDATE {}.log SET store_id = {id}", place.name)).await;
    let other = open(&place).await;
    for error in [
        store.append(append("thing-1", Expected::Any)).await.unwrap_err(),
        store.append(append("thing-1", Expected::Exists)).await.unwrap_err(),
        store.read_log(LogRead::forward(Position::FIRST)).await.unwrap_err(),
        store.head().await.unwrap_err(),
        store.list_streams(Default::default()).await.unwrap_err(),
        store.outcome(&annals::IdempotencyKey::new("a").unwrap()).await.unwrap_err(),
    ] {
        let message = error.chain();
        assert!(matches!(error, Error::Unavailable(_)), "{message}");
        assert!(
            message.contains(&store.id().to_string()) && message.contains(&other.id().to_string()),
            "{message}"
        );
    }
    assert_eq!(other.head().await.unwrap(), Position::FIRST);
}

async fn what_was_decided_on_lost_events_is_a_conflict(place: Place) {
    let store = open(&place).await;
    for _ in 0..3 {
        store.append(append("thing-1", Expected::Any)).await.unwrap();
    }
    place.lose(1).await;
    // Others write as many events as were lost: versions alone do not tell.
    let other = open(&place).await;
    for _ in 0..2 {
        other.append(append("thing-1", Expected::Any)).await.unwrap();
    }
    let refused = store.append(append("thing-1", Expected::Exact(Version::new(3)))).await.unwrap_err();
    let Error::Conflict(conflict) = &refused else { panic!("{}", refused.chain()) };
    assert!(matches!(conflict.violations[0].violated, Violated::History { .. }), "{}", refused.chain());
    assert!(conflict.is_stale(), "to read again and decide again helps");
    store.append(append("thing-1", Expected::Exact(Version::new(3)))).await.unwrap();
}

/// The append has been judged on what was known, and waits for a connection, while a reader finds out that
/// the log has lost events. What is known by then must not take the place of what it was judged on.
async fn a_loss_that_is_found_while_an_append_is_under_way_is_a_conflict(place: Place) {
    for locked in [false, true] {
        let place = place.another().await;
        let gate = Gate::to(&place.url).await;
        let store = crate::gone::open_at(&place, &gate.url).await;
        for _ in 0..3 {
            store.append(append("thing-1", Expected::Any)).await.unwrap();
        }
        // The writer has to make a connection, and is not let through yet.
        gate.shut();
        place.cut().await;
        // So that the writer tries its connection before it uses it.
        tokio::time::sleep(annals_sql::IDLE + Duration::from_millis(100)).await;
        let mut decided = append("thing-1", Expected::Exact(Version::new(3)));
        if locked {
            decided = decided.unless(Query::tags([Tag::new("a").unwrap()]), Position::ZERO);
        }
        let appending = tokio::spawn({
            let store = store.clone();
            async move { store.append(decided).await }
        });
        // On PostgreSQL the one that listens waits too.
        let waiting = gate.until_waiting(if place.is_postgres() { 2 } else { 1 });
        tokio::time::timeout(HANG, waiting).await.expect("the writer makes a connection");
        place.lose(1).await;
        let other = open(&place).await;
        for _ in 0..2 {
            other.append(append("thing-1", Expected::Any)).await.unwrap();
        }
        // A reader is let through, and finds out.
        gate.open_for_new();
        let found = async {
            while store.head().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(HANG, found).await.expect("the log is read");
        gate.open();
        let answer = tokio::time::timeout(HANG, appending).await.expect("it is answered").unwrap();
        let refused = answer.map(|appended| appended.last).unwrap_err();
        let Error::Conflict(conflict) = &refused else { panic!("{}", refused.chain()) };
        let is_loss = |found: &Violation| matches!(found.violated, Violated::History { .. });
        assert!(conflict.violations.iter().any(is_loss), "locked {locked}: {}", refused.chain());
    }
}

/// The answer to its first attempt was lost with the server; others decided again would do twice what it has
/// done.
async fn after_a_loss_an_append_that_is_in_the_log_is_a_duplicate(place: Place) {
    for keyed in [true, false] {
        let store = open(&place).await;
        let stream = format!("thing-{keyed}");
        let start = store.append(append(&stream, Expected::NoStream)).await.unwrap().last;
        let mut again = append(&stream, Expected::Exact(Version::FIRST))
            .unless(Query::tags([Tag::new("a").unwrap()]), start);
        if keyed {
            again = again.once("again".parse().unwrap());
        }
        let first = store.append(again.clone()).await.unwrap();
        for _ in 0..2 {
            store.append(append("thing-lost", Expected::Any)).await.unwrap();
        }
        place.lose(first.last.get()).await;
        let answer = store.append(again).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!((answer.first, answer.duplicate), (first.first, true));
        let read = StreamRead::forward(StreamId::new(&*stream).unwrap(), Version::FIRST);
        assert_eq!(store.read_stream(read).await.unwrap().events.len(), 2, "it is there once");
    }
}

async fn after_a_loss_each_condition_that_names_a_place_is_named(place: Place) {
    let store = open(&place).await;
    let first = store.append(append("thing-1", Expected::NoStream)).await.unwrap();
    let stream = StreamId::new("thing-1").unwrap();
    let newest = store.log_events(Query::all()).await.unwrap()[0].id();
    let lose_some = async || {
        for _ in 0..2 {
            store.append(append("thing-2", Expected::Any)).await.unwrap();
        }
        place.lose(first.last.get()).await;
    };
    lose_some().await;
    let tagged = Query::tags([Tag::new("a").unwrap()]);
    let asked = append("thing-3", Expected::NoStream)
        .after_event(&stream, Version::FIRST, newest)
        .expecting(&stream, Expected::Exact(Version::FIRST))
        .unless(tagged.clone(), Position::ZERO)
        .unless(tagged.clone(), first.last);
    let refused = store.append(asked).await.unwrap_err();
    let Error::Conflict(conflict) = &refused else { panic!("{}", refused.chain()) };
    let named: Vec<usize> = conflict.violations.iter().map(|violation| violation.condition).collect();
    assert_eq!(named, [2, 4], "{}", refused.chain());
    assert!(conflict.violations.iter().all(|found| matches!(found.violated, Violated::History { .. })));
    // A condition that names the event, or that there is none, is as good as before.
    lose_some().await;
    let exact = append("thing-3", Expected::NoStream)
        .after_event(&stream, Version::FIRST, newest)
        .unless(tagged, Position::ZERO);
    store.append(exact).await.unwrap();
    lose_some().await;
    let lost = append("thing-1", Expected::Any).after_event(&stream, Version::FIRST, EventId::generate());
    let refused = store.append(lost).await.unwrap_err();
    let Error::Conflict(conflict) = &refused else { panic!("{}", refused.chain()) };
    assert!(matches!(conflict.violations[0].violated, Violated::Newest { .. }), "{}", refused.chain());
}

async fn waiting_callers_learn_that_events_were_lost(place: Place) {
    let store = open(&place).await;
    let mut last = None;
    for _ in 0..3 {
        last = Some(store.append(append("thing-1", Expected::Any)).await.unwrap());
    }
    let last = last.unwrap().last;
    let seen = Witness::at(&*store, last).await.unwrap().unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait(last).await }
    });
    place.lose(1).await;
    let error = tokio::time::timeout(HANG, waiting).await.expect("it waits in vain").unwrap().unwrap_err();
    let message = annals_sql::Stopped::OtherHistory { seen }.to_string();
    assert!(error.chain().contains(&message), "{}", error.chain());
    assert!(!seen.holds(&*store).await.unwrap());
}

async fn after_a_loss_the_log_is_read_and_written_as_it_is(place: Place) {
    let store = open(&place).await;
    for number in 1..=5 {
        store.append(append(&format!("thing-{number}"), Expected::NoStream)).await.unwrap();
    }
    place.lose(2).await;
    let page = store.read_log(LogRead::forward(Position::FIRST)).await.unwrap();
    assert_eq!((page.events.len(), page.head), (2, Position::new(2)));
    // The head that it believed to be there is none any more, neither for those who wait nor for appends.
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait(Position::new(2)).await }
    });
    let appended = store.append(append("thing-5", Expected::NoStream)).await.unwrap();
    assert_eq!(appended.first, Position::new(3));
    let woken = tokio::time::timeout(HANG, waiting).await.expect("it waits in vain").unwrap();
    assert_eq!(woken.unwrap(), Position::new(3));
}

async fn a_hole_is_damage(place: Place) {
    let store = open(&place).await;
    for number in 0..5 {
        let mut append = append("thing-1", Expected::Any);
        append.writes[0].event.tags = vec![Tag::new(format!("n:{number}")).unwrap()];
        store.append(append).await.unwrap();
    }
    place.beside().await.run(&format!("DELETE FROM {}.events WHERE position = 3", place.name)).await;
    let stream = StreamId::new("thing-1").unwrap();
    for damaged in [
        store.read_log(LogRead::forward(Position::FIRST)).await.map(drop),
        store.read_log(LogRead::backward(Position::MAX)).await.map(drop),
        store.read_stream(StreamRead::forward(&stream, Version::FIRST)).await.map(drop),
        store.read_stream(StreamRead::backward(&stream, Version::MAX)).await.map(drop),
    ] {
        assert!(matches!(damaged, Err(Error::Damaged { .. })), "{damaged:?}");
    }
    // What is whole is read.
    let page = store.read_log(LogRead::forward(Position::new(4))).await.unwrap();
    assert_eq!(page.events.len(), 2);
    let tagged = LogRead::forward(Position::FIRST).matching(Query::tags([Tag::new("n:4").unwrap()]));
    assert_eq!(store.read_log(tagged).await.unwrap().events.len(), 1);
}
