//! Clauses on finding an event without its position: by its id, and by its predecessor.

use annals_core::{
    Append, Direction, EventId, EventStore as _, Expected, LogRead, NewEvent, Position, Query, QueryItem,
    Text,
};

use super::queries::{found, violated};
use crate::Trial;
use crate::given::{event, new, one, read, some, stream};

fn caused_by(predecessor: &str) -> NewEvent {
    let mut event = event("order.paid");
    event.metadata.predecessor = Some(Text::from(predecessor));
    event
}

fn with_id(id: EventId) -> NewEvent {
    NewEvent { id, ..event("order.placed") }
}

/// G8: an id is unique in a stream, so it finds its event in each stream that has one, in the order of
/// positions; an unknown id finds nothing.
pub async fn an_id_finds_its_event_in_every_stream(trial: &mut Trial) {
    let store = trial.store();
    let (shared, alone) = (EventId::generate(), EventId::generate());
    new(store.append(some("a-1", Expected::NoStream, 1)).await);
    for name in ["c-1", "b-1", "a-1"] {
        new(store.append(one(name, with_id(shared))).await);
        new(store.append(some(name, Expected::Any, 1)).await);
    }
    new(store.append(one("b-1", with_id(alone))).await);
    assert_eq!(found(store, Query::id(shared)).await, [2, 4, 6]);
    assert_eq!(found(store, Query::id(alone)).await, [8]);
    for unknown in [EventId::generate(), EventId::from_bytes([0; 16]), EventId::from_bytes([255; 16])] {
        assert!(found(store, Query::id(unknown)).await.is_empty());
    }
    let either = Query::id(alone).or(Query::id(shared));
    let back = LogRead::backward(Position::new(5)).matching(either).limit(1);
    let mut positions = Vec::new();
    let mut next = back.clone();
    loop {
        let page = read(store.read_log(next.clone()).await);
        assert!(page.events.len() <= 1);
        positions.extend(page.events.iter().map(|event| event.position().get()));
        if page.end {
            break;
        }
        next.from = page.next;
    }
    assert_eq!(positions, [4, 2], "newest first, from where the read begins");
    let in_category =
        QueryItem { category: Some(stream("b-1").category()), id: Some(shared), ..QueryItem::default() };
    assert_eq!(found(store, Query::item(in_category)).await, [4], "what an item names is and-ed");
}

/// G8: ids that differ in any single bit identify different events.
pub async fn ids_are_compared_whole(trial: &mut Trial) {
    let store = trial.store();
    let id = EventId::from_bytes([0x5a; 16]);
    let others: Vec<EventId> = (0..16)
        .map(|byte| {
            let mut bytes = [0x5a; 16];
            bytes[byte] ^= 1 << (byte % 8);
            EventId::from_bytes(bytes)
        })
        .collect();
    new(store.append(one("a-1", with_id(id))).await);
    for other in &others {
        assert!(found(store, Query::id(*other)).await.is_empty(), "{other}");
    }
    let probes = read(store.head().await).get();
    let all = others.iter().map(|other| with_id(*other));
    new(store.append(Append::to(stream("b-1"), Expected::NoStream, all)).await);
    assert_eq!(found(store, Query::id(id)).await, [1]);
    for (number, other) in (1..).zip(&others) {
        assert_eq!(found(store, Query::id(*other)).await, [probes + number], "{other}");
    }
}

/// G8: events are found by the name of their predecessor, in full and byte by byte, in every stream.
pub async fn a_predecessor_finds_what_it_caused(trial: &mut Trial) {
    let store = trial.store();
    let cause = event("order.placed");
    let id = cause.id.to_string();
    new(store.append(one("order-1", cause)).await);
    for (name, predecessor) in [("payment-1", id.as_str()), ("parcel-1", "message 7"), ("letter-1", &id)] {
        new(store.append(one(name, caused_by(predecessor))).await);
    }
    assert_eq!(found(store, Query::predecessor(id.as_str())).await, [2, 4]);
    assert_eq!(found(store, Query::predecessor("message 7")).await, [3]);
    for other in [&id[1..], &id[..35], &id.to_uppercase(), "message 7 ", "message", "Message 7"] {
        assert!(found(store, Query::predecessor(other)).await.is_empty(), "`{other}`");
    }
}

/// G8: of many events with one predecessor a page contains no more than the limit, and the pages together
/// contain all of them.
pub async fn what_one_event_caused_is_read_in_bounded_pages(trial: &mut Trial) {
    const MANY: usize = 2_500;
    let store = trial.store();
    for batch in 0..5 {
        let caused = (0..MANY / 5).map(|_| caused_by("the migration"));
        new(store.append(Append::to(stream(&format!("row-{batch}")), Expected::NoStream, caused)).await);
        new(store.append(some("other", Expected::Any, 1)).await);
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let mut next = match direction {
            Direction::Forward => LogRead::forward(Position::FIRST),
            Direction::Backward => LogRead::backward(Position::MAX),
        };
        next = next.matching(Query::predecessor("the migration")).limit(700);
        let mut positions = Vec::new();
        loop {
            let page = read(store.read_log(next.clone()).await);
            assert!(page.events.len() <= 700, "a page of {} events", page.events.len());
            positions.extend(page.events.iter().map(|event| event.position().get()));
            if page.end {
                break;
            }
            next.from = page.next;
        }
        if direction == Direction::Backward {
            positions.reverse();
        }
        let of_batch = |batch: u64| batch * 501 + 1..=batch * 501 + 500;
        assert_eq!(positions, (0..5).flat_map(of_batch).collect::<Vec<_>>());
    }
}

/// G3: the query of a condition may name the id and the predecessor: "nothing has been caused by this yet".
pub async fn no_match_by_id_and_predecessor(trial: &mut Trial) {
    let store = trial.store();
    let id = EventId::generate();
    assert_eq!(violated(store, Query::predecessor("message 7"), 0).await, None);
    let first = new(store.append(one("a-1", caused_by("message 7"))).await).first;
    let second = new(store.append(one("b-1", with_id(id))).await).first;
    assert_eq!(violated(store, Query::predecessor("message 7"), 0).await, Some(first));
    assert_eq!(violated(store, Query::predecessor("message 7"), first.get()).await, None);
    assert_eq!(violated(store, Query::id(id), first.get()).await, Some(second));
    assert_eq!(violated(store, Query::id(id), second.get()).await, None);
    let both = QueryItem { id: Some(id), predecessor: Some(Text::from("message 7")), ..QueryItem::default() };
    assert_eq!(violated(store, Query::item(both), 0).await, None, "what an item names is and-ed");
}
