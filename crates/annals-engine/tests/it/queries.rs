//! Reads, compared with those of the store in memory: any query, from anywhere, in either direction, in pages
//! of any size, over many segments and over one, sealed or being written.

use annals_core::{
    Append, Category, Direction, EventId, EventStore, EventType, Expected, LogRead, MemoryStore, Position,
    Query, QueryItem, StreamInfo, StreamList, StreamRead, Tag, Version,
};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{EngineStore, Options};

use crate::common::{Random, event, open, stream};

const NAMES: [&str; 8] = ["a", "a-", "a-1", "a-2", "a,x", "a.x", "-b", "ab-1"];

fn any_append(random: &mut Random, number: usize, rare: bool) -> Append {
    let mut append = Append::new();
    for index in 0..1 + random.below(6) {
        let mut event = event(&"y".repeat(random.below(40) as usize));
        event.event_type = EventType::new(["t.one", "t.two", "t.three"][random.below(3) as usize]).unwrap();
        for tag in 0..random.below(3) {
            event = event.with_tag(Tag::new(format!("tag:{tag}")).unwrap());
        }
        if rare {
            event = event.with_tag(Tag::new("rare").unwrap());
        }
        if random.below(4) == 0 {
            event.metadata.process = Some("p".into());
        }
        if random.below(3) == 0 {
            event.metadata.predecessor = Some(format!("message {}", random.below(4)).into());
        }
        let mut name = NAMES[random.below(NAMES.len() as u64) as usize];
        if index == 0 {
            // Each such id is that of an event in every stream.
            name = NAMES[number % NAMES.len()];
            event.id = shared_id(number / NAMES.len());
        }
        append = append.and_to(stream(name), Expected::Any, [event]);
    }
    append
}

fn shared_id(number: usize) -> EventId {
    EventId::from_name(&number.to_le_bytes())
}

fn any_query(random: &mut Random) -> Query {
    let item = |random: &mut Random| {
        let mut item = QueryItem::default();
        let one = random.below(8);
        if one == 0 {
            item.category = Some(Category::new(["a", "-b", "ab", "none"][random.below(4) as usize]).unwrap());
        }
        if one < 3 {
            let types = ["t.one", "t.two", "none"].into_iter().take(1 + random.below(3) as usize);
            item.types = types.map(|name| EventType::new(name).unwrap()).collect();
        }
        if one == 6 {
            item.predecessor = Some(format!("message {}", random.below(5)).into());
        }
        if one == 7 {
            item.id = Some(shared_id(random.below(12) as usize));
        }
        if (3..6).contains(&one) || one > 5 && random.below(2) == 0 {
            let tags = ["tag:0", "tag:1", "rare"].into_iter().skip(random.below(3) as usize);
            item.tags = tags.take(1 + random.below(2) as usize).map(|name| Tag::new(name).unwrap()).collect();
        }
        if one == 5 {
            item.process = Some("p".into());
        }
        item
    };
    Query { items: (0..random.below(3)).map(|_| item(random)).collect() }
}

/// All pages of a read, and what each says beside its events.
async fn log_pages(store: &dyn EventStore, read: &LogRead) -> Vec<Position> {
    let mut read = read.clone();
    let mut positions = Vec::new();
    loop {
        let page = store.read_log(read.clone()).await.unwrap();
        assert!(page.events.len() <= read.limit.max(1));
        assert!(page.events.iter().all(|event| read.query.matches(event)));
        positions.extend(page.events.iter().map(|event| event.position()));
        if page.end {
            return positions;
        }
        assert_ne!(page.next, read.from, "a page advances");
        read.from = page.next;
    }
}

