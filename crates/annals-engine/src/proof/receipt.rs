//! Receipts: proof for somebody without the store that an event is in the log, and where.
//!
//! A [`Head`] says what the whole log up to a position was; after one is published, no change before it goes unseen. A
//! [`Receipt`] leads from one event to a head: its append, the path in the tree of its segment, what is before the
//! segment and the roots of those after it. It grows with the number of segments, not of events.
//!
//! Next below: `digest` (how digests are made), `proof` (how far the log is digested already).

use std::fmt;

use annals_core::{Position, RecordedEvent, StoreId, Timestamp, Version};
use bytes::Bytes;

use super::digest::{self, Digest};
use super::{Proof, digests};
use crate::error::Fault;
use crate::log::frame::{EVENTS_MAX, Record};
use crate::log::segment::{End, Segment, walk};
use crate::read::view::View;

/// What the log up to a position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log.
    pub store: StoreId,
    /// Position of the last event of an append.
    pub position: Position,
    /// The digest of everything up to there.
    pub digest: Digest,
}

/// Proof that an event is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its position and version.
    pub position: Position,
    /// Its place in its stream.
    pub version: Version,
    /// Its body: what the writer gave, as it is stored in the log.
    pub body: Bytes,
    /// Position of the first event of its append.
    pub append: Position,
    /// Recorded time of the append.
    pub recorded_at: Timestamp,
    /// Digests of all events of the append.
    pub events: Vec<Digest>,
    /// Number of the append among those of its segment, from 0.
    pub leaf: u64,
    /// Appends of the segment.
    pub leaves: u64,
    /// The other sides of the tree, from the append up.
    pub path: Vec<Digest>,
    /// The digest of the log before the segment.
    pub before: Digest,
    /// The trees of the segments behind it, in order: how many appends, and the root.
    pub after: Vec<(u64, Digest)>,
    /// What it proves the event to be in.
    pub head: Head,
}

/// Why a receipt proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoProof {
    /// The event is not the one of the append that it should be.
    Event,
    /// The path does not fit the tree.
    Path,
    /// The digest that it leads to is not that of the head.
    Head,
    /// The head ends before the event.
    Position,
}

impl fmt::Display for NoProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "the event is not the one whose digest stands in the append",
            Self::Path => "the path does not fit the tree of the segment",
            Self::Head => "the digest that it leads to is not that of the head",
            Self::Position => "the head is of a log that ends before the event",
        })
    }
}

impl std::error::Error for NoProof {}

impl Receipt {
    /// Checks that the event is in the log that the head is of. Nothing else is needed: no store, and nobody's word
    /// but the head's.
    ///
    /// # Errors
    /// Why it does not follow.
    pub fn check(&self, head: &Head) -> Result<(), NoProof> {
        if self.position > head.position {
            return Err(NoProof::Position);
        }
        if self.append == Position::ZERO || self.version == Version::ZERO || self.events.len() > EVENTS_MAX {
            return Err(NoProof::Event);
        }
        let index =
            self.position.get().checked_sub(self.append.get()).and_then(|index| usize::try_from(index).ok());
        let named = index.and_then(|index| self.events.get(index)).ok_or(NoProof::Event)?;
        if digest::of_event(self.version, &self.body) != *named {
            return Err(NoProof::Event);
        }
        let leaf = digest::of_append(self.append, self.recorded_at, &self.events);
        let root = digest::root_by(leaf, self.leaf, self.leaves, &self.path).ok_or(NoProof::Path)?;
        let own = digest::chained(&self.before, &(self.leaves, root));
        let log = self.after.iter().fold(own, |before, tree| digest::chained(&before, tree));
        if log == head.digest { Ok(()) } else { Err(NoProof::Head) }
    }

    /// The event.
    ///
    /// # Errors
    /// `None` if the body cannot be that of an event.
    pub fn event(&self) -> Option<RecordedEvent> {
        let (position, version, append, recorded_at) =
            (self.position, self.version, self.append, self.recorded_at);
        let record = Record { position, version, append, recorded_at, body: &self.body, body_at: 0 };
        record.event(&self.body).ok()
    }
}

