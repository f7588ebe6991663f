//! Pages: which rows are read for one, and where the next one begins. The same for every database.

use annals_core::{
    Direction, Error, Location, LogPage, LogRead, Position, RecordedEvent, Result, StreamPage, StreamRead,
    Version,
};

/// A page is full once its events have this many bytes.
pub const PAGE_BYTES: i64 = 8 << 20;

/// The largest number that a column holds.
const MAX: u64 = i64::MAX as u64;

/// Positions of a read, first and last inclusive, and the most events.
pub fn log_span(read: &LogRead) -> (i64, i64, i64) {
    span(read.from.get(), read.to.get(), read.direction, read.limit)
}

/// Versions of a read, first and last inclusive, and the most events.
pub fn stream_span(read: &StreamRead) -> (i64, i64, i64) {
    span(read.from.get(), read.to.get(), read.direction, read.limit)
}

fn span(from: u64, to: u64, direction: Direction, limit: usize) -> (i64, i64, i64) {
    let (from, to) = (from.min(MAX) as i64, to.min(MAX) as i64);
    let limit = (limit.max(1) as u64).min(MAX) as i64;
    match direction {
        Direction::Forward => (from.max(1), to, limit),
        Direction::Backward => (1, from.min(to), limit),
    }
}

/// Makes a page of these events, in the direction of the read. `whole` is whether there are no more that
/// match.
///
/// # Errors
/// `Damaged` if events are missing among them: positions have no gaps.
pub fn log_page(read: &LogRead, events: Vec<RecordedEvent>, whole: bool, head: Position) -> Result<LogPage> {
    let end = head.min(read.to);
    if read.query.is_all() {
        let positions = events.iter().map(|event| event.position().get());
        if let Some(missing) = missing(read.from.get(), end.get(), read.direction, positions, whole) {
            let problem = format!("there is no event at position {missing}");
            return Err(damaged(Some(Position::new(missing)), problem));
        }
    }
    let last = events.last().map(|event| event.position()).filter(|_| !whole);
    let next = match (read.direction, last) {
        (Direction::Forward, Some(last)) => last.next(),
        (Direction::Forward, None) => read.from.max(end.next()),
        (Direction::Backward, Some(last)) => last.previous(),
        (Direction::Backward, None) => Position::ZERO,
    };
    let end = match read.direction {
        Direction::Forward => next > end,
        Direction::Backward => next == Position::ZERO,
    };
    Ok(LogPage { events, next, end, head })
}

/// Makes a page of these events of a stream, in the direction of the read. `whole` is whether there are no
/// more.
///
/// # Errors
/// `Damaged` if events are missing among them: versions have no gaps.
pub fn stream_page(
    read: &StreamRead,
    events: Vec<RecordedEvent>,
    whole: bool,
    version: Version,
) -> Result<StreamPage> {
    let end = version.min(read.to);
    let versions = events.iter().map(|event| event.version().get());
    if let Some(missing) = missing(read.from.get(), end.get(), read.direction, versions, whole) {
        let problem = format!("the stream `{}` has no event of version {missing}", read.stream);
        return Err(damaged(None, problem));
    }
    let last = events.last().map(|event| event.version()).filter(|_| !whole);
    let next = match (read.direction, last) {
        (Direction::Forward, Some(last)) => last.next(),
        (Direction::Forward, None) => read.from.max(end.next()),
        (Direction::Backward, Some(last)) => last.previous(),
        (Direction::Backward, None) => Version::ZERO,
    };
    let end = match read.direction {
        Direction::Forward => next > end,
        Direction::Backward => next == Version::ZERO,
    };
    Ok(StreamPage { events, next, end, version })
}

/// The first missing number in a read of a sequence from 1 to `end`.
fn missing(
    from: u64,
    end: u64,
    direction: Direction,
    found: impl Iterator<Item = u64>,
    whole: bool,
) -> Option<u64> {
    let forward = direction == Direction::Forward;
    let mut expected = if forward { from.max(1) } else { from.min(end) };
    for number in found {
        if number != expected {
            return Some(expected);
        }
        expected = if forward { expected + 1 } else { expected - 1 };
    }
    let is_over = if forward { expected > end } else { expected == 0 };
    (whole && !is_over).then_some(expected)
}

/// The tables contradict themselves.
pub fn damaged(position: Option<Position>, problem: String) -> Error {
    Error::Damaged {
        location: Location { file: "table events".to_owned(), offset: 0, position },
        cause: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_seen_in_both_directions_and_at_both_ends() {
        let forward =
            |from, found: &[u64], whole| missing(from, 5, Direction::Forward, found.iter().copied(), whole);
        let backward =
            |from, found: &[u64], whole| missing(from, 5, Direction::Backward, found.iter().copied(), whole);
        assert_eq!(forward(0, &[1, 2, 3, 4, 5], true), None);
        assert_eq!(forward(3, &[3, 4], false), None);
        assert_eq!(forward(6, &[], true), None);
        assert_eq!(
            forward(1, &[1, 2], true),
            Some(3),
            "fewer than there are, although the read has not stopped"
        );
        assert_eq!(forward(2, &[3], false), Some(2));
        assert_eq!(forward(1, &[1, 3], false), Some(2));
        assert_eq!(backward(u64::MAX, &[5, 4, 3, 2, 1], true), None);
        assert_eq!(backward(3, &[3], false), None);
        assert_eq!(backward(0, &[], true), None);
        assert_eq!(backward(4, &[4, 2], false), Some(3));
        assert_eq!(backward(4, &[4, 3], true), Some(2));
    }
}
