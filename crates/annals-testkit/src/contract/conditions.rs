//! Clauses on conditions beyond the version of the written stream: other streams, several conditions at once,
//! and the content of a refusal.

use annals_core::{Append, EventId, Expected, Position, Query, RecordedEvent, Version, Violated, Witness};

use crate::Trial;
use crate::given::{
    Picture, at, event, event_type, events, events_of, log, new, one, refused, some, stream, with_data,
};

/// G3: a condition may be on a stream that the append does not write: the append is committed if that stream
/// is at the expected version; otherwise neither that stream nor any other changes.
pub async fn a_condition_on_an_unwritten_stream_guards_the_append(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("price-1", Expected::NoStream, 2)).await);
    let guarded = || some("order-7", Expected::NoStream, 1).expecting(stream("price-1"), at(2));
    new(store.append(guarded()).await);
    assert_eq!(events_of(store, "price-1").await.len(), 2, "a condition writes nothing");

    new(store.append(some("price-1", at(2), 1)).await);
    let before = Picture::of(store).await;
    let late = some("order-8", Expected::NoStream, 1).expecting(stream("price-1"), at(2));
    let conflict = refused(store.append(late).await);
    assert_eq!(conflict.violations.len(), 1);
    assert_eq!(conflict.violations[0].condition, 1);
    assert_eq!(
        conflict.violations[0].violated,
        Violated::Version { stream: stream("price-1"), expected: at(2), actual: Version::new(3) }
    );
    assert_eq!(conflict.violations[0].unseen, events_of(store, "price-1").await[2..]);
    assert_eq!(Picture::of(store).await, before);
}

/// G3: a stream that is not written may be expected to exist or not to exist.
pub async fn an_unwritten_stream_may_be_expected_to_exist_or_not(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("member-1", Expected::NoStream, 1)).await);
    let order = |name: &str| some(name, Expected::NoStream, 1);
    new(store.append(order("order-1").expecting(stream("member-1"), Expected::Exists)).await);
    new(store.append(order("order-2").expecting(stream("member-2"), Expected::NoStream)).await);
    new(store.append(order("order-3").expecting(stream("member-2"), at(0))).await);
    refused(store.append(order("order-4").expecting(stream("member-2"), Expected::Exists)).await);
    refused(store.append(order("order-5").expecting(stream("member-1"), Expected::NoStream)).await);
    assert!(events_of(store, "member-2").await.is_empty(), "a condition does not begin a stream");
    assert_eq!(read_count(store).await, 4);
}

async fn read_count(store: &crate::given::Store) -> usize {
    log(store).await.len()
}

/// G3: the conflict names every violated condition, by its index, in the order of the request, and no other.
pub async fn every_violated_condition_is_named(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 2)).await);
    new(store.append(some("b-1", Expected::NoStream, 1)).await);
    let before = Picture::of(store).await;
    let append = Append::to(stream("c-1"), Expected::NoStream, events(1))
        .expecting(stream("a-1"), at(1))
        .expecting(stream("b-1"), Expected::Exists)
        .expecting(stream("b-1"), Expected::NoStream)
        .unless(Query::category(crate::given::category("a")), Position::new(1))
        .unless(Query::category(crate::given::category("a")), Position::new(2))
        .expecting(stream("d-1"), Expected::Exists);
    let conflict = refused(store.append(append).await);
    let named: Vec<_> = conflict.violations.iter().map(|v| (v.condition, v.violated.clone())).collect();
    let version = |name: &str, expected, actual| Violated::Version {
        stream: stream(name),
        expected,
        actual: Version::new(actual),
    };
    assert_eq!(
        named,
        [
            (1, version("a-1", at(1), 2)),
            (3, version("b-1", Expected::NoStream, 1)),
            (4, Violated::NoMatch { after: Position::new(1), position: Position::new(2) }),
            (6, version("d-1", Expected::Exists, 0)),
        ]
    );
    assert_eq!(Picture::of(store).await, before);
}

