//! Clauses on the condition that no event matches a query after a position: rules over many streams.

use annals_core::{Append, EventStoreExt, EventType, Expected, Position, Query, QueryItem, Text, Violated};

use crate::Trial;
use crate::given::{
    Picture, Store, category, event, event_type, log, new, one, race, read, refused, some, stream, tag,
};

/// The violation of a single `NoMatch` after this position, or `None` if the append is committed.
pub(super) async fn violated(store: &Store, query: Query, after: u64) -> Option<Position> {
    let after = Position::new(after);
    let guarded = some("probe-1", Expected::Any, 1).unless(query.clone(), after);
    let matching: Vec<_> = log(store)
        .await
        .into_iter()
        .filter(|event| event.position() > after && query.matches(event))
        .collect();
    match store.append(guarded).await {
        Ok(_) => {
            assert!(matching.is_empty(), "let through although these match: {matching:#?}");
            None
        }
        answer => {
            let conflict = refused(answer);
            let violation = &conflict.violations[0];
            let Violated::NoMatch { after: named, position } = violation.violated else {
                panic!("the query is violated, not {:?}", violation.violated)
            };
            assert_eq!(named, after);
            assert!(conflict.is_stale(), "who reads what matches can decide again");
            assert_eq!(violation.unseen, matching, "the events that match are carried, oldest first");
            assert!(violation.unseen_complete);
            Some(position)
        }
    }
}

/// Three orders and a payment, at positions 1 to 4.
async fn shop(store: &Store) {
    let placed = |process: &str, initiator: &str| {
        let mut event = event("order.placed");
        event.metadata.process = Some(Text::from(process));
        event.metadata.initiator = Some(Text::from(initiator));
        event
    };
    let first = placed("checkout-1", "user:1").with_tag(tag("product:1")).with_tag(tag("customer:1"));
    let second = placed("checkout-2", "user:2").with_tag(tag("product:1")).with_tag(tag("customer:2"));
    let third = placed("checkout-3", "user:1").with_tag(tag("product:2")).with_tag(tag("customer:1"));
    let mut paid = event("order.paid").with_tag(tag("customer:1"));
    paid.metadata.process = Some(Text::from("checkout-1"));
    for (name, event) in [("order-1", first), ("order-2", second), ("order-3", third), ("payment-1", paid)] {
        new(store.append(one(name, event)).await);
    }
}

/// G3: "no event of these types after this position" refuses an append exactly as long as there is one.
pub async fn no_match_by_type(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let paid = || Query::types([event_type("order.paid")]);
    assert_eq!(violated(store, paid(), 0).await, Some(Position::new(4)));
    assert_eq!(violated(store, paid(), 3).await, Some(Position::new(4)));
    assert_eq!(violated(store, paid(), 4).await, None);
    assert_eq!(violated(store, Query::types([event_type("order.pai")]), 0).await, None);
    let either = || Query::types([event_type("order.paid"), event_type("order.placed")]);
    assert_eq!(violated(store, either(), 1).await, Some(Position::new(2)), "types are OR-ed");
}

/// G3: an event matches tags only if it has all of them.
pub async fn no_match_by_tags_needs_all_of_them(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let tags = |names: &[&str]| Query::tags(names.iter().map(|name| tag(name)));
    assert_eq!(violated(store, tags(&["customer:1"]), 1).await, Some(Position::new(3)));
    assert_eq!(violated(store, tags(&["customer:1", "product:2"]), 0).await, Some(Position::new(3)));
    assert_eq!(violated(store, tags(&["customer:2", "product:2"]), 0).await, None);
    assert_eq!(violated(store, tags(&["customer:"]), 0).await, None, "a tag is compared whole");
}

/// G3: a query may name the category of the stream.
pub async fn no_match_by_category(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    assert_eq!(violated(store, Query::category(category("order")), 0).await, Some(Position::FIRST));
    assert_eq!(violated(store, Query::category(category("order")), 3).await, None);
    assert_eq!(violated(store, Query::category(category("payment")), 0).await, Some(Position::new(4)));
    assert_eq!(violated(store, Query::category(category("pay")), 0).await, None);
}

/// G3: a query may name the process and the initiator.
pub async fn no_match_by_process_and_initiator(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let process =
        |name: &str| Query::item(QueryItem { process: Some(Text::from(name)), ..QueryItem::default() });
    let initiator =
        |name: &str| Query::item(QueryItem { initiator: Some(Text::from(name)), ..QueryItem::default() });
    assert_eq!(violated(store, process("checkout-1"), 1).await, Some(Position::new(4)));
    assert_eq!(violated(store, process("checkout-9"), 0).await, None);
    assert_eq!(violated(store, initiator("user:2"), 0).await, Some(Position::new(2)));
    assert_eq!(violated(store, initiator("user:2"), 2).await, None);
}

