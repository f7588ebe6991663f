//! Clauses on invalid requests: no events, reserved names, sizes beyond the limits. The error names the
//! field, and nothing changes.

use std::time::Duration;

use annals_core::{
    Append, Bytes, ContentType, Error, EventId, EventStore, EventStoreExt, EventType, Expected,
    IdempotencyKey, LogRead, NewEvent, Position, Query, QueryItem, RecordedEvent, Text, Witness,
};

use crate::Trial;
use crate::given::{
    Picture, Store, at, event, events, invalid, key, log, new, read, some, stream, tag, with_data,
};

/// Ends a query whose planning hangs. It is not a requirement on speed.
const HANG: Duration = Duration::from_secs(60);

/// Checks that an append is refused with this field and that nothing has changed.
async fn check_invalid(store: &Store, append: Append, field: &str) {
    let before = Picture::of(store).await;
    let refusal = invalid(store.append(append).await);
    assert_eq!(refusal.field, field, "{refusal}");
    assert!(!refusal.problem.is_empty());
    assert_eq!(Picture::of(store).await, before);
}

fn noted(events: impl IntoIterator<Item = NewEvent>) -> Append {
    Append::to(stream("a-1"), Expected::Any, events)
}

/// G3: an append without events is refused, whatever its conditions are.
pub async fn an_append_without_events_is_refused(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 1)).await);
    check_invalid(store, Append::new(), "events").await;
    check_invalid(store, Append::new().expecting(stream("a-1"), at(1)), "events").await;
    check_invalid(store, Append::new().expecting(stream("a-1"), at(5)), "events").await;
    check_invalid(store, Append::new().unless(Query::all(), Position::ZERO).once(key("k")), "events").await;
}

/// G3: names that begin with `$` are reserved for Annals; they can be read, not written.
pub async fn reserved_streams_cannot_be_written(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 1)).await);
    for name in ["$", "$a-1", "$system"] {
        check_invalid(store, some(name, Expected::Any, 1), "events[0].stream").await;
        let second = some("a-1", at(1), 2).and_to(stream(name), Expected::NoStream, events(1));
        check_invalid(store, second, "events[2].stream").await;
        assert!(crate::given::events_of(store, name).await.is_empty());
    }
    new(store.append(some("a$b-1", Expected::NoStream, 1)).await);
}

/// G3: an event beyond the limit is refused; one at the limit is kept.
pub async fn an_event_beyond_the_limit_is_refused(trial: &mut Trial) {
    let (store, limit) = (trial.store(), trial.limits().event_bytes_max);
    new(store.append(some("a-1", Expected::NoStream, 1)).await);
    check_invalid(store, noted([event("a.changed"), with_data(vec![7; limit + 1])]), "events[1].data").await;
    let with_tag = with_data(vec![7; limit]).with_tag(tag("t"));
    check_invalid(store, noted([with_tag]), "events[0].data").await;
    new(store.append(noted([with_data(vec![7; limit])])).await);
    let last = log(store).await.pop().expect("the event at the limit");
    assert!(last.data().len() == limit && last.data().iter().all(|byte| *byte == 7));
}

/// G3: an append beyond the limit of bytes is refused, even if each of its events is within its limit.
pub async fn an_append_beyond_the_limit_is_refused(trial: &mut Trial) {
    let (store, limits) = (trial.store(), trial.limits());
    let data = Bytes::from(vec![7; limits.event_bytes_max]);
    let count = limits.append_bytes_max / limits.event_bytes_max + 1;
    check_invalid(store, noted((0..count).map(|_| with_data(data.clone()))), "events").await;
}

/// G3: an append of too many events or with too many conditions is refused.
pub async fn too_many_events_or_conditions_are_refused(trial: &mut Trial) {
    let (store, limits) = (trial.store(), trial.limits());
    check_invalid(store, noted(events(limits.append_events_max + 1)), "events").await;
    let mut append = noted(events(1));
    for _ in 0..limits.append_conditions_max {
        append = append.expecting(stream("b-1"), Expected::NoStream);
    }
    check_invalid(store, append.clone().expecting(stream("b-1"), at(0)), "conditions").await;
    new(store.append(append).await);
}

