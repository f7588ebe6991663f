//! Clauses on expected versions: the expectations of an append, and the conflict if one fails.

use annals_core::{Append, EventId, EventStore, Expected, Position, StreamId, Version, Violated};

use crate::Trial;
use crate::given::{Picture, at, done, event, events, events_of, new, race, refused, some, stream};

/// G3: the first event of a store has version 1 and position 1.
pub async fn the_first_event_has_version_and_position_one(trial: &mut Trial) {
    let store = trial.store();
    let first = new(store.append(some("order-7", Expected::NoStream, 1)).await);
    assert_eq!((first.first, first.last), (Position::FIRST, Position::FIRST));
    assert_eq!(first.streams, [(stream("order-7"), Version::FIRST)]);
    let events = events_of(store, "order-7").await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].position(), events[0].version()), (Position::FIRST, Version::FIRST));
    assert_eq!(events[0].append(), Position::FIRST);
    assert_eq!(events[0].recorded_at(), first.recorded_at);
}

/// G3: an append that expects exactly the current version of the stream is committed, and the stream
/// continues from there.
pub async fn the_exact_version_continues_the_stream(trial: &mut Trial) {
    let store = trial.store();
    let two = new(store.append(some("order-7", at(0), 2)).await);
    assert_eq!(two.version(), Version::new(2));
    new(store.append(some("order-8", Expected::NoStream, 3)).await);
    let five = new(store.append(some("order-7", at(2), 3)).await);
    assert_eq!(five.streams, [(stream("order-7"), Version::new(5))]);
    assert_eq!((five.first, five.last, five.count()), (Position::new(6), Position::new(8), 3));
    let versions: Vec<u64> = events_of(store, "order-7").await.iter().map(|e| e.version().get()).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5]);
}

/// G3: an append that expects an older version changes nothing, and gets the current version.
pub async fn a_stale_append_changes_nothing(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 3)).await);
    let before = Picture::of(store).await;
    let conflict = refused(store.append(some("order-7", at(2), 2)).await);
    assert_eq!(conflict.violations.len(), 1);
    let violation = &conflict.violations[0];
    assert_eq!(violation.condition, 0);
    assert_eq!(
        violation.violated,
        Violated::Version { stream: stream("order-7"), expected: at(2), actual: Version::new(3) }
    );
    assert!(conflict.is_stale(), "reading the third event and deciding again can help");
    assert_eq!(Picture::of(store).await, before);
}

/// G3: an append that expects a version that the stream never had changes nothing, and the conflict is not
/// stale.
pub async fn a_version_ahead_of_the_stream_is_refused_and_not_stale(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 3)).await);
    let before = Picture::of(store).await;
    for expected in [4, 5, u64::MAX] {
        let conflict = refused(store.append(some("order-7", at(expected), 1)).await);
        let violation = &conflict.violations[0];
        assert_eq!(
            violation.violated,
            Violated::Version { stream: stream("order-7"), expected: at(expected), actual: Version::new(3) }
        );
        assert!(violation.unseen.is_empty(), "there is nothing that this caller has not seen");
        assert!(!conflict.is_stale(), "version {expected} never was, so reading again cannot help");
    }
    let conflict = refused(store.append(some("order-8", at(1), 1)).await);
    assert!(!conflict.is_stale(), "the stream does not exist");
    assert_eq!(Picture::of(store).await, before);
}

/// G3: expecting version 0 is the same as expecting that the stream does not exist.
pub async fn exact_zero_expects_no_stream(trial: &mut Trial) {
    let store = trial.store();
    let first = new(store.append(some("order-7", at(0), 1)).await);
    assert_eq!(first.version(), Version::FIRST);
    let conflict = refused(store.append(some("order-7", at(0), 1)).await);
    match &conflict.violations[0].violated {
        Violated::Version { stream: named, expected, actual } => {
            assert_eq!((named, *actual), (&stream("order-7"), Version::FIRST));
            assert!(matches!(expected, Expected::NoStream | Expected::Exact(Version::ZERO)));
        }
        other => panic!("a version is violated, not {other:?}"),
    }
    assert!(conflict.is_stale(), "who expected no stream has merely not seen it");
}