/// G3: an event must match everything that one item of a query names; of several items any is enough.
pub async fn items_are_or_ed_and_what_an_item_names_is_and_ed(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let item = QueryItem {
        category: Some(category("order")),
        types: vec![event_type("order.placed"), event_type("order.paid")],
        tags: vec![tag("customer:1")],
        process: Some(Text::from("checkout-3")),
        initiator: Some(Text::from("user:1")),
        ..QueryItem::default()
    };
    assert_eq!(violated(store, Query::item(item.clone()), 0).await, Some(Position::new(3)));
    let missing = QueryItem { initiator: Some(Text::from("user:2")), ..item.clone() };
    assert_eq!(violated(store, Query::item(missing.clone()), 0).await, None);
    let either = Query { items: vec![missing, item] };
    assert_eq!(violated(store, either, 0).await, Some(Position::new(3)));
    let two = Query::types([event_type("order.paid")]).or(Query::tags([tag("customer:2")]));
    assert_eq!(
        violated(store, two.clone(), 0).await,
        Some(Position::new(2)),
        "the first that any item means"
    );
    assert_eq!(violated(store, two, 2).await, Some(Position::new(4)));
}

/// The positions of the matching events, found by a read and checked as a condition.
pub(super) async fn found(store: &Store, query: Query) -> Vec<u64> {
    let events = read(store.log_events(query.clone()).await);
    let positions: Vec<u64> = events.iter().map(|event| event.position().get()).collect();
    let first = violated(store, query, 0).await;
    assert_eq!(first.map(Position::get), positions.first().copied(), "reads and conditions find the same");
    positions
}

/// Queries with this name in each field of a query.
fn with_name(name: &str) -> [Query; 6] {
    let of = |item: QueryItem| Query::item(item);
    [
        Query::category(category(name)),
        Query::types([event_type(name)]),
        Query::tags([tag(name)]),
        of(QueryItem { process: Some(Text::from(name)), ..QueryItem::default() }),
        of(QueryItem { initiator: Some(Text::from(name)), ..QueryItem::default() }),
        Query::predecessor(name),
    ]
}

/// Writes an event for each name, with the name in every field that a query can name.
async fn named_everywhere(store: &Store, names: &[String]) {
    for name in names {
        let mut event = event(name).with_tag(tag(name));
        event.metadata.process = Some(Text::from(name.as_str()));
        event.metadata.initiator = Some(Text::from(name.as_str()));
        event.metadata.predecessor = Some(Text::from(name.as_str()));
        new(store.append(one(&format!("{name}-1"), event)).await);
    }
}

async fn each_name_finds_its_own(store: &Store, names: &[String]) {
    named_everywhere(store, names).await;
    for (index, name) in names.iter().enumerate() {
        for query in with_name(name) {
            assert_eq!(found(store, query.clone()).await, [index as u64 + 1], "{query:?}");
        }
    }
}

/// G3: queries compare names byte by byte: case, trailing blanks and the composition of characters count.
pub async fn names_in_queries_are_compared_byte_for_byte(trial: &mut Trial) {
    let names =
        ["seat", "Seat", "SEAT", "seat ", " seat", "seat\n", "s\u{e9}at", "se\u{301}at", "좌석", "좌석 "];
    each_name_finds_its_own(trial.store(), &names.map(str::to_owned)).await;
}

/// G3: names of the maximum length that differ only in their last byte are different in queries.
pub async fn long_names_with_a_common_prefix_are_different_in_queries(trial: &mut Trial) {
    let names = ["a", "b", ""].map(|end| format!("{}{end}", "n".repeat(EventType::BYTES_MAX - 1)));
    each_name_finds_its_own(trial.store(), &names).await;
}

/// G3: an event is found by each of its tags, up to the limit.
pub async fn each_of_many_tags_finds_its_event(trial: &mut Trial) {
    let (store, limits) = (trial.store(), trial.limits());
    let name = |number: usize| tag(&format!("seat:{number}"));
    let tags =
        (0..limits.event_tags_max).fold(event("row.opened"), |event, number| event.with_tag(name(number)));
    new(store.append(some("a-1", Expected::NoStream, 1)).await);
    new(store.append(one("row-1", tags)).await);
    for number in 0..limits.event_tags_max {
        assert_eq!(found(store, Query::tags([name(number)])).await, [2], "tag {number}");
    }
    assert!(found(store, Query::tags([name(limits.event_tags_max)])).await.is_empty());
}

