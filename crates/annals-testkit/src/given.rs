//! Helpers for clauses: events to write, results to expect, a picture of a whole store.

use std::future::Future;
use std::sync::Arc;

use annals_core::{
    Append, Appended, Bytes, Category, Conflict, Error, EventId, EventStore, EventStoreExt, EventType,
    Expected, IdempotencyKey, Invalid, NewEvent, Position, Query, RecordedEvent, Result, StreamId,
    StreamInfo, StreamList, Tag, Version,
};
use tokio::sync::Barrier;

/// The store under test, as clauses pass it to their tasks.
pub(crate) type Store = Arc<dyn EventStore>;

pub(crate) fn stream(name: &str) -> StreamId {
    StreamId::new(name).expect("the clause gives a stream's name")
}

pub(crate) fn category(name: &str) -> Category {
    Category::new(name).expect("the clause gives a category")
}

pub(crate) fn event_type(name: &str) -> EventType {
    EventType::new(name).expect("the clause gives a type's name")
}

pub(crate) fn tag(name: &str) -> Tag {
    Tag::new(name).expect("the clause gives a tag")
}

pub(crate) fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(name).expect("the clause gives a key")
}

/// Exactly this version.
pub(crate) fn at(version: u64) -> Expected {
    Expected::Exact(Version::new(version))
}

/// An event of this type, with a new id.
pub(crate) fn event(event_type: &str) -> NewEvent {
    NewEvent::new(event_type, "{}").expect("the clause gives a type's name")
}

/// An event with this data.
pub(crate) fn with_data(data: impl Into<Bytes>) -> NewEvent {
    NewEvent::new("thing.noted", data).expect("the type's name is acceptable")
}

/// An event with the id for this name, always the same.
pub(crate) fn named(name: &str) -> NewEvent {
    with_data(format!("{{\"name\":\"{name}\"}}")).with_id(EventId::from_name(name.as_bytes()))
}

/// This many events, numbered from 1 in their data.
pub(crate) fn events(count: usize) -> Vec<NewEvent> {
    (1..=count).map(|number| with_data(number.to_string())).collect()
}

/// An append of this many events to one stream.
pub(crate) fn some(name: &str, expected: Expected, count: usize) -> Append {
    Append::to(stream(name), expected, events(count))
}

/// An append of one event to one stream, at any version.
pub(crate) fn one(name: &str, event: NewEvent) -> Append {
    Append::to(stream(name), Expected::Any, [event])
}

/// The outcome of an append that must be committed, now or before.
#[track_caller]
pub(crate) fn done(answer: Result<Appended>) -> Appended {
    match answer {
        Ok(appended) => appended,
        Err(error) => panic!("the append should be committed, the answer is: {}", error.chain()),
    }
}

/// The outcome of an append that must be committed now, not before.
#[track_caller]
pub(crate) fn new(answer: Result<Appended>) -> Appended {
    let appended = done(answer);
    assert!(!appended.duplicate, "the append should be new, the answer is {appended:?}");
    appended
}

/// The conflict of an append that must be refused.
#[track_caller]
pub(crate) fn refused(answer: Result<Appended>) -> Conflict {
    match answer {
        Err(Error::Conflict(conflict)) => {
            assert!(!conflict.violations.is_empty(), "a conflict names at least one violated condition");
            *conflict
        }
        Err(error) => panic!("the append should be refused as a conflict, not with: {}", error.chain()),
        Ok(appended) => {
            panic!("the append should be refused as a conflict, it was committed: {appended:?}")
        }
    }
}

/// The error of a call that must be refused as invalid.
#[track_caller]
pub(crate) fn invalid<T: std::fmt::Debug>(answer: Result<T>) -> Invalid {
    match answer {
        Err(Error::Invalid(invalid)) => invalid,
        Err(error) => panic!("the append should be refused as invalid, not with: {}", error.chain()),
        Ok(appended) => panic!("the append should be refused as invalid, it was committed: {appended:?}"),
    }
}

/// The result of a read, which must succeed.
#[track_caller]
pub(crate) fn read<T>(answer: Result<T>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("the read should succeed, the answer is: {}", error.chain()),
    }
}

/// The whole log.
pub(crate) async fn log(store: &Store) -> Vec<RecordedEvent> {
    read(store.log_events(Query::all()).await)
}

/// The whole of one stream.
pub(crate) async fn events_of(store: &Store, name: &str) -> Vec<RecordedEvent> {
    read(store.stream_events(&stream(name)).await)
}

/// The visible state of a store: a refused append must not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) events: Vec<RecordedEvent>,
    pub(crate) streams: Vec<StreamInfo>,
    pub(crate) head: Position,
}

impl Picture {
    pub(crate) async fn of(store: &Store) -> Self {
        let (mut streams, mut list) = (Vec::new(), StreamList::default());
        loop {
            let page = read(store.list_streams(list.clone()).await);
            let Some(last) = page.last() else { break };
            list.after = Some(last.stream.clone());
            streams.extend(page);
        }
        Self { events: log(store).await, streams, head: read(store.head().await) }
    }
}

/// Runs this many tasks concurrently, all released at the same moment, and returns their results in order.
pub(crate) async fn race<T, F>(count: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let start = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (start, work) = (Arc::clone(&start), task(number));
            tokio::spawn(async move {
                start.wait().await;
                work.await
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(count);
    for task in tasks {
        answers.push(joined(task).await);
    }
    answers
}

/// The result of a task; its panic is propagated.
pub(crate) async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a task of the clause was ended from outside: {error}"),
        },
    }
}