/// G3: a conflict is stale only if every violated condition is.
pub async fn one_condition_that_reading_cannot_mend_makes_a_refusal_final(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 2)).await);
    let stale = some("c-1", Expected::NoStream, 1).expecting(stream("a-1"), at(1));
    assert!(refused(store.append(stale.clone()).await).is_stale());
    let hopeless = stale.expecting(stream("b-1"), Expected::Exists);
    let conflict = refused(store.append(hopeless).await);
    assert_eq!(conflict.violations.len(), 2);
    assert!(!conflict.is_stale());
}

/// G3: two conditions on one stream that cannot both hold refuse the append.
pub async fn conditions_that_contradict_each_other_refuse(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 2)).await);
    let both = some("a-1", at(2), 1).expecting(stream("a-1"), at(1));
    let conflict = refused(store.append(both).await);
    assert_eq!(conflict.violations.iter().map(|v| v.condition).collect::<Vec<_>>(), [1]);
    assert_eq!(events_of(store, "a-1").await.len(), 2);
}

/// G3: the violation of a stale version contains the events that the caller has not seen, complete and in the
/// order of the stream.
pub async fn a_stale_version_carries_the_unseen_events(trial: &mut Trial) {
    let store = trial.store();
    for number in 1..=6 {
        new(store.append(one("order-7", with_data(number.to_string()))).await);
        new(store.append(one("order-8", with_data(number.to_string()))).await);
    }
    let all = events_of(store, "order-7").await;
    for seen in 0..6_usize {
        let conflict = refused(store.append(some("order-7", at(seen as u64), 1)).await);
        let violation = &conflict.violations[0];
        assert_eq!(violation.unseen, all[seen..], "who has seen {seen} events");
        assert!(violation.unseen_complete);
    }
}

/// G3: a long list of unseen events may be cut at its end, and is then marked as incomplete.
pub async fn a_long_list_of_unseen_events_says_that_it_is_cut(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("order-7", Expected::NoStream, 300)).await);
    new(store.append(Append::to(stream("blob-1"), Expected::NoStream, megabytes(6))).await);
    for (name, seen) in [
        ("order-7", 0_u64),
        ("order-7", 20),
        ("order-7", 100),
        ("order-7", 250),
        ("blob-1", 0),
        ("blob-1", 4),
    ] {
        let conflict = refused(store.append(some(name, at(seen), 1)).await);
        let violation = &conflict.violations[0];
        let all = events_of(store, name).await;
        let missed = &all[usize::try_from(seen).expect("a small number")..];
        check_cut(&violation.unseen, missed, violation.unseen_complete);
    }
    let blobs = some("x-1", Expected::NoStream, 1)
        .unless(Query::category(crate::given::category("blob")), Position::ZERO);
    let violation = &refused(store.append(blobs).await).violations[0];
    check_cut(&violation.unseen, &events_of(store, "blob-1").await, violation.unseen_complete);
}

/// G3: a conflict has one bound over all violations: 256 events or 4 MiB in total. Every violated condition
/// is named, and a repeated condition is explained once.
pub async fn a_conflict_of_many_conditions_is_bounded_as_a_whole(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(Append::to(stream("blob-1"), Expected::NoStream, megabytes(3))).await);
    new(store.append(some("order-7", Expected::NoStream, 200)).await);
    new(store.append(some("order-8", Expected::NoStream, 200)).await);
    let mut same = some("x-1", Expected::NoStream, 1);
    let mut different = some("x-1", Expected::NoStream, 1).expecting(stream("order-7"), at(0));
    let mut streams = some("x-1", Expected::NoStream, 1);
    for number in 0..100 {
        same = same.unless(Query::all(), Position::ZERO);
        different = different.unless(Query::all(), Position::new(number));
        let name = if number % 2 == 0 { "order-7" } else { "order-8" };
        streams = streams.expecting(stream(name), at(number));
    }
    for (append, count) in [(same, 100), (different, 101), (streams, 100)] {
        let conflict = refused(store.append(append).await);
        assert_eq!(conflict.violations.len(), count, "every violated condition is named");
        let unseen = || conflict.violations.iter().flat_map(|violation| &violation.unseen);
        assert!(unseen().count() <= 256, "{} events", unseen().count());
        assert!(unseen().count() > 0, "the first violation is explained");
        let bytes: usize = unseen().map(|event| event.data().len()).sum();
        assert!(bytes <= 4 << 20, "{bytes} bytes");
        let (first, last) = (&conflict.violations[0], &conflict.violations[count - 1]);
        assert!(!first.unseen.is_empty());
        assert!(last.unseen.is_empty() && !last.unseen_complete);
        assert!(conflict.to_string().len() < 1_000, "{conflict}");
    }
}

