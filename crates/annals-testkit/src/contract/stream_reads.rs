//! Clauses on reading one stream, and on listing them.

use annals_core::{
    Direction, EventStore, EventStoreExt, Expected, Position, RecordedEvent, StreamId, StreamInfo,
    StreamList, StreamPage, StreamRead, Version,
};

use crate::Trial;
use crate::given::{Store, category, events_of, new, race, read, some, stream};

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

fn request(name: &str, direction: Direction, from: u64) -> StreamRead {
    StreamRead { direction, ..StreamRead::forward(stream(name), Version::new(from)) }
}

/// Reads a page and checks what holds for every page.
async fn page(store: &Store, request: StreamRead) -> StreamPage {
    let page = read(store.read_stream(request.clone()).await);
    assert!(
        page.events.len() <= request.limit.max(1),
        "a page holds at most as many events as were asked for"
    );
    assert!(page.events.iter().all(|event| event.stream() == request.stream), "every event is the stream's");
    for pair in page.events.windows(2) {
        let (a, b) = (pair[0].version(), pair[1].version());
        match request.direction {
            Direction::Forward => assert_eq!(b, a.next()),
            Direction::Backward => assert_eq!(a, b.next()),
        }
    }
    match request.direction {
        Direction::Forward => assert_eq!(page.end, page.next > page.version, "{page:?}"),
        Direction::Backward => assert_eq!(page.end, page.next == Version::ZERO, "{page:?}"),
    }
    page
}

