//! Receipts: a proof that an event is in the log at its position, which can be checked without the store.
//!
//! A [`Head`] is the digest of the log up to a position; after one is published, any change before it is
//! detectable. A [`Receipt`] links one event to a head: it has the event's append, the path in the tree of
//! its segment, the digest before the segment, and the roots of the segments after it. Its size grows with
//! the number of segments, not of events.
//!
//! Next below: `digest` (the definition of the digests), `proof` (how far the log is digested).

use std::fmt;

use annals_core::{Position, RecordedEvent, StoreId, Timestamp, Version};
use bytes::Bytes;

use super::digest::{self, Digest};
use super::{Proof, digests};
use crate::error::Fault;
use crate::log::frame::{EVENTS_MAX, Record};
use crate::log::segment::{End, Segment, walk};
use crate::read::view::View;

/// The digest of the log up to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Identity of the log.
    pub store: StoreId,
    /// Position of the last event of an append.
    pub position: Position,
    /// The digest of the log up to this position.
    pub digest: Digest,
}

/// Proof that an event is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its position in the log.
    pub position: Position,
    /// Its version in its stream.
    pub version: Version,
    /// Its body: the event as the caller gave it, as encoded in the log.
    pub body: Bytes,
    /// Position of the first event of its append.
    pub append: Position,
    /// Recorded time of the append.
    pub recorded_at: Timestamp,
    /// Digests of all events of the append.
    pub events: Vec<Digest>,
    /// Number of the append among those of its segment, from 0.
    pub leaf: u64,
    /// Number of appends of the segment.
    pub leaves: u64,
    /// The audit path in the tree of the segment, from the append up.
    pub path: Vec<Digest>,
    /// The digest of the log before the segment.
    pub before: Digest,
    /// The trees of the later segments, in order: the number of appends, and the root.
    pub after: Vec<(u64, Digest)>,
    /// The head of the log that contains the event.
    pub head: Head,
}

/// The reason why a receipt is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoProof {
    /// The body does not have the digest in the append.
    Event,
    /// The path does not fit the size of the tree.
    Path,
    /// The computed digest is not that of the head.
    Head,
    /// The head ends before the event.
    Position,
}

impl fmt::Display for NoProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "the event does not have the digest in the append",
            Self::Path => "the path does not fit the tree of the segment",
            Self::Head => "the digest that it leads to is not that of the head",
            Self::Position => "the head is of a log that ends before the event",
        })
    }
}

impl std::error::Error for NoProof {}

impl Receipt {
    /// Checks that the event is in the log of this head. Only the head must be trusted; no store is needed.
    ///
    /// # Errors
    /// The first check that fails.
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

    /// The event; `None` if the body cannot be decoded.
    pub fn event(&self) -> Option<RecordedEvent> {
        let (position, version, append, recorded_at) =
            (self.position, self.version, self.append, self.recorded_at);
        let record = Record { position, version, append, recorded_at, body: &self.body, body_at: 0 };
        record.event(&self.body).ok()
    }
}

/// The head of the log up to this position, or of the whole log; `None` if no append ends at the position.
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
            // The stored digest itself may be wrong: compute it again from the log.
            Err(Fault::Damaged { .. }) if !begun => return head(view, Proof::begin(proof.store()), until),
            extended => extended?,
        }
    }
    // An append that ends after the position is in the digest as a whole, so there is no digest for the
    // position.
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
    let (segment, positions) = view.segment_of(event.position());
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
        Fault::damaged(&segment.name, 0, Some(event.position()), problem)
    })?;
    let upto_own = digest::chained(&before, &digest::tree(&own.digests));
    let log = after.iter().fold(upto_own, |before, tree| digest::chained(&before, tree));
    Ok(Some(Receipt {
        position: event.position(),
        version: event.version(),
        body: own.body,
        append: event.append(),
        recorded_at: event.recorded_at(),
        events: own.events,
        leaf: number as u64,
        leaves: own.digests.len() as u64,
        path: digest::path(&own.digests, number),
        before,
        after,
        head: Head { store, position: until, digest: log },
    }))
}

/// The leaves of a segment, and the data for the receipt of one event.
struct Leaves {
    digests: Vec<Digest>,
    /// The position after the last append.
    next: Position,
    number: Option<usize>,
    events: Vec<Digest>,
    body: Bytes,
}

impl Leaves {
    /// The leaves up to a position or the end of the segment, with the data for the receipt of `event`.
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
            if let Some(event) = event.filter(|event| event.append() == frame.header.first) {
                frame.records(|_, record| {
                    if record.position == event.position() {
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
