//! Clauses on reading the log: from any position, forward and backward, in pages, by every kind of query.

use annals_core::{
    Append, Direction, EventId, EventStore, Expected, LogPage, LogRead, Position, Query, QueryItem,
    RecordedEvent, StreamRead, Text, Version, Witness,
};

use crate::Trial;
use crate::given::{
    Store, category, event, event_type, events, log, new, one, race, read, some, stream, tag, with_data,
};

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

/// Reads a page and checks what holds for every page.
async fn page(store: &Store, request: LogRead) -> LogPage {
    let page = read(store.read_log(request.clone()).await);
    assert!(
        page.events.len() <= request.limit.max(1),
        "a page holds at most as many events as were asked for"
    );
    let is_meant = |event: &RecordedEvent| event.position() <= request.to && request.query.matches(event);
    assert!(page.events.iter().all(is_meant), "every event was meant");
    let in_order = |a: &RecordedEvent, b: &RecordedEvent| match request.direction {
        Direction::Forward => a.position() < b.position(),
        Direction::Backward => a.position() > b.position(),
    };
    assert!(page.events.is_sorted_by(in_order), "events stand in the direction of the read");
    assert!(page.end || page.next != request.from || page.head == Position::ZERO, "a page gets on: {page:?}");
    match request.direction {
        Direction::Forward => {
            let last = page.head.min(request.to);
            assert_eq!(
                page.end,
                page.next > last,
                "the end is where the next page is beyond the head or the bound"
            );
            assert!(page.next >= request.from, "forward goes up");
            assert!(page.events.iter().all(|e| e.position() >= request.from && e.position() < page.next));
        }
        Direction::Backward => {
            assert_eq!(page.end, page.next == Position::ZERO, "the end is where nothing is left");
            assert!(page.next <= request.from, "backward goes down");
            assert!(page.events.iter().all(|e| e.position() <= request.from && e.position() > page.next));
        }
    }
    page
}

/// Reads pages until the last one.
async fn pages(store: &Store, mut request: LogRead) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    loop {
        let page = page(store, request.clone()).await;
        events.extend(page.events);
        if page.end {
            return events;
        }
        request.from = page.next;
    }
}

fn request(direction: Direction, from: u64) -> LogRead {
    LogRead { direction, ..LogRead::forward(Position::new(from)) }
}

/// The expected result of a read, by the simplest filter.
fn naive(all: &[RecordedEvent], request: &LogRead) -> Vec<RecordedEvent> {
    let meant = |event: &&RecordedEvent| request.query.matches(event);
    match request.direction {
        Direction::Forward => {
            all.iter().filter(|event| event.position() >= request.from).filter(meant).cloned().collect()
        }
        Direction::Backward => {
            all.iter().rev().filter(|event| event.position() <= request.from).filter(meant).cloned().collect()
        }
    }
}

/// G8: an empty log is read as empty from anywhere, and its head is 0.
pub async fn an_empty_log_reads_as_empty(trial: &mut Trial) {
    let store = trial.store();
    assert_eq!(read(store.head().await), Position::ZERO);
    for direction in BOTH {
        for from in [0, 1, 5, u64::MAX] {
            let page = page(store, request(direction, from)).await;
            assert!(page.events.is_empty() && page.end);
            assert_eq!(page.head, Position::ZERO);
        }
    }
    let first = page(store, request(Direction::Forward, 0)).await;
    assert_eq!(first.next, Position::FIRST, "a read from 0 resumes at the first event");
}

/// G8: the log is read in the order of positions from any position, forward and backward, including 0 and
/// positions beyond the end.
pub async fn the_log_is_read_from_anywhere(trial: &mut Trial) {
    let store = trial.store();
    for number in 0..6 {
        new(store.append(some(&format!("a-{number}"), Expected::NoStream, 2)).await);
    }
    let all = log(store).await;
    assert_eq!(all.len(), 12);
    for direction in BOTH {
        for from in (0..=14).chain([u64::MAX - 1, u64::MAX]) {
            let request = request(direction, from);
            assert_eq!(
                pages(store, request.clone()).await,
                naive(&all, &request),
                "{direction:?} from {from}"
            );
        }
    }
}