/// G3: too many tags and too much metadata are refused; the maximum is kept.
pub async fn too_many_tags_or_too_much_metadata_are_refused(trial: &mut Trial) {
    let (store, limits) = (trial.store(), trial.limits());
    let tagged = |count: usize| {
        (0..count).fold(event("a.changed"), |event, number| event.with_tag(tag(&number.to_string())))
    };
    check_invalid(store, noted([tagged(limits.event_tags_max + 1)]), "events[0].tags").await;
    let with_own = |bytes: usize| {
        let mut event = event("a.changed");
        event.metadata.own.insert(Text::from("k"), Text::from("v".repeat(bytes - 1)));
        event
    };
    check_invalid(store, noted([with_own(limits.metadata_bytes_max + 1)]), "events[0].metadata").await;
    new(store.append(noted([tagged(limits.event_tags_max), with_own(limits.metadata_bytes_max)])).await);
    let kept: Vec<_> = log(store).await.iter().map(|e| (e.tags().count(), e.metadata().own.len())).collect();
    assert_eq!(kept, [(limits.event_tags_max, 0), (0, 1)]);
}

/// An item with this many types, of 8 bytes each.
fn of_types(count: usize) -> QueryItem {
    let types = (0..count).map(|number| EventType::new(format!("t.{number:06}")).expect("it is a type"));
    QueryItem { types: types.collect(), ..QueryItem::default() }
}

/// An item with this many tags.
fn of_tags(count: usize) -> QueryItem {
    QueryItem { tags: (0..count).map(|number| tag(&number.to_string())).collect(), ..QueryItem::default() }
}

/// G3: a query that is too large is refused, as a condition and as a read, with the field and the limit.
pub async fn a_query_beyond_the_limits_is_refused(trial: &mut Trial) {
    let (store, limits) = (trial.store(), trial.limits());
    new(store.append(some("a-1", Expected::NoStream, 1)).await);
    let long = QueryItem { process: Some(Text::from("x".repeat(1_025))), ..QueryItem::default() };
    let empty = QueryItem { initiator: Some(Text::from("")), ..QueryItem::default() };
    let nul = QueryItem { process: Some(Text::from("a\0b")), ..QueryItem::default() };
    let large = |item: usize| QueryItem {
        process: Some(Text::from(format!("{item:01024}"))),
        ..QueryItem::default()
    };
    for (items, field) in [
        (vec![of_tags(1); limits.query_items_max + 1], "query.items"),
        (vec![of_tags(1), of_tags(limits.query_item_tags_max + 1)], "query.items[1].tags"),
        (vec![of_types(limits.query_names_max + 1)], "query"),
        ((0..limits.query_bytes_max / 1_024 + 1).map(large).collect(), "query"),
        (vec![long], "query.items[0].process"),
        (vec![empty], "query.items[0].initiator"),
        (vec![nul], "query.items[0].process"),
        (Query::predecessor("").items, "query.items[0].predecessor"),
        (Query::predecessor("x".repeat(1_025)).items, "query.items[0].predecessor"),
    ] {
        let query = Query { items };
        let refusal =
            invalid(store.read_log(LogRead::forward(Position::FIRST).matching(query.clone())).await);
        assert_eq!(refusal.field, field, "{refusal}");
        let append = noted(events(1)).expecting(stream("a-1"), at(1)).unless(query, Position::ZERO);
        check_invalid(store, append, &format!("conditions[1].{field}")).await;
    }
    // The events that conditions name as seen count too, because each is read.
    let seen = (0..65).map(|number| Witness { position: Position::new(number), id: EventId::generate() });
    let append = seen.fold(noted(events(1)), |append, seen| append.unless(Query::all(), seen));
    check_invalid(store, append, "conditions[64].after").await;
    // The names of all conditions are counted together.
    let half = Query { items: vec![of_types(limits.query_names_max / 2 + 1)] };
    let append = noted(events(1)).unless(half.clone(), Position::ZERO).unless(half, Position::ZERO);
    check_invalid(store, append, "conditions[1].query").await;
}

