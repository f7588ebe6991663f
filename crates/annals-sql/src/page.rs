//! Pages: which rows are read for one, and what it says about the next. The same for every database.

use annals_core::{Direction, LogPage, LogRead, Position, RecordedEvent, StreamPage, StreamRead, Version};

/// A page holds no more events once those in it have this many bytes.
pub const PAGE_BYTES: i64 = 8 << 20;

/// The largest number that a column holds.
const MAX: u64 = i64::MAX as u64;

/// Positions of a read, first and last inclusive, and the most events.
pub fn log_span(read: &LogRead) -> (i64, i64, i64) {
    span(read.from.get(), read.direction, read.limit)
}

/// Versions of a read, first and last inclusive, and the most events.
pub fn stream_span(read: &StreamRead) -> (i64, i64, i64) {
    span(read.from.get(), read.direction, read.limit)
}

fn span(from: u64, direction: Direction, limit: usize) -> (i64, i64, i64) {
    let (from, limit) = (from.min(MAX) as i64, (limit.max(1) as u64).min(MAX) as i64);
    match direction {
        Direction::Forward => (from.max(1), i64::MAX, limit),
        Direction::Backward => (1, from, limit),
    }
}

/// The page that these events are, in the direction of the read; `whole` says that no more are meant.
pub fn log_page(read: &LogRead, events: Vec<RecordedEvent>, whole: bool, head: Position) -> LogPage {
    let last = events.last().map(|event| event.position).filter(|_| !whole);
    let next = match (read.direction, last) {
        (Direction::Forward, Some(last)) => last.next(),
        (Direction::Forward, None) => read.from.max(head.next()),
        (Direction::Backward, Some(last)) => last.previous(),
        (Direction::Backward, None) => Position::ZERO,
    };
    let end = match read.direction {
        Direction::Forward => next > head,
        Direction::Backward => next == Position::ZERO,
    };
    LogPage { events, next, end, head }
}

/// The page that these events of a stream are, in the direction of the read; `whole` says that there are no more.
pub fn stream_page(
    read: &StreamRead,
    events: Vec<RecordedEvent>,
    whole: bool,
    version: Version,
) -> StreamPage {
    let last = events.last().map(|event| event.version).filter(|_| !whole);
    let next = match (read.direction, last) {
        (Direction::Forward, Some(last)) => last.next(),
        (Direction::Forward, None) => read.from.max(version.next()),
        (Direction::Backward, Some(last)) => last.previous(),
        (Direction::Backward, None) => Version::ZERO,
    };
    let end = match read.direction {
        Direction::Forward => next > version,
        Direction::Backward => next == Version::ZERO,
    };
    StreamPage { events, next, end, version }
}