/// G8: forward, the next page begins one beyond the last scanned position, also at the end of the log and
/// beyond it; backward it is 0 when nothing is left.
pub async fn a_page_says_where_the_next_begins(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 10)).await);
    for (direction, from, end) in [
        (Direction::Forward, 0, 11),
        (Direction::Forward, 1, 11),
        (Direction::Forward, 7, 11),
        (Direction::Forward, 11, 11),
        (Direction::Forward, 15, 15),
        (Direction::Forward, u64::MAX, u64::MAX),
        (Direction::Backward, u64::MAX, 0),
        (Direction::Backward, 10, 0),
        (Direction::Backward, 4, 0),
        (Direction::Backward, 0, 0),
    ] {
        for limit in [1, 3, 4, 10, 1_000] {
            let mut read = request(direction, from).limit(limit);
            loop {
                let page = page(store, read.clone()).await;
                assert_eq!(page.head, Position::new(10));
                // Every event matches, so the next page begins after the last event of this one, wherever it
                // was cut.
                let behind = page.events.last().map(|last| match direction {
                    Direction::Forward => last.position().next(),
                    Direction::Backward => last.position().previous(),
                });
                assert_eq!(page.next, behind.unwrap_or(Position::new(end)), "{read:?}");
                read.from = page.next;
                if page.end {
                    break;
                }
                assert!(!page.events.is_empty(), "{read:?}");
            }
            assert_eq!(read.from, Position::new(end));
        }
    }
}

/// G8: a read ends at its upper bound, in either direction, and reports that. With the head of its first page
/// as the bound, all pages together are the log at that moment.
pub async fn a_read_ends_at_its_upper_bound(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 6)).await);
    new(store.append(some("b-1", Expected::NoStream, 6)).await);
    let of_b = || Query::category(category("b"));
    let positions =
        |events: Vec<RecordedEvent>| events.iter().map(|event| event.position().get()).collect::<Vec<_>>();
    for (from, to, all, of_b_alone) in [
        (1, 8, 1..9, 7..9),
        (1, 6, 1..7, 7..7),
        (8, 8, 8..9, 8..9),
        (9, 8, 9..9, 9..9),
        (1, 0, 1..1, 1..1),
        (3, 12, 3..13, 7..13),
        (3, 99, 3..13, 7..13),
    ] {
        for limit in [1, 3, 1_000] {
            let forward = request(Direction::Forward, from).to(Position::new(to)).limit(limit);
            assert_eq!(positions(pages(store, forward.clone()).await), all.clone().collect::<Vec<_>>());
            let found = pages(store, forward.matching(of_b())).await;
            assert_eq!(positions(found), of_b_alone.clone().collect::<Vec<_>>());
            let backward = request(Direction::Backward, u64::MAX).to(Position::new(to)).limit(limit);
            let down: Vec<u64> = (1..=to.min(12)).rev().collect();
            assert_eq!(positions(pages(store, backward).await), down, "down from {to}");
        }
        let page = page(store, request(Direction::Forward, from).to(Position::new(to))).await;
        assert_eq!(page.head, Position::new(12), "the head is that of the log");
    }
    for (from, to, versions) in [(1, 4, 1..5), (3, 3, 3..4), (5, 4, 5..5), (2, 99, 2..7)] {
        for limit in [1, 2, 1_000] {
            let mut read =
                StreamRead::forward(stream("b-1"), Version::new(from)).to(Version::new(to)).limit(limit);
            let mut found = Vec::new();
            loop {
                let page = crate::given::read(store.read_stream(read.clone()).await);
                assert_eq!(page.version, Version::new(6), "the version is that of the stream");
                found.extend(page.events.iter().map(|event| event.version().get()));
                read.from = page.next;
                if page.end {
                    break;
                }
            }
            assert_eq!(found, versions.clone().collect::<Vec<_>>());
        }
        let mut backward = StreamRead::backward(stream("b-1"), Version::MAX).to(Version::new(to));
        let mut down = Vec::new();
        while backward.from > Version::ZERO {
            let page = crate::given::read(store.read_stream(backward.clone()).await);
            down.extend(page.events.iter().map(|event| event.version().get()));
            assert_eq!(page.end, page.next == Version::ZERO);
            backward.from = page.next;
        }
        assert_eq!(down, (1..=to.min(6)).rev().collect::<Vec<_>>());
    }
    let mut first = request(Direction::Forward, 1).limit(5);
    let page = page(store, first.clone()).await;
    new(store.append(some("c-1", Expected::NoStream, 9)).await);
    (first.from, first.to) = (page.next, page.head);
    let rest = pages(store, first).await;
    assert_eq!(positions(page.events.into_iter().chain(rest).collect()), (1..13).collect::<Vec<_>>());
}

