//! The contract that every store keeps. The clauses G1 to G10 are in `docs/guarantees.md`.
//!
//! [`EventStore`] is the trait to implement, as small as possible; [`EventStoreExt`] adds methods for users.
//! A store that passes `annals-testkit` can replace any other.

use std::fmt;

use async_trait::async_trait;

use crate::{
    Append, Appended, Error, EventId, IdempotencyKey, Invalid, LogPage, LogRead, Position, Query,
    RecordedEvent, Result, StreamId, StreamInfo, StreamList, StreamPage, StreamRead, Timestamp, Version,
    Witness,
};

/// A log of events, with conditional appends and reads from any position.
///
/// All methods may be called concurrently from any number of tasks. A call that is dropped before it
/// completes leaves the store consistent; a dropped append may or may not be committed.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Identity of the log. Data derived from a log (a snapshot, a read model) is bound to it.
    fn id(&self) -> StoreId;

    /// Executes an append: all of it, durably, or nothing.
    ///
    /// - G1, G2: when this returns an outcome, every event of the append is durable; after a crash the log
    ///   has all of them or none.
    /// - G3: if a condition does not hold, nothing is written, and the error names every violated condition.
    /// - G4: the events get consecutive positions. Once position n has been read, no smaller one appears.
    /// - G5: if the log has the key, or the same events by id, already, the outcome is the original one,
    ///   marked as a duplicate, and the conditions are not checked again. If the append differs from the
    ///   original one, it is refused, unless [`Append::key_reuse`] requests the original outcome.
    ///
    /// # Errors
    /// Any [`Error`](crate::Error). Only after [`Indeterminate`](crate::Error::Indeterminate) may the events
    /// have been written.
    async fn append(&self, append: Append) -> Result<Appended>;

    /// Reads a page of the log.
    ///
    /// A page has at most `limit` events and a bounded number of bytes, but at least one event if a matching
    /// one exists, unless the store stopped scanning early, which it reports by `end: false`.
    async fn read_log(&self, read: LogRead) -> Result<LogPage>;

    /// Reads a page of the log, if the log has this event, or, at position 0, this identity. `None` if not:
    /// the events read before are lost, or a replica does not have them yet.
    ///
    /// The event need not be looked up at the same moment as the page: a lost event does not return, so if it
    /// exists after the page was read, the page is of a log that has it. A store that can do both at once
    /// saves a round trip.
    async fn read_log_after(&self, read: LogRead, seen: Witness) -> Result<Option<LogPage>> {
        let page = self.read_log(read).await?;
        Ok(seen.holds(self).await?.then_some(page))
    }

    /// Reads a page of one stream.
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage>;

    /// Lists streams in the order of their names' bytes.
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>>;

    /// The outcome of the append that had this key, marked as a duplicate; `None` if there was none.
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>>;

    /// Position of the newest readable event.
    async fn head(&self) -> Result<Position>;

    /// Waits until the head is beyond this position, and returns it.
    async fn wait(&self, after: Position) -> Result<Position>;
}

impl Witness {
    /// The witness of position 0: before the first event of a log.
    pub fn origin(log: StoreId) -> Self {
        Self { position: Position::ZERO, id: EventId::from_bytes(*log.as_bytes()) }
    }

    /// The witness at a position of this store. `None` beyond its head.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn at<S: EventStore + ?Sized>(store: &S, position: Position) -> Result<Option<Self>> {
        if position == Position::ZERO {
            return Ok(Some(Self::origin(store.id())));
        }
        // Backward: a replica that does not have this position yet would not answer a forward read.
        let read = LogRead::backward(position).limit(1);
        let found = store.read_log(read).await?.events.into_iter().find(|event| event.position() == position);
        Ok(found.as_ref().map(Self::of))
    }

    /// Whether the store still has this event at this position.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn holds<S: EventStore + ?Sized>(self, store: &S) -> Result<bool> {
        Ok(Self::at(store, self.position).await? == Some(self))
    }

    /// Checks that the store still has this event, and so everything that was read before it. For the end of
    /// a read of several pages that must be of one history.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it does not have it; otherwise those of the store's reads.
    pub async fn expect<S: EventStore + ?Sized>(self, store: &S) -> Result<()> {
        if self.holds(store).await? {
            return Ok(());
        }
        let lost =
            format!("the log has lost events while it was read: it no longer has {self}. Read it again");
        Err(Error::Unavailable(lost.into()))
    }
}

