//! Calls whose cost must not depend on the size of the log: for stores whose database chooses a query plan.
//!
//! The tests of a store load many events, make these calls, and read from the database how many rows it has
//! scanned.

use annals_core::{
    Append, Category, EventId, EventStore, EventType, Expected, LogRead, NewEvent, Position, Query,
    QueryItem, StreamId, StreamList, StreamRead, Tag, Text, Version,
};

use crate::given::{category, done, event, event_type, key, read, stream, tag};

/// The sizes of logs on which the calls are made: `usual`, or `ANNALS_HOT_EVENTS` in place of the larger one.
///
/// # Panics
/// If `ANNALS_HOT_EVENTS` is not a number.
pub fn sizes(usual: [i64; 2]) -> [i64; 2] {
    match std::env::var("ANNALS_HOT_EVENTS") {
        Ok(events) => [usual[0], events.parse().expect("ANNALS_HOT_EVENTS is a number of events")],
        Err(_) => usual,
    }
}

/// The names in the loaded log: event `n` (from 1) is of the stream `bulk-{n / 10}`, of the type `bulk.noted`
/// and has the tag `common` and the predecessor `common`; every thousandth is of the type `rare.noted`
/// instead and has the tag `rare:{n}`, the process `process-{n}`, the predecessor `cause-{n}`, and the key
/// `key-{n}`. Its id is `n`, as a number.
pub struct Names;

impl Names {
    /// The type of most events.
    pub fn common_type() -> EventType {
        event_type("bulk.noted")
    }

    /// The tag of every event.
    pub fn common_tag() -> Tag {
        tag("common")
    }

    /// The category of all streams.
    pub fn category() -> Category {
        category("bulk")
    }
}

/// Makes each of the frequent calls of a service once, on a log with some thousand events of [`Names`] or
/// none. New names are derived from `round`.
///
/// # Panics
/// If one fails.
pub async fn calls(store: &dyn EventStore, round: &str) {
    let head = read(store.head().await);
    let middle = Position::new(head.get() / 2);
    for number in [1, head.get() / 2, head.get()] {
        let of = stream(&format!("bulk-{}", number / 10));
        read(store.read_stream(StreamRead::forward(&of, Version::FIRST)).await);
        read(store.read_stream(StreamRead::backward(&of, Version::MAX).limit(1)).await);
    }
    let types = |name: &str| Query::types([event_type(name)]);
    let rare = head.get() / 2 / 1_000 * 1_000;
    let process = QueryItem { process: Some(Text::from(format!("process-{rare}"))), ..QueryItem::default() };
    let both = QueryItem {
        category: Some(Names::category()),
        types: vec![event_type("rare.noted")],
        tags: vec![Names::common_tag(), tag(&format!("rare:{rare}"))],
        ..QueryItem::default()
    };
    let queries = [
        Query::all(),
        types("bulk.noted"),
        types("rare.noted"),
        types("never.noted"),
        types("bulk.noted").or(types("rare.noted")).or(types("never.noted")),
        Query::category(Names::category()),
        Query::category(category("nothing")),
        Query::tags([Names::common_tag()]),
        Query::tags([tag(&format!("rare:{rare}"))]),
        Query::tags([tag("never")]),
        Query::item(process),
        Query::id(EventId::from_bytes(u128::from(rare).to_be_bytes())),
        Query::id(EventId::from_name(b"never")),
        Query::predecessor("common"),
        Query::predecessor(format!("cause-{rare}")),
        Query::predecessor("never"),
    ];
    for query in queries {
        read(store.read_log(LogRead::forward(middle).matching(query.clone()).limit(10)).await);
        read(store.read_log(LogRead::backward(Position::MAX).matching(query).limit(10)).await);
    }
    // The first tag is looked up: the caller names the rarest first.
    let both = QueryItem { tags: both.tags.iter().rev().cloned().collect(), ..both };
    read(store.read_log(LogRead::forward(Position::FIRST).matching(Query::item(both)).limit(10)).await);
    let after = Some(stream(&format!("bulk-{}", head.get() / 20)));
    read(store.list_streams(StreamList { after: after.clone(), limit: 10, ..StreamList::default() }).await);
    let of = Some(Names::category());
    read(store.list_streams(StreamList { category: of, after, limit: 10 }).await);
    let none = Some(category("nothing"));
    read(store.list_streams(StreamList { category: none, after: None, limit: 10 }).await);
    read(store.outcome(&key(&format!("key-{rare}"))).await);
    read(store.outcome(&key("never")).await);
    appends(store, round, rare).await;
}

async fn appends(store: &dyn EventStore, round: &str, rare: u64) {
    let of = StreamId::new(format!("hot-{round}")).expect("a stream's name");
    let append = |expected| Append::to(&of, expected, [event("hot.noted")]);
    done(store.append(append(Expected::NoStream).once(key(&format!("hot {round}")))).await);
    done(store.append(append(Expected::Exact(Version::FIRST))).await);
    done(store.append(append(Expected::Any)).await);
    // Appends that are decided on facts read under the lock.
    done(store.append(append(Expected::Exists)).await);
    let claim = Query::tags([tag(&format!("claim:{round}"))]);
    let claimed: NewEvent = event("hot.claimed").with_tag(tag(&format!("claim:{round}")));
    done(store.append(Append::to(&of, Expected::Any, [claimed]).unless(claim, Position::ZERO)).await);
    let again = append(Expected::Any).once(key(&format!("hot {round}")));
    assert!(done(store.append(again).await).duplicate);
    assert!(store.append(append(Expected::NoStream)).await.is_err());
    let head = read(store.head().await);
    let unless = append(Expected::Any).unless(Query::all(), head);
    done(store.append(unless).await);
    let caused = Query::predecessor(format!("message {round}"));
    done(store.append(append(Expected::Any).unless(caused, Position::ZERO)).await);
    let unless =
        append(Expected::Any).unless(Query::tags([tag(&format!("rare:{rare}"))]), Position::new(rare));
    done(store.append(unless).await);
}