/// G7: a page after an event is returned if the log has that event, and is then the same as without the
/// event.
pub async fn a_page_is_read_after_an_event_of_the_log_only(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 10)).await);
    let events = log(store).await;
    let mut places = vec![Witness::origin(store.id())];
    places.extend(events.iter().map(Witness::of));
    let other = event("nothing.happened").id;
    for (index, seen) in places.iter().copied().enumerate() {
        for query in [Query::all(), Query::types([event_type("nothing.happened")])] {
            for limit in [1, 100] {
                let wanted = LogRead::forward(seen.position.next()).matching(query.clone()).limit(limit);
                let without = read(store.read_log(wanted.clone()).await);
                let page = read(store.read_log_after(wanted.clone(), seen).await);
                assert_eq!(page.as_ref(), Some(&without), "after {seen}");
                // A witness of another history, or of another log.
                let lost = Witness { id: other, ..seen };
                assert_eq!(read(store.read_log_after(wanted.clone(), lost).await), None, "after {lost}");
                let lost = Witness { id: places[(index + 1) % places.len()].id, ..seen };
                assert_eq!(read(store.read_log_after(wanted, lost).await), None, "after {lost}");
            }
        }
    }
    let beyond = Witness { position: Position::new(11), id: other };
    let after = read(store.read_log_after(LogRead::forward(Position::new(12)), beyond).await);
    assert_eq!(after, None, "beyond the end");
}

/// G8: a read without matching events scans to the end, so that a reader that follows the log makes progress.
pub async fn a_page_without_events_still_gets_on(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 10)).await);
    let nothing = Query::types([event_type("nothing.happened")]);
    let mut forward = request(Direction::Forward, 1).matching(nothing.clone());
    loop {
        let page = page(store, forward.clone()).await;
        assert!(page.events.is_empty());
        forward.from = page.next;
        if page.end {
            break;
        }
    }
    assert_eq!(forward.from, Position::new(11));
    assert!(pages(store, request(Direction::Backward, u64::MAX).matching(nothing)).await.is_empty());
}

/// G8: a limit is kept; a limit of 0 is read as 1.
pub async fn a_limit_is_kept(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 9)).await);
    let all = log(store).await;
    for direction in BOTH {
        let from = if direction == Direction::Forward { 1 } else { u64::MAX };
        for limit in [0, 1, 2, 3, 4, 8, 9, 10, usize::MAX] {
            let request = request(direction, from).limit(limit);
            assert_eq!(pages(store, request.clone()).await, naive(&all, &request), "pages of {limit}");
            let first = page(store, request).await;
            assert!(!first.events.is_empty(), "a page with limit {limit} holds an event");
        }
    }
}

/// Writes events that differ in everything that a query can name.
async fn varied(store: &Store) {
    for number in 0..60_usize {
        let mut noted = event(["a.opened", "a.changed", "b.opened"][number % 3]);
        for (step, word) in ["red", "green", "blue"].iter().enumerate() {
            if number % (step + 2) == 0 {
                noted = noted.with_tag(tag(word));
            }
        }
        noted.metadata.process = (number % 4 != 0).then(|| Text::from(format!("process-{}", number % 5)));
        noted.metadata.initiator = (number % 3 != 0).then(|| Text::from(format!("user:{}", number % 2)));
        noted.metadata.predecessor = (number % 5 != 0).then(|| Text::from(format!("order:{}", number % 3)));
        if number % 10 == 9 {
            noted.id = EventId::from_name(b"shared");
            let name = format!("shared-{number}");
            new(store.append(one(&name, noted)).await);
            continue;
        }
        let name = format!("{}-{}", ["account", "order", "x"][number % 7 % 3], number % 4);
        new(store.append(one(&name, noted)).await);
    }
    new(store.append(one("account", event("a.opened"))).await);
}