/// Methods that every store has beyond the contract.
#[async_trait]
pub trait EventStoreExt: EventStore {
    /// The version of a stream; 0 if it does not exist.
    async fn stream_version(&self, stream: &StreamId) -> Result<Version> {
        let newest = StreamRead::backward(stream, Version::MAX).limit(1);
        Ok(self.read_stream(newest).await?.version)
    }

    /// The newest event of a stream, or of the log with `None`. Returns `None` if there is no event.
    async fn newest_event(&self, stream: Option<&StreamId>) -> Result<Option<RecordedEvent>> {
        let mut events = match stream {
            Some(stream) => {
                self.read_stream(StreamRead::backward(stream, Version::MAX).limit(1)).await?.events
            }
            None => self.read_log(LogRead::backward(Position::MAX).limit(1)).await?.events,
        };
        Ok(events.pop())
    }

    /// All events of a stream, in order, as of one moment. They are held in memory: for long streams, read
    /// pages.
    ///
    /// # Errors
    /// Those of the store's reads; [`Error::Unavailable`](crate::Error::Unavailable) if the log loses events
    /// between the reads of two pages.
    async fn stream_events(&self, stream: &StreamId) -> Result<Vec<RecordedEvent>> {
        let mut read = StreamRead::forward(stream, Version::FIRST);
        let first = self.read_stream(read.clone()).await?;
        if first.end {
            return Ok(first.events);
        }
        let Some(newest) = self.newest_event(Some(stream)).await? else { return Ok(Vec::new()) };
        let mut events = Vec::new();
        read.to = newest.version();
        loop {
            let page = self.read_stream(read.clone()).await?;
            events.extend(page.events);
            if page.end {
                Witness::of(&newest).expect(self).await?;
                return Ok(events);
            }
            if page.next <= read.from {
                return Err(Error::Internal("the store answered a page that ends where it begins".into()));
            }
            read.from = page.next;
        }
    }

    /// All events that match a query, in order, as of one moment of the log. They are held in memory: for a
    /// long log, read pages.
    ///
    /// # Errors
    /// Those of [`stream_events`](Self::stream_events).
    async fn log_events(&self, query: Query) -> Result<Vec<RecordedEvent>> {
        let mut read = LogRead::forward(Position::FIRST).matching(query);
        let first = self.read_log(read.clone()).await?;
        if first.end {
            return Ok(first.events);
        }
        let Some(newest) = self.newest_event(None).await? else { return Ok(Vec::new()) };
        let mut events = Vec::new();
        read.to = newest.position();
        loop {
            let page = self.read_log(read.clone()).await?;
            events.extend(page.events);
            if page.end {
                Witness::of(&newest).expect(self).await?;
                return Ok(events);
            }
            if page.next <= read.from {
                return Err(Error::Internal("the store answered a page that ends where it begins".into()));
            }
            read.from = page.next;
        }
    }

    /// Position of the last event that was recorded at or before this time; 0 if there is none.
    ///
    /// Recorded times never decrease along the log (G4), so a time determines a position.
    async fn position_at(&self, time: Timestamp) -> Result<Position> {
        let (mut low, mut high) = (Position::ZERO, self.head().await?);
        // The event at `low` was recorded by then (or `low` is 0); events after `high` were not.
        while low < high {
            let middle = Position::new(low.get() + (high.get() - low.get()).div_ceil(2));
            let page = self.read_log(LogRead::forward(middle).limit(1)).await?;
            match page.events.first() {
                Some(event) if event.recorded_at() <= time => low = middle,
                _ => high = middle.previous(),
            }
        }
        Ok(low)
    }
}

impl<S: EventStore + ?Sized> EventStoreExt for S {}

#[async_trait]
impl<S: EventStore + ?Sized> EventStore for std::sync::Arc<S> {
    fn id(&self) -> StoreId {
        (**self).id()
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        (**self).append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        (**self).read_log(read).await
    }
    async fn read_log_after(&self, read: LogRead, seen: Witness) -> Result<Option<LogPage>> {
        (**self).read_log_after(read, seen).await
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        (**self).read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        (**self).list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        (**self).outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        (**self).head().await
    }
    async fn wait(&self, after: Position) -> Result<Position> {
        (**self).wait(after).await
    }
}

/// Identity of a log: a UUID generated when the log is created.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(uuid::Uuid);

impl StoreId {
    /// A new identity.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The identity with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the identity.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::str::FromStr for StoreId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        uuid::Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| Invalid::new("store", format!("`{text}` is not a UUID")))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