/// G3: queries of the maximum size are answered, in any shape, and planning them does not block the lock of
/// the log. The time limit ends a hang.
pub async fn queries_at_the_limits_are_answered(trial: &mut Trial) {
    let (store, limits) = (trial.store(), trial.limits());
    let tagged = (0..limits.query_item_tags_max)
        .fold(event("t.000000"), |event, number| event.with_tag(tag(&number.to_string())));
    for number in 0..20 {
        let other = event("t.000001").with_tag(tag("0")).with_tag(tag("1"));
        new(store.append(Append::to(stream(&format!("b-{number}")), Expected::Any, [other])).await);
    }
    let at = new(store.append(noted([tagged])).await).first;
    let (names, items) = (limits.query_names_max, limits.query_items_max);
    let mut wide = of_types(names - limits.query_item_tags_max);
    wide.tags = of_tags(limits.query_item_tags_max).tags;
    for items in [
        vec![of_tags(limits.query_item_tags_max)],
        vec![of_tags(limits.query_item_tags_max); names / limits.query_item_tags_max],
        vec![of_tags((names / items).min(limits.query_item_tags_max)); items],
        vec![of_types(names)],
        vec![of_types(names / items); items],
        vec![wide],
    ] {
        let query = Query { items };
        let means = |event: &RecordedEvent| query.matches(event);
        let expected: Vec<_> =
            log(store).await.iter().filter(|event| means(event)).map(|e| e.position()).collect();
        let answered = async {
            let found = read(store.log_events(query.clone()).await);
            let append = noted(events(1)).unless(query.clone(), Position::ZERO);
            (found.iter().map(|event| event.position()).collect::<Vec<_>>(), store.append(append).await)
        };
        let (found, refused) =
            tokio::time::timeout(HANG, answered).await.expect("a query within the limits is answered");
        assert_eq!(found, expected);
        assert!(found.contains(&at) && matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
        new(store.append(noted([event("a.changed")]).unless(query, at)).await);
    }
}

/// G3: metadata that some store could not index or hold is refused: an empty or overlong process, initiator
/// or predecessor, and NUL.
pub async fn bad_metadata_is_refused(trial: &mut Trial) {
    let store = trial.store();
    let long = "x".repeat(1_025);
    for text in ["", long.as_str(), "a\0b"] {
        for field in ["process", "initiator", "predecessor"] {
            let mut bad = event("a.changed");
            let place = match field {
                "process" => &mut bad.metadata.process,
                "initiator" => &mut bad.metadata.initiator,
                _ => &mut bad.metadata.predecessor,
            };
            *place = Some(Text::from(text));
            check_invalid(store, noted([bad]), &format!("events[0].metadata.{field}")).await;
        }
    }
    let mut bad = event("a.changed");
    bad.metadata.trace = Some(Text::from("a\0b"));
    check_invalid(store, noted([bad]), "events[0].metadata").await;
    for (name, value) in [("a\0b", "v"), ("k", "a\0b")] {
        let mut bad = event("a.changed");
        bad.metadata.own.insert(Text::from(name), Text::from(value));
        check_invalid(store, noted([bad]), "events[0].metadata").await;
    }
    for name in ["", "a\0b", &"x".repeat(257)] {
        let content_type = ContentType::Other(Text::from(name));
        check_invalid(
            store,
            noted([NewEvent { content_type, ..event("a.changed") }]),
            "events[0].content_type",
        )
        .await;
    }
}

/// G3: one wrong event refuses the whole append, and its key stays unused.
pub async fn one_wrong_event_refuses_the_whole_append(trial: &mut Trial) {
    let store = trial.store();
    let mut wrong = event("a.changed");
    wrong.metadata.process = Some(Text::from(""));
    let name: IdempotencyKey = key("request-1");
    let append = some("b-1", Expected::NoStream, 3).and_to(stream("a-1"), Expected::Any, [wrong]);
    check_invalid(store, append.once(name.clone()), "events[3].metadata.process").await;
    assert_eq!(read(store.outcome(&name).await), None);
}