/// G3: of many items, and of many types of one item, each counts, including the last.
pub async fn many_items_and_types_are_looked_at_in_full(trial: &mut Trial) {
    const MANY: usize = 128;
    let store = trial.store();
    let name = |number: usize| event_type(&format!("kind.{number}"));
    for number in [0, MANY / 2, MANY - 1, MANY] {
        new(store.append(one("a-1", event(name(number).as_str()))).await);
    }
    let types = |numbers: std::ops::Range<usize>| Query::types(numbers.map(name));
    let items = |numbers: std::ops::Range<usize>| Query {
        items: numbers.flat_map(|number| Query::types([name(number)]).items).collect(),
    };
    for query in [types(0..MANY), items(0..MANY)] {
        assert_eq!(found(store, query).await, [1, 2, 3]);
    }
    for query in [types(1..MANY), items(1..MANY)] {
        assert_eq!(found(store, query).await, [2, 3]);
    }
}

/// G3: items that differ only in their tags are two items: either is enough.
pub async fn items_that_differ_in_their_tags_only_are_united(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let placed = |name: &str| QueryItem {
        types: vec![event_type("order.placed")],
        tags: vec![tag(name)],
        ..QueryItem::default()
    };
    let items = |names: &[&str]| Query { items: names.iter().map(|name| placed(name)).collect() };
    assert_eq!(found(store, items(&["product:2", "customer:2"])).await, [2, 3]);
    assert_eq!(found(store, items(&["customer:2", "product:2"])).await, [2, 3]);
    assert_eq!(found(store, items(&["product:2", "product:3"])).await, [3]);
    assert_eq!(found(store, items(&["product:3", "product:2"])).await, [3]);
}

/// G3: a condition may begin beyond the head: it holds until an event there matches.
pub async fn a_condition_may_begin_beyond_the_head(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let placed = || Query::types([event_type("order.placed")]);
    for after in [5, 6, 1_000, u64::MAX - 1, u64::MAX] {
        let position = Position::new(after);
        new(store.append(some("probe-1", Expected::Any, 1).unless(placed(), position)).await);
    }
    let last = new(store.append(one("order-4", event("order.placed"))).await).last;
    assert_eq!(violated(store, placed(), last.get() - 1).await, Some(last));
    assert_eq!(violated(store, placed(), last.get()).await, None);
    assert_eq!(violated(store, placed(), last.get() + 7).await, None);
}

/// G3: the query that matches every event refuses an append until its caller has seen the head.
pub async fn no_match_of_every_event_means_that_the_head_was_seen(trial: &mut Trial) {
    let store = trial.store();
    assert_eq!(violated(store, Query::all(), 0).await, None, "an empty log has nothing unseen");
    let head = annals_core::EventStore::head(store).await.map(Position::get).unwrap_or_default();
    assert_eq!(head, 1, "the append of before");
    assert_eq!(violated(store, Query::all(), 0).await, Some(Position::FIRST));
    let every_item = Query::item(QueryItem::default());
    assert_eq!(violated(store, every_item, 0).await, Some(Position::FIRST));
    assert_eq!(violated(store, Query::all(), 1).await, None);
    assert_eq!(violated(store, Query::all(), u64::MAX).await, None, "after the end nothing matches");
}

/// G3: a refused claim changes nothing.
pub async fn an_append_refused_by_a_query_changes_nothing(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let before = Picture::of(store).await;
    let append = some("order-9", Expected::NoStream, 3)
        .and_to(stream("order-1"), Expected::Exists, [event("order.changed")])
        .unless(Query::tags([tag("customer:2")]), Position::ZERO);
    refused(store.append(append).await);
    assert_eq!(Picture::of(store).await, before);
}

/// G3: of concurrent appends that claim the same thing in different streams, one wins.
pub async fn of_many_claims_one_wins(trial: &mut Trial) {
    let store = trial.store();
    shop(store).await;
    let claim = Query::types([event_type("seat.booked")]).or(Query::tags([tag("seat:12a")]));
    let answers = race(16, |number| {
        let (store, claim) = (store.clone(), claim.clone());
        async move {
            let booked = event("seat.taken").with_tag(tag("seat:12a"));
            let booking = Append::to(stream(&format!("booking-{number}")), Expected::NoStream, [booked]);
            store.append(booking.unless(claim, Position::new(2))).await
        }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "one claim wins");
    let position = new(won.into_iter().next().expect("there is one")).first;
    for lost in lost {
        let conflict = refused(lost);
        assert_eq!(conflict.violations[0].violated, Violated::NoMatch { after: Position::new(2), position });
    }
    assert_eq!(log(store).await.len(), 5);
}