fn megabytes(count: usize) -> Vec<annals_core::NewEvent> {
    (0..count).map(|number| with_data(vec![u8::try_from(number).expect("few"); 1 << 20])).collect()
}

fn check_cut(unseen: &[RecordedEvent], missed: &[RecordedEvent], complete: bool) {
    assert!(!unseen.is_empty(), "one unseen event is carried at least");
    assert!(missed.starts_with(unseen), "unseen events are carried from the oldest on, without a gap");
    assert_eq!(complete, unseen.len() == missed.len(), "whether it is all of them is said");
    assert!(unseen.len() <= 256);
    let bytes: usize = unseen.iter().map(|event| event.data().len()).sum();
    assert!(unseen.len() == 1 || bytes <= 4 << 20, "{bytes} bytes of unseen events are too many");
}

/// G3: an event that the caller has seen must be in the log at its position; otherwise a condition on what
/// came after it is violated, because in another history other events may precede it. A position alone is not
/// checked, even beyond the head.
pub async fn what_was_seen_must_be_in_the_log(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 3)).await);
    let nothing = || Query::types([event_type("name.claimed")]);
    let mut appended = 3;
    for event in log(store).await {
        new(store.append(some("b-1", Expected::Any, 1).unless(nothing(), &event)).await);
        appended += 1;
    }
    let origin = Witness::origin(store.id());
    new(store.append(some("b-1", Expected::Any, 1).unless(nothing(), origin)).await);
    for position in [0, 2, 3] {
        new(store.append(some("b-1", Expected::Any, 1).unless(nothing(), Position::new(position))).await);
    }
    appended += 4;
    assert_eq!(read_count(store).await, appended);
    for (position, id) in [
        (0, EventId::generate()),
        (1, origin.id),
        (2, EventId::generate()),
        (3, log(store).await[1].id()),
        (1_000, EventId::generate()),
    ] {
        let seen = Witness { position: Position::new(position), id };
        let append = some("b-1", Expected::Any, 1).expecting(stream("b-1"), Expected::NoStream);
        let conflict = refused(store.append(append.unless(nothing(), seen)).await);
        let violation = &conflict.violations[1];
        assert_eq!((violation.condition, &violation.violated), (1, &Violated::History { seen }));
        assert!(violation.unseen.is_empty() && !violation.unseen_complete, "{violation:?}");
        assert_eq!(read_count(store).await, appended, "{seen}");
    }
    let event = log(store).await[1].clone();
    let matched = some("b-1", Expected::Any, 1).unless(Query::all(), &event);
    let violated = Violated::NoMatch { after: event.position(), position: event.position().next() };
    assert_eq!(refused(store.append(matched).await).violations[0].violated, violated);
}

/// G3: conditions apply to the log before the append: events of the append itself do not count.
pub async fn an_append_does_not_violate_its_own_conditions(trial: &mut Trial) {
    let store = trial.store();
    let claim = || Query::types([event_type("name.claimed")]);
    let append = Append::to(stream("name-kim"), Expected::NoStream, [event("name.claimed")])
        .and_to(stream("name-kim"), Expected::NoStream, [event("name.confirmed")])
        .unless(claim(), Position::ZERO);
    let done = new(store.append(append).await);
    assert_eq!(done.version(), Version::new(2));
    let second = Append::to(stream("name-lee"), Expected::NoStream, [event("name.claimed")])
        .unless(claim(), Position::ZERO);
    refused(store.append(second).await);
}
