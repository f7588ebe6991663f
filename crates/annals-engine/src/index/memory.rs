//! The index of the segment that is being written, in memory.
//!
//! The writer inserts events as it stages them, before they are durable; readers look only below the published
//! head. So what is staged is judged against (two appends of one group conflict) and never shown (G4).
//!
//! Next: `build` turns it into a file when the segment is sealed.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, Range};

use annals_core::{EventId, RecordedEvent, StreamId, Version};
use parking_lot::RwLock;

use super::{Kind, Offset, Postings, SegmentIndex, Source, terms_of};
use crate::error::Fault;

/// The index of a segment in memory.
#[derive(Default)]
pub struct MemoryIndex {
    offsets: Vec<Offset>,
    /// The stream (by number of its term) and id of each event.
    identities: Vec<(u32, EventId)>,
    numbers: HashMap<Box<[u8]>, u32>,
    terms: Vec<Term>,
    /// Terms of streams in order, for listing.
    streams: BTreeSet<Box<[u8]>>,
    ids: HashMap<EventId, Vec<u32>>,
}

struct Term {
    name: Box<[u8]>,
    first_version: u64,
    places: Vec<u32>,
}

impl MemoryIndex {
    /// Adds the next event.
    pub fn insert(&mut self, event: &RecordedEvent, offset: Offset) {
        let place = u32::try_from(self.offsets.len()).expect("a segment has fewer events than bytes");
        self.offsets.push(offset);
        let mut stream = 0;
        terms_of(event, |kind, name| {
            let number = self.number(kind, name);
            if kind == Kind::Stream {
                stream = number;
                let term = &mut self.terms[number as usize];
                if term.places.is_empty() {
                    term.first_version = event.version.get();
                }
            }
            self.terms[number as usize].places.push(place);
        });
        self.identities.push((stream, event.id));
        self.ids.entry(event.id).or_default().push(place);
    }

    fn number(&mut self, kind: Kind, name: &str) -> u32 {
        let term = kind.term(name);
        if let Some(&number) = self.numbers.get(&term[..]) {
            return number;
        }
        let number = u32::try_from(self.terms.len()).expect("a segment has fewer terms than bytes");
        let name: Box<[u8]> = term.into();
        if kind == Kind::Stream {
            self.streams.insert(name.clone());
        }
        self.numbers.insert(name.clone(), number);
        self.terms.push(Term { name, first_version: 0, places: Vec::new() });
        number
    }

    /// How many events there are, staged ones among them.
    pub fn count(&self) -> u32 {
        self.offsets.len() as u32
    }

    /// Version of a stream with all that is staged, if it has an event here.
    pub fn stream_version(&self, stream: &StreamId) -> Option<Version> {
        let number = *self.numbers.get(&Kind::Stream.term(stream.as_str())[..])?;
        let term = &self.terms[number as usize];
        Some(Version::new(term.first_version + term.places.len() as u64 - 1))
    }

    /// Place of the first event of the append with this key.
    pub fn key(&self, key: &str) -> Option<u32> {
        let number = *self.numbers.get(&Kind::Key.term(key)[..])?;
        self.terms[number as usize].places.first().copied()
    }

    /// Place of the event with this id in this stream.
    pub fn place_of(&self, stream: &StreamId, id: EventId) -> Option<u32> {
        let places = self.ids.get(&id)?;
        let number = *self.numbers.get(&Kind::Stream.term(stream.as_str())[..])?;
        places.iter().copied().find(|&place| self.identities[place as usize].0 == number)
    }

    /// Stream, version and id of the event at this place.
    pub fn identity(&self, place: u32) -> Option<(StreamId, Version, EventId)> {
        let &(number, id) = self.identities.get(place as usize)?;
        let term = &self.terms[number as usize];
        let rank = term.places.binary_search(&place).expect("an event is among those of its stream");
        let name = std::str::from_utf8(&term.name[1..]).expect("names are UTF-8");
        let stream = StreamId::new(name).expect("only names that were accepted are indexed");
        Some((stream, Version::new(term.first_version + rank as u64), id))
    }

    pub(super) fn all_offsets(&self) -> &[Offset] {
        &self.offsets
    }

    pub(super) fn all_ids(&self) -> impl Iterator<Item = (u32, EventId)> + '_ {
        self.identities.iter().enumerate().map(|(place, &(_, id))| (place as u32, id))
    }

    /// Every term with its first version and its places, in the order of the terms' bytes.
    pub(super) fn sorted_terms(&self) -> Vec<(&[u8], u64, &[u32])> {
        let mut terms: Vec<_> =
            self.terms.iter().map(|term| (&term.name[..], term.first_version, &term.places[..])).collect();
        terms.sort_unstable_by_key(|(name, ..)| *name);
        terms
    }

    fn postings(&self, number: u32) -> Postings {
        let term = &self.terms[number as usize];
        let source = Source::Memory(number as usize);
        Postings { first_version: term.first_version, count: term.places.len() as u32, source }
    }

    fn all_places(&self, postings: &Postings) -> &[u32] {
        match postings.source {
            Source::Memory(number) => &self.terms[number].places,
            Source::Inline(_) | Source::Blocks(..) => unreachable!("postings are asked of their own index"),
        }
    }
}

impl SegmentIndex for RwLock<MemoryIndex> {
    fn count(&self) -> u32 {
        self.read().count()
    }

    fn offsets(&self, places: Range<u32>) -> Result<Vec<Offset>, Fault> {
        Ok(self.read().offsets[places.start as usize..places.end as usize].to_vec())
    }

    fn find(&self, kind: Kind, name: &str) -> Result<Option<Postings>, Fault> {
        let index = self.read();
        Ok(index.numbers.get(&kind.term(name)[..]).map(|&number| index.postings(number)))
    }

    fn places(&self, postings: &Postings, range: Range<u32>) -> Result<Vec<u32>, Fault> {
        let index = self.read();
        let places = index.all_places(postings);
        let from = places.partition_point(|&place| place < range.start);
        let to = places.partition_point(|&place| place < range.end);
        Ok(places[from..to.max(from)].to_vec())
    }

    fn ranked(&self, postings: &Postings, ranks: Range<u32>) -> Result<Vec<u32>, Fault> {
        let index = self.read();
        let places = index.all_places(postings);
        let end = (ranks.end as usize).min(places.len());
        Ok(places[(ranks.start as usize).min(end)..end].to_vec())
    }

    fn count_below(&self, postings: &Postings, visible: u32) -> u32 {
        self.read().all_places(postings).partition_point(|&place| place < visible) as u32
    }

    fn with_id(&self, id: EventId) -> Result<Vec<u32>, Fault> {
        Ok(self.read().ids.get(&id).cloned().unwrap_or_default())
    }

    fn streams_after(&self, name: Option<&str>, limit: usize) -> Result<Vec<(String, Postings)>, Fault> {
        let index = self.read();
        let after = Kind::Stream.term(name.unwrap_or_default());
        let streams = index.streams.range::<[u8], _>((Bound::Excluded(&after[..]), Bound::Unbounded));
        let named = |term: &[u8]| String::from_utf8_lossy(&term[1..]).into_owned();
        Ok(streams.take(limit).map(|term| (named(term), index.postings(index.numbers[term]))).collect())
    }
}
