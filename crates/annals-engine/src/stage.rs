//! Judgement and staging: the writer's view of the log, with everything that is staged in it.
//!
//! What is staged stands in the active segment's index, where readers do not see it yet; so an append is judged
//! against what will be there when its turn comes. The judgement itself is `annals_core::admit`, the same for
//! every store. Next above: `commit`.

use std::collections::HashMap;

use annals_core::{
    Admission, Append, Direction, Error, EventId, IdempotencyKey, LogView, Position, Query, RecordedEvent,
    StreamId, Timestamp, Version, admit,
};
use quick_cache::sync::Cache;

use crate::commit::{Outcome, Writer};
use crate::error::Fault;
use crate::frame::{Encoded, Placement};
use crate::index::{Kind, Offset, search};
use crate::log::View;

/// Versions of streams that were looked up in sealed segments lately; 0 for those that are in none.
pub struct Heads(Cache<StreamId, Version>);

impl Heads {
    /// Room for that many streams.
    pub fn new(streams: usize) -> Self {
        Self(Cache::new(streams))
    }

    /// Forgets all: when the active segment is sealed, what was right without it no longer is.
    pub fn clear(&self) {
        self.0.clear();
    }
}

/// The log as the next append meets it.
pub struct Stage<'a> {
    writer: &'a Writer,
    view: View,
}

impl<'a> Stage<'a> {
    /// The log with all that is staged.
    pub fn of(writer: &'a Writer) -> Self {
        let mut view = writer.log.view();
        view.head = Position::MAX;
        Self { writer, view }
    }

    /// What becomes of the append; nothing if it is to be written.
    pub fn judge(&self, append: &Append) -> Result<Option<Outcome>, Error> {
        Ok(match admit(self, append)? {
            Admission::Write => None,
            Admission::Keyed(first) => Some(Outcome::Keyed(first)),
            Admission::Repeated(first) => Some(Outcome::Repeated(first)),
            Admission::Refuse(violated) => Some(Outcome::Refused(violated)),
            Admission::Invalid(invalid) => Some(Outcome::Invalid(invalid)),
        })
    }

    /// The version that each event of the append gets.
    pub fn versions(&self, append: &Append) -> Result<Vec<Version>, Fault> {
        let mut newest: HashMap<&StreamId, Version> = HashMap::new();
        let mut versions = Vec::with_capacity(append.writes.len());
        for write in &append.writes {
            let version = match newest.get(&write.stream) {
                Some(version) => version.next(),
                None => self.stream_version(&write.stream)?.next(),
            };
            newest.insert(&write.stream, version);
            versions.push(version);
        }
        Ok(versions)
    }

    /// Segments before the active one, newest first.
    fn sealed(&self) -> impl Iterator<Item = &crate::segment::Segment> {
        self.view.segments.iter().rev().skip(1).map(AsRef::as_ref)
    }

    fn active_position(&self, place: u32) -> Position {
        self.writer.active.base.plus(u64::from(place))
    }
}

/// Stages the append: its frame goes to the group, its events to the index.
pub fn write(
    writer: &mut Writer,
    append: Append,
    mut encoded: Encoded,
    versions: Vec<Version>,
    now: Timestamp,
    frames: &mut Vec<u8>,
) -> Outcome {
    let recorded_at = append.recorded_at.unwrap_or(now).min(now).max(writer.tail.recorded_at);
    let first = writer.tail.next;
    let placement = Placement {
        first,
        versions: &versions,
        recorded_at,
        durable: writer.durable,
        chain: writer.tail.chain,
        salt: writer.active.salt,
    };
    let before = frames.len();
    writer.tail.chain = encoded.place(&placement, frames);
    let start = writer.tail.byte;
    let mut index = writer.active.index.write();
    let mut key = append.key;
    for ((write, version), offset) in append.writes.into_iter().zip(&versions).zip(encoded.record_offsets()) {
        let at = Offset::new(start + offset as u64, writer.tail.next == first);
        let position = writer.tail.next;
        let (event, stream) = (write.event, write.stream);
        let recorded =
            RecordedEvent::record(event, stream, position, *version, first, recorded_at, key.take());
        index.insert(&recorded, at);
        writer.tail.next = position.next();
    }
    writer.tail.recorded_at = recorded_at;
    writer.tail.byte = start + (frames.len() - before) as u64;
    Outcome::Written(first, recorded_at, versions)
}

impl LogView for Stage<'_> {
    type Error = Fault;

    fn stream_version(&self, stream: &StreamId) -> Result<Version, Fault> {
        if let Some(version) = self.writer.active.index.read().stream_version(stream) {
            return Ok(version);
        }
        if let Some(version) = self.writer.heads.0.get(stream) {
            return Ok(version);
        }
        let mut version = Version::ZERO;
        for segment in self.sealed() {
            if let Some(postings) = segment.index.find(Kind::Stream, stream.as_str())? {
                version = Version::new(postings.first_version + u64::from(postings.count) - 1);
                break;
            }
        }
        // A copy of the name: the one at hand may be a slice of something large.
        let name = StreamId::new(stream.as_str()).expect("a name stays a name");
        self.writer.heads.0.insert(name, version);
        Ok(version)
    }

    fn append_with_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, Fault> {
        if let Some(place) = self.writer.active.index.read().key(key.as_str()) {
            return Ok(Some(self.active_position(place)));
        }
        for segment in self.sealed() {
            if let Some(position) = keyed_in(segment, key)? {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    fn event_with_id(&self, stream: &StreamId, id: EventId) -> Result<Option<Position>, Fault> {
        if let Some(place) = self.writer.active.index.read().place_of(stream, id) {
            return Ok(Some(self.active_position(place)));
        }
        for segment in self.sealed() {
            for place in segment.index.with_id(id)? {
                let event = &segment.events(&[place], 1)?[0];
                if event.id == id && event.stream == *stream {
                    return Ok(Some(event.position));
                }
            }
        }
        Ok(None)
    }

    fn event_at(&self, position: Position) -> Result<Option<(StreamId, Version, EventId)>, Fault> {
        if position >= self.writer.tail.next {
            return Ok(None);
        }
        let segment = &self.view.segments[self.view.segment_of(position)];
        let place = (position.get() - segment.base.get()) as u32;
        if segment.base == self.writer.active.base {
            return Ok(self.writer.active.index.read().identity(place));
        }
        let event = segment.events(&[place], 1)?.remove(0);
        Ok(Some((event.stream, event.version, event.id)))
    }

    fn first_match(&self, query: &Query, after: Position) -> Result<Option<Position>, Fault> {
        let mut from = after.next();
        while from < self.writer.tail.next {
            if query.is_all() {
                return Ok(Some(from));
            }
            let segment = &self.view.segments[self.view.segment_of(from)];
            let place = (from.get() - segment.base.get()) as u32;
            let range = place..segment.index.count();
            let (found, looked) = search(&*segment.index, query, range, Direction::Forward, 1)?;
            if let Some(&place) = found.first() {
                return Ok(Some(segment.position(place)));
            }
            from = segment.position(looked);
        }
        Ok(None)
    }
}

/// Position of the first event of the append in this segment that had this key.
pub fn keyed_in(segment: &crate::segment::Segment, key: &IdempotencyKey) -> Result<Option<Position>, Fault> {
    let Some(postings) = segment.index.find(Kind::Key, key.as_str())? else { return Ok(None) };
    let place = segment.index.ranked(&postings, 0..1)?;
    Ok(place.first().map(|&place| segment.position(place)))
}