/// G3: an append that expects no stream is refused if the stream exists.
pub async fn no_stream_is_refused_where_there_is_one(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 2)).await);
    let before = Picture::of(store).await;
    let conflict = refused(store.append(some("order-7", Expected::NoStream, 1)).await);
    assert_eq!(
        conflict.violations[0].violated,
        Violated::Version {
            stream: stream("order-7"),
            expected: Expected::NoStream,
            actual: Version::new(2)
        }
    );
    assert_eq!(conflict.violations[0].unseen, before.events, "it has seen neither of the two events");
    assert_eq!(Picture::of(store).await, before);
}

/// G3: an append that expects a stream is refused if the stream does not exist.
pub async fn exists_is_refused_where_there_is_no_stream(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-70", Expected::NoStream, 1)).await);
    let before = Picture::of(store).await;
    let conflict = refused(store.append(some("order-7", Expected::Exists, 1)).await);
    assert_eq!(
        conflict.violations[0].violated,
        Violated::Version { stream: stream("order-7"), expected: Expected::Exists, actual: Version::ZERO }
    );
    assert!(!conflict.is_stale(), "reading again does not make the stream exist");
    assert_eq!(Picture::of(store).await, before);
}

/// G3: an append that expects the stream to exist, or expects nothing, is committed at any version of the
/// stream.
pub async fn exists_and_any_take_whatever_version(trial: &mut Trial) {
    let store = trial.store();
    assert_eq!(new(store.append(some("order-7", Expected::Any, 2)).await).version(), Version::new(2));
    assert_eq!(new(store.append(some("order-7", Expected::Exists, 1)).await).version(), Version::new(3));
    assert_eq!(new(store.append(some("order-7", Expected::Any, 1)).await).version(), Version::new(4));
    let message =
        Append::to(stream("order-7"), Expected::Any, events(1)).expecting(stream("x"), Expected::Any);
    assert_eq!(new(store.append(message).await).version(), Version::new(5));
}

/// G3: of concurrent appends that create the same stream, one wins, and every other one gets the conflict.
pub async fn of_many_creators_one_wins(trial: &mut Trial) {
    one_of_many_wins(trial, "order-7", Expected::NoStream, Version::FIRST).await;
}

/// G3: of concurrent appends at the same version of a stream, one wins, and every other one gets the
/// conflict.
pub async fn of_many_updaters_one_wins(trial: &mut Trial) {
    new(trial.store().append(some("order-7", Expected::NoStream, 4)).await);
    one_of_many_wins(trial, "order-7", at(4), Version::new(5)).await;
}

async fn one_of_many_wins(trial: &Trial, name: &'static str, expected: Expected, version: Version) {
    let store = trial.store();
    let answers = race(16, |_| {
        let store = store.clone();
        async move { store.append(some(name, expected, 1)).await }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "one append wins");
    let won = new(won.into_iter().next().expect("there is one"));
    assert_eq!(won.version(), version);
    for lost in lost {
        let conflict = refused(lost);
        assert_eq!(
            conflict.violations[0].violated,
            Violated::Version { stream: stream(name), expected, actual: version }
        );
    }
    assert_eq!(events_of(store, name).await.len() as u64, version.get());
}

/// G3: writers that decide again on what the conflict contains lose no update.
pub async fn writers_that_decide_again_lose_no_update(trial: &mut Trial) {
    const WRITERS: usize = 6;
    const EACH: usize = 10;
    let store = trial.store();
    race(WRITERS, |_| {
        let store = store.clone();
        async move {
            let mut seen = Version::ZERO;
            for _ in 0..EACH {
                seen = count_one_up(&store, &stream("stock-1"), seen).await;
            }
        }
    })
    .await;
    let events = events_of(store, "stock-1").await;
    assert_eq!(events.len(), WRITERS * EACH);
    for event in events {
        assert_eq!(
            event.data(),
            event.version().to_string().as_bytes(),
            "each was decided on the one before"
        );
    }
}

/// Writes the next number into a stream, starting from a version that may be stale.
async fn count_one_up(store: &dyn EventStore, counter: &StreamId, mut seen: Version) -> Version {
    loop {
        let next = crate::given::with_data(seen.next().to_string());
        match store.append(Append::to(counter, Expected::Exact(seen), [next])).await {
            Ok(done) => return done.version(),
            Err(annals_core::Error::Conflict(conflict)) => {
                let violation = &conflict.violations[0];
                let newest = violation.unseen.last().expect("a stale version carries what was not seen");
                assert!(newest.version() > seen);
                seen = newest.version();
            }
            Err(error) => panic!("nothing but a conflict may refuse this: {}", error.chain()),
        }
    }
}

/// G3: a refusal has no lasting effect: with the version in the conflict, the same caller succeeds.
pub async fn after_a_refusal_the_right_version_is_let_through(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 2)).await);
    let late = Append::to(stream("order-7"), Expected::NoStream, [event("order.placed")]);
    let conflict = refused(store.append(late.clone()).await);
    let Violated::Version { actual, .. } = conflict.violations[0].violated else {
        panic!("a version is violated")
    };
    let writes = late.writes.into_iter().map(|write| write.event);
    let again = Append::to(stream("order-7"), Expected::Exact(actual), writes);
    assert_eq!(done(store.append(again).await).version(), Version::new(3));
}

