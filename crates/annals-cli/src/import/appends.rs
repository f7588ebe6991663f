//! Reads the lines of an export as the appends from which they came.
//!
//! - A1  Lines are in the order of the log.
//! - A2  A line has the number of its event within the append and the size of the append. So a file that is
//!   truncated within an append is detected, and no append is imported without all of its events.
//! - A3  No line is missing between lines with these numbers: positions have no gaps; in an export of one
//!   stream, versions have none.
//! - A4  Lines of earlier versions do not have these numbers. Missing lines among them are detected only if
//!   the versions of a stream have a gap.

use std::collections::HashMap;
use std::io::Read;

use annals_core::{Append, Expected, Limits, Position, RecordedEvent, StreamId, Version, Write};
use annals_json::InAppend;

use super::BadLine;
use super::input::Lines;

/// The advice for a file that lacks lines.
const WITHOUT_NUMBERS: &str = "export again; lines that were left out on purpose are not missed if `append_event`, \
                               `append_events` and `one_stream` are taken out of all lines";

/// One append of the file.
#[derive(Clone)]
pub(super) struct Piece {
    /// Its first line.
    pub(super) line: u64,
    /// Its first position in the exported log.
    pub(super) first: Position,
    pub(super) append: Append,
    /// The version of each of its events.
    pub(super) versions: Vec<Version>,
    /// The stream and version of the last event before this append.
    pub(super) after: Option<(StreamId, Version)>,
    pub(super) bytes: usize,
    /// Whether its lines are marked as an export of the log, not of one stream.
    pub(super) of_log: bool,
}

/// Iterates over the appends of a file.
pub(super) struct Appends {
    lines: Lines,
    /// The first line of the next append.
    carried: Option<Line>,
    /// The last event of the previous append.
    last: Option<(StreamId, Version)>,
    /// The line that was read last.
    before: Option<Place>,
}

/// A line: an event, and its place in the append if the line has it.
struct Line {
    number: u64,
    event: RecordedEvent,
    place: Option<InAppend>,
}

/// The previous line, which the next one must follow.
struct Place {
    line: u64,
    stream: StreamId,
    version: Version,
    position: Position,
    append: Position,
    place: Option<InAppend>,
}

impl Appends {
    pub(super) fn of(reader: Box<dyn Read>) -> Self {
        Self { lines: Lines::new(reader), carried: None, last: None, before: None }
    }

    /// The next append; `None` at the end of the file.
    pub(super) fn next_append(&mut self) -> Result<Option<Piece>, BadLine> {
        let after = self.last.take();
        let first = match self.carried.take() {
            Some(first) => Some(first),
            None => self.next_line()?,
        };
        let Some(Line { number, event, place }) = first else { return Ok(None) };
        let limits = Limits::default();
        let mut bytes = event.data().len();
        let mut events = vec![event];
        while let Some(line) = self.next_line()? {
            if line.event.append() != events[0].append() {
                self.carried = Some(line);
                break;
            }
            bytes += line.event.data().len();
            if events.len() == limits.append_events_max || bytes > limits.append_bytes_max {
                let problem = format!(
                    "the append that begins here is larger than {} events or {} MiB",
                    limits.append_events_max,
                    limits.append_bytes_max >> 20
                );
                return Err(BadLine::new(number, problem));
            }
            events.push(line.event);
        }
        self.last = events.last().map(|event| (event.stream_id(), event.version()));
        let of_log = place.is_some_and(|place| !place.one_stream);
        piece(number, after, &events).map(|piece| Some(Piece { of_log, ..piece }))
    }

    /// The next line, after a check that it follows the previous one.
    fn next_line(&mut self) -> Result<Option<Line>, BadLine> {
        let Some((number, text)) = self.lines.next_line()? else {
            return self.before.as_ref().map_or(Ok(()), Place::may_be_last).map(|()| None);
        };
        let (event, place) = annals_json::parse_export_line(&text).map_err(|invalid| {
            let problem = format!(
                "is not a line of `annals export` ({invalid}); for other files give --stream and --type"
            );
            BadLine::new(number, problem)
        })?;
        let line = Line { number, event, place };
        follows(self.before.as_ref(), &line).map_err(|problem| BadLine::new(number, problem))?;
        self.before = Some(Place {
            line: number,
            stream: line.event.stream_id(),
            version: line.event.version(),
            position: line.event.position(),
            append: line.event.append(),
            place,
        });
        Ok(Some(line))
    }
}

