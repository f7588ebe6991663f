//! Requests to read a store, and the pages that it returns.
//!
//! A read returns one page, which is a bounded amount of work. To read further, the caller sends the next
//! request from the position that the page gives. A subscription is such a series of reads
//! (`annals-consume`), so there is no seam between stored and live events.

use crate::limits::QuerySize;
use crate::{Category, Invalid, Limits, Position, Query, RecordedEvent, StreamId, Version};

/// The direction of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From old to new.
    #[default]
    Forward,
    /// From new to old.
    Backward,
}

/// A read of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// The first position, inclusive: [`Position::FIRST`] for the oldest event, [`Position::MAX`] with
    /// [`Direction::Backward`] for the newest.
    pub from: Position,
    /// The last position, inclusive, in either direction: [`Position::MAX`] for no bound. With the head of
    /// the first page as the bound, all pages together are the log at that moment, even if it grows
    /// meanwhile. A lagging replica does not end such a read before its bound.
    pub to: Position,
    /// The direction.
    pub direction: Direction,
    /// The events to return; others are skipped.
    pub query: Query,
    /// At most this many events in a page; at least 1.
    pub limit: usize,
}

impl LogRead {
    /// Every event from this position on, in order.
    pub fn forward(from: Position) -> Self {
        let to = Position::MAX;
        Self { from, to, direction: Direction::Forward, query: Query::all(), limit: 1_000 }
    }

    /// Every event from this position down, newest first.
    pub fn backward(from: Position) -> Self {
        Self { direction: Direction::Backward, ..Self::forward(from) }
    }

    /// Ends the read at this position.
    #[must_use]
    pub fn to(mut self, last: Position) -> Self {
        self.to = last;
        self
    }

    /// Only the events that match the query.
    #[must_use]
    pub fn matching(mut self, query: Query) -> Self {
        self.query = query;
        self
    }

    /// At most this many events in a page.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Checks that the query is within the limits.
    ///
    /// # Errors
    /// [`Invalid`], naming the field and the limit.
    pub fn validate(&self, limits: &Limits) -> Result<(), Invalid> {
        limits.check_query("query", &self.query, &mut QuerySize::default())
    }
}

/// A page of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// The matching events, in the direction of the read. May be empty although more follow.
    pub events: Vec<RecordedEvent>,
    /// Where the next page begins. Forward it is one beyond the last scanned position, also at the end of the
    /// read; backward it is 0 when nothing is left.
    pub next: Position,
    /// Whether this page reaches the end of the read: the end of the log, or [`LogRead::to`]; backward, the
    /// beginning of the log.
    pub end: bool,
    /// Position of the log's newest event when the page was read.
    pub head: Position,
}

/// A read of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRead {
    /// The stream. One that does not exist is read as empty.
    pub stream: StreamId,
    /// The first version, inclusive: [`Version::FIRST`] for the oldest event, [`Version::MAX`] with
    /// [`Direction::Backward`] for the newest.
    pub from: Version,
    /// The last version, inclusive, in either direction: [`Version::MAX`] for no bound.
    pub to: Version,
    /// The direction.
    pub direction: Direction,
    /// At most this many events in a page; at least 1.
    pub limit: usize,
}

impl StreamRead {
    /// The stream's events from this version on, in order.
    pub fn forward(stream: impl Into<StreamId>, from: Version) -> Self {
        let to = Version::MAX;
        Self { stream: stream.into(), from, to, direction: Direction::Forward, limit: 1_000 }
    }

    /// The stream's events from this version down, newest first.
    pub fn backward(stream: impl Into<StreamId>, from: Version) -> Self {
        Self { direction: Direction::Backward, ..Self::forward(stream, from) }
    }

    /// Ends the read at this version.
    #[must_use]
    pub fn to(mut self, last: Version) -> Self {
        self.to = last;
        self
    }

    /// At most this many events in a page.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// A page of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPage {
    /// The events, in the direction of the read.
    pub events: Vec<RecordedEvent>,
    /// Where the next page begins. Forward it is one beyond the last event of the page; backward it is 0
    /// when nothing is left.
    pub next: Version,
    /// Whether this page reaches the end of the read: the end of the stream, or [`StreamRead::to`]; backward,
    /// the beginning of the stream.
    pub end: bool,
    /// Version of the stream when the page was read; 0 if there is no such stream.
    pub version: Version,
}

/// A request for the names of streams, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamList {
    /// Only streams of this category.
    pub category: Option<Category>,
    /// Only streams whose names are greater than this one: the last of the previous page.
    pub after: Option<StreamId>,
    /// At most this many streams; at least 1.
    pub limit: usize,
}

impl Default for StreamList {
    fn default() -> Self {
        Self { category: None, after: None, limit: 1_000 }
    }
}

/// A stream and the version and position of its newest event (Eventuate's `entities` row).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The stream.
    pub stream: StreamId,
    /// Version of its newest event.
    pub version: Version,
    /// Position of its newest event.
    pub position: Position,
}