/// Queries of every kind, alone and combined.
fn queries() -> Vec<Query> {
    let process = QueryItem { process: Some(Text::from("process-2")), ..QueryItem::default() };
    let initiator = QueryItem { initiator: Some(Text::from("user:1")), ..QueryItem::default() };
    let caused = QueryItem { predecessor: Some(Text::from("order:1")), ..initiator.clone() };
    let shared = QueryItem { id: Some(EventId::from_name(b"shared")), ..QueryItem::default() };
    let full = QueryItem {
        category: Some(category("order")),
        types: vec![event_type("a.changed"), event_type("b.opened")],
        tags: vec![tag("red")],
        ..initiator.clone()
    };
    let by_type = || Query::types([event_type("a.opened")]);
    let by_tags = || Query::tags([tag("red"), tag("green")]);
    vec![
        Query::all(),
        Query::item(QueryItem::default()),
        by_type(),
        Query::types([event_type("a.opened"), event_type("b.opened")]),
        Query::tags([tag("blue")]),
        by_tags(),
        Query::category(category("account")),
        Query::category(category("x")),
        Query::category(category("acc")),
        Query::item(process.clone()),
        Query::item(initiator.clone()),
        Query::item(full.clone()),
        Query { items: vec![full, process] },
        by_type().or(by_tags()).or(Query::category(category("x"))),
        by_type().or(by_type()),
        Query { items: vec![initiator, QueryItem::default()] },
        Query::predecessor("order:2"),
        Query::predecessor("order:9"),
        Query::item(caused.clone()),
        Query::item(shared.clone()),
        Query::item(QueryItem { tags: vec![tag("red")], ..shared.clone() }),
        Query::item(QueryItem { types: vec![event_type("a.opened")], ..shared.clone() }),
        Query { items: vec![caused, shared] },
        Query::id(EventId::from_name(b"unknown")),
        Query::types([event_type("nothing.happened")]),
    ]
}

/// G8: a read by category, type, tag, process, initiator, predecessor and id returns, forward and backward,
/// from any position and in pages of any size, the same events as a filter over the whole log.
pub async fn every_query_reads_what_a_filter_would(trial: &mut Trial) {
    let store = trial.store();
    varied(store).await;
    let all = log(store).await;
    for query in queries() {
        for direction in BOTH {
            for (from, limit) in [(0, 1_000), (1, 1), (17, 5), (40, 2), (61, 7), (u64::MAX, 3)] {
                let request = request(direction, from).matching(query.clone()).limit(limit);
                assert_eq!(pages(store, request.clone()).await, naive(&all, &request), "{request:#?}");
            }
        }
    }
}

/// G8: large events are read completely, in as many pages as the store needs.
pub async fn large_events_are_read_in_bounded_pages(trial: &mut Trial) {
    let store = trial.store();
    for number in 0..5_u8 {
        let blobs = (0..4).map(|part| with_data(vec![number * 4 + part; 1 << 20]));
        new(store.append(Append::to(stream(&format!("blob-{number}")), Expected::NoStream, blobs)).await);
    }
    for direction in BOTH {
        let from = if direction == Direction::Forward { 1 } else { u64::MAX };
        let events = pages(store, request(direction, from)).await;
        assert_eq!(events.len(), 20);
        for event in events {
            let number = u8::try_from(event.position().get() - 1).expect("few");
            assert!(event.data().len() == 1 << 20 && event.data().iter().all(|byte| *byte == number));
        }
    }
}

/// G8: concurrent appends do not affect a backward read in pages.
pub async fn pages_hold_while_others_write(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 50)).await);
    let before = log(store).await;
    race(2, |number| {
        let (store, before) = (store.clone(), before.clone());
        async move {
            if number == 0 {
                for _ in 0..40 {
                    new(store.append(Append::to(stream("b-1"), Expected::Any, events(3))).await);
                }
            } else {
                for _ in 0..10 {
                    let back = request(Direction::Backward, 50).limit(7);
                    assert_eq!(pages(&store, back.clone()).await, naive(&before, &back));
                    let from_newest = pages(&store, request(Direction::Backward, u64::MAX).limit(7)).await;
                    let down = from_newest.first().map_or(0, |event| event.position().get());
                    assert_eq!(from_newest.len() as u64, down, "every position down from the newest, once");
                }
            }
        }
    })
    .await;
}
