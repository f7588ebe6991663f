//! Decision and staging: the writer's view of the log, including staged events.
//!
//! Staged events are in the newest run's index, where readers do not see them yet; so an append is decided on
//! the log as it will be when the append is written. The decision itself is `annals_core::admit`, which all
//! stores use. Next above: `writer`, which owns the `staging` that it works on.

use annals_core::{
    Admission, Append, Direction, Error, EventId, IdempotencyKey, LogView, Position, Query, StoreId,
    StreamId, Timestamp, Version, admit,
};
use hashbrown::HashTable;

use super::outcome::Outcome;
use super::staging::Staging;
use crate::error::Fault;
use crate::index::{Offset, is_by_hash, search};
use crate::log::frame::{Encoded, Placement};
use crate::log::segment::link;
use crate::log::terms::{IdentityHashes, Kind, id_hash};
use crate::read::fetch;
use crate::read::keyed;
use crate::read::view::{RunIndex, View};
use annals_core::body::Body;

fn stream_hash(stream: &StreamId) -> u64 {
    Kind::Stream.hash(stream.as_str().as_bytes())
}

/// The log on which the next append is decided.
pub struct Stage<'a> {
    staging: &'a Staging,
    view: View,
}

impl<'a> Stage<'a> {
    /// The log including staged events.
    pub fn of(staging: &'a Staging) -> Self {
        Self { staging, view: staging.log.view_of_staged() }
    }

    /// The verdict, if the append needs no write; `None` if it must be staged.
    pub fn decide(&self, append: &Append) -> Result<Option<Outcome>, Error> {
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
        // The latest event of each stream, by the hash of its name. The previous event, usually of the same
        // stream, is not in it.
        let mut newest: HashTable<usize> = HashTable::new();
        let hash = |index: usize| stream_hash(&append.writes[index].stream);
        let mut versions: Vec<Version> = Vec::with_capacity(append.writes.len());
        for (index, write) in append.writes.iter().enumerate() {
            let stream = &write.stream;
            if index > 0 && append.writes[index - 1].stream == *stream {
                versions.push(versions[index - 1].next());
                continue;
            }
            if index > 0 {
                let of_before =
                    |&other: &usize| append.writes[other].stream == append.writes[index - 1].stream;
                match newest.find_mut(hash(index - 1), of_before) {
                    Some(newest) => *newest = index - 1,
                    None => drop(newest.insert_unique(hash(index - 1), index - 1, |&other| hash(other))),
                }
            }
            versions.push(match newest.find(hash(index), |&other| append.writes[other].stream == *stream) {
                Some(&before) => versions[before].next(),
                None => self.stream_version(stream)?.next(),
            });
        }
        Ok(versions)
    }
}

/// Stages the append: adds its frame to the group and its events to the index.
pub fn write(
    staging: &mut Staging,
    append: &Append,
    encoded: &Encoded,
    versions: Vec<Version>,
    recorded_at: Timestamp,
    frames: &mut Vec<u8>,
) -> Outcome {
    let first = staging.tail.next;
    let placement = Placement {
        origin: staging.active.segment.origin,
        first,
        versions: &versions,
        recorded_at,
        durable: staging.log.head(),
    };
    let before = frames.len();
    let start = staging.tail.byte;
    let crc = {
        let mut index = staging.active.index.write();
        let mut next = 0;
        encoded.place(&placement, frames, |record| {
            let offset = Offset::new(start + record.at as u64, next == 0);
            let write = &append.writes[next];
            if record.is_alike {
                index.insert_alike(write.event.id, record.hashes[0], offset);
            } else {
                let body = Body::read(record.body).expect("what was encoded is read");
                index.insert(&body, record.hashes, versions[next], offset);
            }
            next += 1;
            if append.writes.get(next).is_none_or(|next| next.stream != write.stream) {
                staging.heads.set(&write.stream, versions[next - 1]);
            }
        })
    };
    let tail = &mut staging.tail;
    tail.next = first.plus(versions.len() as u64);
    tail.recorded_at = recorded_at;
    tail.link = link(tail.link, crc);
    tail.frame = (start, crc);
    tail.byte = start + (frames.len() - before) as u64;
    Outcome::Written(first, recorded_at, versions)
}

impl LogView for Stage<'_> {
    type Error = Fault;

    fn id(&self) -> StoreId {
        self.staging.log.id
    }

    fn stream_version(&self, stream: &StreamId) -> Result<Version, Fault> {
        if let Some(version) = self.staging.heads.get(stream) {
            return Ok(version);
        }
        let (name, hash) = (stream.as_str().as_bytes(), stream_hash(stream));
        let mut version = Version::ZERO;
        for run in self.view.runs_back(hash) {
            if let Some(postings) = run.index().find(Kind::Stream, name, hash)? {
                version = Version::new(postings.first_version + u64::from(postings.count) - 1);
                break;
            }
        }
        self.staging.heads.set(stream, version);
        Ok(version)
    }

    fn append_with_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, Fault> {
        let hash = Kind::Key.hash(key.as_str().as_bytes());
        for run in self.view.runs_back(hash) {
            if let Some(first) = keyed(run, key, hash)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    fn event_with_id(&self, stream: &StreamId, id: EventId) -> Result<Option<Position>, Fault> {
        let name = stream.as_str().as_bytes();
        let hashes = IdentityHashes { id: id_hash(id), stream: stream_hash(stream) };
        // A new id that begins with a timestamp is outside the range of the older runs.
        let runs = if self.staging.older_ids.may_have(id) { usize::MAX } else { 1 };
        for run in self.view.runs().iter().rev().take(runs) {
            for place in run.index().with_id(name, id, hashes)? {
                let is_it = match &run.index {
                    RunIndex::Memory(_) => true,
                    RunIndex::File(_) => {
                        let event = fetch::event(&self.view, run, place)?;
                        event.stream() == *stream && event.id() == id
                    }
                };
                if is_it {
                    return Ok(Some(run.position(place)));
                }
            }
        }
        Ok(None)
    }

    fn event_at(&self, position: Position) -> Result<Option<(StreamId, Version, EventId)>, Fault> {
        if position >= self.staging.tail.next {
            return Ok(None);
        }
        let run = self.view.run_of(position);
        let place = (position.get() - run.base.get()) as u32;
        match &run.index {
            RunIndex::Memory(index) => Ok(index.read().identity(place)),
            RunIndex::File(_) => {
                let event = fetch::event(&self.view, run, place)?;
                Ok(Some((event.stream_id(), event.version(), event.id())))
            }
        }
    }

    fn first_match(&self, query: &Query, after: Position) -> Result<Option<Position>, Fault> {
        let mut from = after.next();
        self.view.bring_near(query, from, Direction::Forward);
        while from < self.staging.tail.next {
            if query.is_all() {
                return Ok(Some(from));
            }
            let run = self.view.run_of(from);
            let place = (from.get() - run.base.get()) as u32;
            let range = place..run.index().count();
            let (found, looked) = search(run.index(), query, range, Direction::Forward, 1)?;
            let Some(&place) = found.first() else {
                from = run.position(looked);
                continue;
            };
            let is_meant = match &run.index {
                RunIndex::File(_) if is_by_hash(query) => {
                    query.matches(&fetch::event(&self.view, run, place)?)
                }
                _ => true,
            };
            if is_meant {
                return Ok(Some(run.position(place)));
            }
            from = run.position(place).next();
        }
        Ok(None)
    }
}