async fn pages(store: &Store, mut request: StreamRead) -> Vec<RecordedEvent> {
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

/// Writes three streams with interleaved events.
async fn interleaved(store: &Store) {
    for _ in 0..6 {
        for (name, count) in [("a-1", 1), ("a-2", 2), ("b-1", 1)] {
            new(store.append(some(name, Expected::Any, count)).await);
        }
    }
}

/// G8: a stream is read in the order of versions from any version, forward and backward, including 0 and
/// versions beyond the end.
pub async fn a_stream_is_read_from_anywhere(trial: &mut Trial) {
    let store = trial.store();
    interleaved(store).await;
    let log = crate::given::log(store).await;
    for name in ["a-1", "a-2", "b-1"] {
        let all: Vec<_> = log.iter().filter(|event| event.stream() == stream(name)).cloned().collect();
        for from in (0..=14).chain([u64::MAX]) {
            let version = Version::new(from);
            for limit in [1, 2, 5, 1_000] {
                let forward = pages(store, request(name, Direction::Forward, from).limit(limit)).await;
                let expected: Vec<_> = all.iter().filter(|e| e.version() >= version).cloned().collect();
                assert_eq!(forward, expected, "{name} forward from {from} by {limit}");
                let backward = pages(store, request(name, Direction::Backward, from).limit(limit)).await;
                let expected: Vec<_> = all.iter().rev().filter(|e| e.version() <= version).cloned().collect();
                assert_eq!(backward, expected, "{name} backward from {from} by {limit}");
            }
        }
    }
}

/// G8: a stream that does not exist is read as empty, at version 0.
pub async fn a_stream_that_does_not_exist_reads_as_empty(trial: &mut Trial) {
    let store = trial.store();
    interleaved(store).await;
    for name in ["a-3", "a", "a-", "a-11", "b-1 ", "c-1"] {
        for direction in BOTH {
            for from in [0, 1, 2, u64::MAX] {
                let page = page(store, request(name, direction, from)).await;
                assert!(page.events.is_empty() && page.end);
                assert_eq!(page.version, Version::ZERO);
            }
        }
        assert_eq!(read(store.stream_version(&stream(name)).await), Version::ZERO);
        assert!(events_of(store, name).await.is_empty());
    }
}

/// G8: a page of a stream reports where the next begins, whether it is the last, and the stream's version.
pub async fn a_stream_page_says_where_the_next_begins(trial: &mut Trial) {
    let store = trial.store();
    interleaved(store).await;
    for (direction, from, end) in [
        (Direction::Forward, 0, 13),
        (Direction::Forward, 1, 13),
        (Direction::Forward, 9, 13),
        (Direction::Forward, 13, 13),
        (Direction::Forward, 20, 20),
        (Direction::Backward, u64::MAX, 0),
        (Direction::Backward, 5, 0),
        (Direction::Backward, 0, 0),
    ] {
        for limit in [0, 1, 3, 4, 100] {
            let mut read = request("a-2", direction, from).limit(limit);
            loop {
                let page = page(store, read.clone()).await;
                assert_eq!(page.version, Version::new(12));
                let behind = page.events.last().map(|last| match direction {
                    Direction::Forward => last.version().next(),
                    Direction::Backward => last.version().previous(),
                });
                assert_eq!(page.next, behind.unwrap_or(Version::new(end)), "{read:?}");
                read.from = page.next;
                if page.end {
                    break;
                }
                assert!(!page.events.is_empty(), "{read:?}");
            }
            assert_eq!(read.from, Version::new(end));
        }
    }
}

/// Names that are easily confused.
fn similar() -> Vec<String> {
    let long = "n".repeat(StreamId::BYTES_MAX - 1);
    let names =
        ["a", "a-", "a-1", "a-10", "a-1-0", "A-1", "a-1 ", " a-1", "a--1", "-a", "-", "é-1", "e\u{301}-1"];
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.extend(["계좌-1", "계좌", "🦀-1", "a%2D1", "a/1", "a\n1", "\u{feff}a-1"].map(str::to_owned));
    names.extend([format!("{long}x"), format!("{long}y"), long]);
    names
}

/// G8: names are compared in full, byte by byte: streams with similar names are different.
pub async fn similar_names_are_different_streams(trial: &mut Trial) {
    let store = trial.store();
    let names = similar();
    for (index, name) in names.iter().enumerate() {
        new(store.append(some(name, Expected::NoStream, index % 3 + 1)).await);
    }
    for (index, name) in names.iter().enumerate() {
        let events = events_of(store, name).await;
        assert_eq!(events.len(), index % 3 + 1, "the events of `{name}`");
        assert!(events.iter().all(|event| event.stream() == name));
    }
}

async fn list(store: &Store, mut list: StreamList) -> Vec<StreamInfo> {
    let mut streams: Vec<StreamInfo> = Vec::new();
    loop {
        let page = read(store.list_streams(list.clone()).await);
        assert!(page.len() <= list.limit.max(1));
        let Some(last) = page.last() else { return streams };
        list.after = Some(last.stream.clone());
        streams.extend(page);
    }
}

/// G8: streams are listed in the order of their names' bytes, each once, with its version and the position of
/// its newest event.
pub async fn streams_are_listed_in_order_with_version_and_position(trial: &mut Trial) {
    let store = trial.store();
    assert!(list(store, StreamList::default()).await.is_empty());
    let names = similar();
    for round in 0..2 {
        for (index, name) in names.iter().enumerate() {
            new(store.append(some(name, Expected::Any, (index + round) % 3 + 1)).await);
        }
    }
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let mut expected = Vec::new();
    for name in sorted {
        let last = events_of(store, name).await.pop().expect("the stream has events");
        expected.push(StreamInfo {
            stream: last.stream_id(),
            version: last.version(),
            position: last.position(),
        });
    }
    for limit in [0, 1, 2, 7, 1_000] {
        assert_eq!(list(store, StreamList { limit, ..StreamList::default() }).await, expected);
    }
}

/// G8: streams are listed by category, the part of the name before its first `-`.
pub async fn streams_are_listed_by_category(trial: &mut Trial) {
    let store = trial.store();
    for name in similar() {
        new(store.append(some(&name, Expected::Any, 1)).await);
    }
    let all = list(store, StreamList::default()).await;
    for name in ["a", "A", "계좌", "-a", "-", "é", "missing", "a-1"] {
        let expected: Vec<_> =
            all.iter().filter(|info| info.stream.category() == category(name)).cloned().collect();
        for limit in [1, 2, 1_000] {
            let by_category = StreamList { category: Some(category(name)), limit, ..StreamList::default() };
            assert_eq!(list(store, by_category).await, expected, "category `{name}` by {limit}");
        }
    }
}

/// G8: a list resumes after any name, even if no stream has it.
pub async fn a_list_resumes_after_any_name(trial: &mut Trial) {
    let store = trial.store();
    for name in ["b-1", "b-2", "d-1"] {
        new(store.append(some(name, Expected::NoStream, 1)).await);
    }
    for (after, expected) in [
        ("a", &["b-1", "b-2", "d-1"][..]),
        ("b-1", &["b-2", "d-1"]),
        ("b-10", &["b-2", "d-1"]),
        ("c", &["d-1"]),
        ("d-1", &[]),
        ("e", &[]),
    ] {
        let names: Vec<_> = list(store, StreamList { after: Some(stream(after)), ..StreamList::default() })
            .await
            .into_iter()
            .map(|info| info.stream)
            .collect();
        assert_eq!(names, expected.iter().map(|name| stream(name)).collect::<Vec<_>>(), "after `{after}`");
    }
}

/// G8: what a list reports about a stream is true at that time, while others write.
pub async fn the_list_is_true_while_others_write(trial: &mut Trial) {
    let store = trial.store();
    race(4, |writer| {
        let store = store.clone();
        async move {
            let name = format!("a-{writer}");
            for version in 1..=20_u64 {
                let done = new(store.append(some(&name, Expected::Any, 1)).await);
                let infos = list(&store, StreamList { limit: 2, ..StreamList::default() }).await;
                let mine = infos.iter().find(|info| info.stream == stream(&name)).expect("it is listed");
                assert_eq!((mine.version, mine.position), (Version::new(version), done.last));
                assert!(infos.iter().all(|info| info.position > Position::ZERO));
            }
        }
    })
    .await;
}