async fn compare(store: &EngineStore, memory: &MemoryStore, random: &mut Random, reads: usize) {
    let head = memory.head().await.unwrap().get();
    for _ in 0..reads {
        let direction = if random.below(2) == 0 { Direction::Forward } else { Direction::Backward };
        let limit = [1, 2, 7, 1_000, usize::MAX][random.below(5) as usize];
        let query = any_query(random);
        // Few events a page are asked for near an end, so that there are not thousands of pages.
        let near = if limit < 10 { random.below(60) } else { random.below(head + 3) };
        let from = if direction == Direction::Forward { (head + 3).saturating_sub(near) } else { near };
        let from = if random.below(9) == 0 && limit > 10 { u64::MAX } else { from };
        let read =
            LogRead { direction, ..LogRead::forward(Position::new(from)).matching(query).limit(limit) };
        assert_eq!(log_pages(store, &read).await, log_pages(memory, &read).await, "{read:?}");
        let name = stream(NAMES[random.below(NAMES.len() as u64) as usize]);
        let from = Version::new(random.below(head / 4 + 2));
        let read = StreamRead { direction, ..StreamRead::forward(name, from).limit(limit) };
        let (ours, theirs) = (store.read_stream(read.clone()).await, memory.read_stream(read.clone()).await);
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        let ids =
            |events: &[annals_core::RecordedEvent]| events.iter().map(|event| event.id()).collect::<Vec<_>>();
        assert_eq!(ids(&ours.events), ids(&theirs.events), "{read:?}");
        assert_eq!(
            (ours.next, ours.end, ours.version),
            (theirs.next, theirs.end, theirs.version),
            "{read:?}"
        );
    }
    for category in [None, Some("a"), Some("-b"), Some("ab"), Some("none")] {
        for limit in [1, 2, 3, 100] {
            let mut list = StreamList {
                category: category.map(|name| Category::new(name).unwrap()),
                after: None,
                limit,
            };
            loop {
                let infos = store.list_streams(list.clone()).await.unwrap();
                assert_eq!(
                    infos,
                    memory.list_streams(list.clone()).await.unwrap() as Vec<StreamInfo>,
                    "{list:?}"
                );
                let Some(last) = infos.last() else { break };
                list.after = Some(last.stream.clone());
            }
        }
    }
}

async fn fill(store: &EngineStore, memory: &MemoryStore, random: &mut Random, appends: usize) {
    // Ids are used in each stream once: these are none of an earlier call.
    let first = (memory.head().await.unwrap().get() as usize).next_multiple_of(NAMES.len());
    for number in first..first + appends {
        let append = any_append(random, number, (number - first).is_multiple_of(97));
        store.append(append.clone()).await.unwrap();
        memory.append(append).await.unwrap();
    }
}

/// G8: over many segments.
#[tokio::test]
async fn reads_over_many_segments_agree_with_memory() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let disk = FaultyDisk::new();
        let options = Options { segment_bytes: 300 << random.below(6), ..Options::default() };
        let memory = MemoryStore::new();
        let store = open(&disk, options.clone()).unwrap();
        fill(&store, &memory, &mut random, 150).await;
        compare(&store, &memory, &mut random, 60).await;
        drop(store);
        let store = open(&disk, options).unwrap();
        compare(&store, &memory, &mut random, 60).await;
    }
}

/// G8: over one segment whose terms have more places than are looked at in one step.
#[tokio::test]
async fn reads_over_long_lists_agree_with_memory() {
    let mut random = Random::new(7);
    let disk = FaultyDisk::new();
    let memory = MemoryStore::new();
    let store = open(&disk, Options::default()).unwrap();
    fill(&store, &memory, &mut random, 5_500).await;
    compare(&store, &memory, &mut random, 25).await;
    drop(store);
    // The next append begins another segment, so that this one is sealed.
    let store = open(&disk, Options { segment_bytes: 1 << 10, ..Options::default() }).unwrap();
    fill(&store, &memory, &mut random, 1).await;
    drop(store);
    let store = open(&disk, Options::default()).unwrap();
    compare(&store, &memory, &mut random, 25).await;
}

/// A page is bounded whatever its limit is, also if its events have no data.
#[tokio::test]
async fn pages_of_empty_events_are_bounded() {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    let nothing = || annals_core::NewEvent::new("t.one", "").unwrap();
    let append = Append::to(stream("a-1"), Expected::Any, (0..60_000).map(|_| nothing()));
    store.append(append).await.unwrap();
    let page = store.read_log(LogRead::forward(Position::FIRST).limit(usize::MAX)).await.unwrap();
    assert!(!page.end && page.events.len() < 60_000, "{} events in one page", page.events.len());
    let read = StreamRead::forward(stream("a-1"), Version::FIRST).limit(usize::MAX);
    assert!(!store.read_stream(read).await.unwrap().end);
}