impl Place {
    /// Refuses the end of the file here if the append has more events.
    fn may_be_last(&self) -> Result<(), BadLine> {
        match self.place {
            Some(InAppend { event, events, .. }) if event < events => {
                let problem = format!(
                    "the file ends within an append: this is event {event} of the {events} events of the append that \
                     begins at position {}, and the others are missing; {WITHOUT_NUMBERS}",
                    self.append
                );
                Err(BadLine::new(self.line, problem))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a line that cannot follow the previous one (A1, A2, A3).
fn follows(before: Option<&Place>, line: &Line) -> Result<(), String> {
    let Line { event, place, .. } = line;
    if event.append() > event.position() {
        return Err(format!(
            "its append begins at position {}, after its own position {}",
            event.append(),
            event.position()
        ));
    }
    let missing = |what: String| Err(format!("{what}: lines are missing before this one; {WITHOUT_NUMBERS}"));
    let first = place.map_or(1, |place| place.event);
    let Some(before) = before else {
        return match first {
            1 => Ok(()),
            _ => missing(format!("the file begins with event {first} of an append")),
        };
    };
    if event.position() <= before.position {
        let (position, before) = (event.position(), before.position);
        return Err(format!(
            "position {position} comes after position {before}; lines must be in the order of their positions"
        ));
    }
    let same_append = event.append() == before.append;
    match (before.place, *place) {
        (Some(was), Some(is)) if same_append && (is.event, is.events) != (was.event + 1, was.events) => {
            missing(format!(
                "event {} of {} of an append comes after event {} of {}",
                is.event, is.events, was.event, was.events
            ))
        }
        (Some(was), _) if !same_append && was.event < was.events => missing(format!(
            "the append before it has {} events, of which the last here is event {}",
            was.events, was.event
        )),
        (_, Some(is)) if !same_append && is.event > 1 => {
            missing(format!("the append that it is of begins with event {}", is.event))
        }
        (None, Some(_)) | (Some(_), None) if same_append => {
            Err("only some lines of this append say which of its events they are".to_owned())
        }
        (Some(was), Some(is))
            if !was.one_stream && !is.one_stream && event.position() != before.position.next() =>
        {
            missing(format!("position {} comes after position {}", event.position(), before.position))
        }
        (Some(was), Some(is))
            if was.one_stream
                && is.one_stream
                && event.stream() == before.stream
                && event.version() != before.version.next() =>
        {
            missing(format!(
                "version {} of `{}` comes after version {}",
                event.version(),
                event.stream(),
                before.version
            ))
        }
        _ => Ok(()),
    }
}

/// Rebuilds the append of these events.
fn piece(line: u64, after: Option<(StreamId, Version)>, events: &[RecordedEvent]) -> Result<Piece, BadLine> {
    let mut append = Append::new();
    append.recorded_at = Some(events[0].recorded_at());
    append.key = events[0].idempotency_key();
    let mut versions = HashMap::new();
    for event in events {
        let before = event.version().previous();
        if let Some(last) = versions.insert(event.stream_id(), event.version()) {
            if last != before {
                let problem = format!(
                    "in the append that begins here, `{}` jumps from version {last} to {}",
                    event.stream(),
                    event.version()
                );
                return Err(BadLine::new(line, problem));
            }
        } else {
            append = append.expecting(event.stream_id(), Expected::Exact(before));
        }
        append.writes.push(Write { stream: event.stream_id(), event: event.to_new() });
    }
    let bytes = events.iter().map(|event| event.data().len()).sum();
    let versions = events.iter().map(|event| event.version()).collect();
    Ok(Piece { line, first: events[0].position(), append, versions, after, bytes, of_log: false })
}