/// An append of one event after this one.
fn after(name: &str, version: u64, event: EventId) -> Append {
    some(name, Expected::Any, 1).after_event(stream(name), Version::new(version), event)
}

/// G3: an append that names the newest event of its stream, and of another stream, is committed.
pub async fn an_append_after_the_newest_event_continues_the_stream(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 2)).await);
    new(store.append(some("order-8", Expected::NoStream, 1)).await);
    let (seven, eight) = (events_of(store, "order-7").await, events_of(store, "order-8").await);
    let append =
        after("order-7", 2, seven[1].id()).after_event(stream("order-8"), Version::FIRST, eight[0].id());
    let third = new(store.append(append.clone()).await);
    assert_eq!(third.version(), Version::new(3));
    let again = store.append(append).await.expect("the same append is known");
    assert!(again.duplicate, "the same append is known, although its event is not the newest any more");
    let third = events_of(store, "order-7").await[2].id();
    assert_eq!(new(store.append(after("order-7", 3, third)).await).version(), Version::new(4));
}

/// G3: an event that the stream does not have, or has at another version, is not its newest, whatever its
/// version is.
pub async fn an_append_after_another_event_than_the_newest_changes_nothing(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 3)).await);
    new(store.append(some("order-8", Expected::NoStream, 1)).await);
    let before = Picture::of(store).await;
    let (events, elsewhere) = (events_of(store, "order-7").await, events_of(store, "order-8").await);
    let history = |version| Violated::Newest {
        stream: stream("order-7"),
        version: Version::new(version),
        actual: Version::new(3),
    };
    let lost = EventId::from_name(b"an event that was lost");
    for (version, event) in [(3, lost), (2, lost), (4, lost), (3, events[1].id()), (1, elsewhere[0].id())] {
        let conflict = refused(store.append(after("order-7", version, event)).await);
        assert_eq!(conflict.violations[0].violated, history(version), "{version} {event}");
        assert!(conflict.is_stale(), "to read the stream again helps");
    }
    // Together with a valid write, and as a condition on a stream that is not written.
    let guarded =
        some("order-9", Expected::NoStream, 1).after_event(stream("order-7"), Version::new(3), lost);
    assert_eq!(refused(store.append(guarded).await).violations[0].violated, history(3));
    // An existing event that is no longer the newest: the conflict contains the events after it.
    let conflict = refused(store.append(after("order-7", 2, events[1].id())).await);
    let violation = &conflict.violations[0];
    assert_eq!(
        violation.violated,
        Violated::Version { stream: stream("order-7"), expected: at(2), actual: Version::new(3) }
    );
    assert_eq!((&*violation.unseen, violation.unseen_complete), (&events[2..], true));
    let none = refused(store.append(after("order-6", 1, events[0].id())).await);
    assert!(matches!(none.violations[0].violated, Violated::Newest { actual: Version::ZERO, .. }));
    assert_eq!(Picture::of(store).await, before);
}

/// G3: of concurrent appends after the same event, one is committed, and the others get that event.
pub async fn of_many_that_append_after_one_event_one_wins(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 1)).await);
    for version in 1..=8 {
        let newest = events_of(store, "order-7").await.pop().expect("the stream has events").id();
        let answers = race(8, |_| {
            let store = store.clone();
            async move { store.append(after("order-7", version, newest)).await }
        })
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "one append wins at version {version}");
        for lost in lost {
            let violated = refused(lost).violations.remove(0).violated;
            assert!(matches!(violated, Violated::Version { .. }), "{violated}");
        }
        assert_eq!(events_of(store, "order-7").await.len() as u64, version + 1);
    }
}
