//! Stores, appends and what to expect of them.

use std::sync::Arc;

use annals_core::{
    Append, Appended, EventStoreExt, Expected, NewEvent, Position, Query, RecordedEvent, StreamId,
};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{EngineStore, Options};

pub fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

pub fn event(text: &str) -> NewEvent {
    NewEvent::new("thing.happened", format!("\"{text}\"")).unwrap()
}

/// Options under which a few dozen events fill a segment.
pub fn small_segments() -> Options {
    Options { segment_bytes: 4 << 10, ..Options::default() }
}

pub fn open(disk: &FaultyDisk, options: Options) -> annals_core::Result<EngineStore> {
    EngineStore::on(Arc::new(disk.clone()), options)
}

/// An append of `count` events whose texts tell where they belong.
pub fn append(name: &str, number: usize, count: usize) -> Append {
    let events = (0..count).map(|index| event(&format!("{name} {number}.{index}")));
    Append::to(stream(name), Expected::Any, events.collect::<Vec<_>>())
}

pub async fn all(store: &EngineStore) -> Vec<RecordedEvent> {
    store.log_events(Query::all()).await.unwrap()
}

/// Checks that the log holds these appends, in order, and after them at most whole others; and that every way to
/// read it agrees.
pub async fn check(store: &EngineStore, acknowledged: &[(Append, Appended)]) {
    let log = all(store).await;
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.position, Position::new(index as u64 + 1), "positions have no gaps");
    }
    for (append, outcome) in acknowledged {
        let from = outcome.first.get() as usize - 1;
        for (offset, write) in append.writes.iter().enumerate() {
            let found = log.get(from + offset).unwrap_or_else(|| {
                panic!("lost: position {} of {}, which was acknowledged", from + offset + 1, log.len())
            });
            assert_eq!((&found.stream, found.to_new()), (&write.stream, write.event.clone()));
            assert_eq!(found.append, outcome.first);
        }
    }
    for name in log.iter().map(|event| &event.stream).collect::<std::collections::BTreeSet<_>>() {
        let of_log: Vec<_> = log.iter().filter(|event| event.stream == *name).cloned().collect();
        assert_eq!(store.stream_events(name).await.unwrap(), of_log, "the stream {name} reads as in the log");
        for (index, event) in of_log.iter().enumerate() {
            assert_eq!(event.version.get(), index as u64 + 1, "versions of {name} have no gaps");
        }
    }
}