/// The head of the log up to this position, or of all of it.
pub fn head(view: &View, proof: Proof, until: Option<Position>) -> Result<Option<Head>, Fault> {
    let position = until.unwrap_or(view.head);
    if position > view.head {
        return Ok(None);
    }
    let begun = proof.next() == Position::FIRST;
    let mut proof = if proof.next() > position.next() { Proof::begin(proof.store()) } else { proof };
    while proof.next() <= position {
        let (segment, positions) = view.segment_of(proof.next());
        match proof.extend(segment, positions.end.min(position.next())) {
            // The stored digest itself may be wrong: compute it from the log.
            Err(Fault::Damaged { .. }) if !begun => return head(view, Proof::begin(proof.store()), until),
            extended => extended?,
        }
    }
    // An append that only begins before the position is whole in the digest.
    let whole = proof.next() == position.next();
    Ok(whole.then(|| Head { store: proof.store(), position, digest: proof.digest().log() }))
}

/// The receipt for an event of this log, up to this head; `None` if no append ends there.
pub fn receipt(
    view: &View,
    store: StoreId,
    event: &RecordedEvent,
    until: Position,
) -> Result<Option<Receipt>, Fault> {
    let mut proof = Proof::begin(store);
    let (segment, positions) = view.segment_of(event.position);
    while proof.next() < positions.start {
        let (segment, positions) = view.segment_of(proof.next());
        proof.extend(segment, positions.end)?;
    }
    let before = if proof.next() == Position::FIRST { [0; 32] } else { proof.digest().log() };
    let own = Leaves::of(segment, until, Some(event))?;
    let mut after = Vec::new();
    let mut next = own.next;
    while next <= until {
        let segment = view.segment_of(next).0;
        let leaves = Leaves::of(segment, until, None)?;
        if leaves.next == next {
            let problem = "there is no whole frame, and the log continues";
            return Err(Fault::damaged(&segment.name, 0, Some(next), problem));
        }
        after.push(digest::tree(&leaves.digests));
        next = leaves.next;
    }
    if next != until.next() {
        return Ok(None);
    }
    let number = own.number.ok_or_else(|| {
        let problem = "the event is not found in its segment by a walk from the beginning";
        Fault::damaged(&segment.name, 0, Some(event.position), problem)
    })?;
    let upto_own = digest::chained(&before, &digest::tree(&own.digests));
    let log = after.iter().fold(upto_own, |before, tree| digest::chained(&before, tree));
    Ok(Some(Receipt {
        position: event.position,
        version: event.version,
        body: own.body,
        append: event.append,
        recorded_at: event.recorded_at,
        events: own.events,
        leaf: number as u64,
        leaves: own.digests.len() as u64,
        path: digest::path(&own.digests, number),
        before,
        after,
        head: Head { store, position: until, digest: log },
    }))
}

/// The leaves of a segment, and what there is to know of the one with some event.
struct Leaves {
    digests: Vec<Digest>,
    /// Position behind the last one.
    next: Position,
    number: Option<usize>,
    events: Vec<Digest>,
    body: Bytes,
}

impl Leaves {
    /// Those up to a position, or to the end of the segment.
    fn of(segment: &Segment, until: Position, event: Option<&RecordedEvent>) -> Result<Self, Fault> {
        let from = End::start_of(&segment.header);
        let mut leaves = Self {
            digests: Vec::new(),
            next: from.next,
            number: None,
            events: Vec::new(),
            body: Bytes::new(),
        };
        let end = walk(&*segment.file, &segment.header, from, until.next(), |frame| {
            let (recorded_at, events) = digests(frame)?;
            let leaf = digest::of_append(frame.header.first, recorded_at, &events);
            if let Some(event) = event.filter(|event| event.append == frame.header.first) {
                frame.records(|_, record| {
                    if record.position == event.position {
                        leaves.body = Bytes::copy_from_slice(record.body);
                    }
                    Ok(())
                })?;
                (leaves.number, leaves.events) = (Some(leaves.digests.len()), events);
            }
            leaves.digests.push(leaf);
            Ok(())
        })?;
        leaves.next = end.next;
        Ok(leaves)
    }
}
