//! The index of the newest run, in memory.
//!
//! The writer inserts events as it stages them, before they are durable; readers read only up to the
//! published head. So staged events count in the checks of later appends (two appends of one group can
//! conflict) and are not visible to readers (G4).
//!
//! Next: `writer` writes it to a file when the run is sealed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use annals_core::{EventId, StreamId, Version};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::{IdRange, Index, Offset, Postings, Source};
use crate::error::Fault;
use crate::log::terms::{IdentityHashes, Kind, id_hash, identity_hash, terms_of};
use annals_core::body::Body;

/// The index of a run in memory.
#[derive(Default)]
pub struct MemoryIndex {
    offsets: Vec<Offset>,
    /// The stream (by number of its term) and id of each event.
    identities: Vec<(u32, EventId)>,
    /// The first place that has an id, by the hash of the id.
    ids: HashTable<u32>,
    /// The other places with the same id, by the first place: events of several streams may have the same id.
    shared: HashMap<u32, Vec<u32>>,
    /// The places in `shared`, by the hash of id and stream.
    shared_ids: HashTable<u32>,
    /// Numbers of terms, by their hash.
    numbers: HashTable<u32>,
    terms: Vec<Term>,
    /// The names of all terms, concatenated.
    names: Vec<u8>,
    /// Numbers of the terms of streams in the order of their names, when last sorted (see `sorted_streams`).
    streams: Mutex<Arc<[u32]>>,
    stream_count: usize,
    id_range: IdRange,
    /// Numbers of the terms of the latest event: the next event usually has the same terms.
    latest: SmallVec<[u32; 8]>,
}

struct Term {
    hash: u64,
    kind: Kind,
    name: Range<usize>,
    first_version: u64,
    places: SmallVec<[u32; 4]>,
}

/// A term with its places.
pub struct TermView<'a> {
    pub kind: Kind,
    pub name: &'a [u8],
    pub hash: u64,
    pub first_version: u64,
    pub places: &'a [u32],
}

impl MemoryIndex {
    /// Adds the next event. `hashes` come from [`hashes_of`](crate::log::terms::hashes_of).
    pub fn insert(&mut self, event: &Body<'_>, hashes: &[u64], version: Version, offset: Offset) {
        let (&id_hash, hashes) = hashes.split_first().expect("an event has an id");
        let &stream_hash = hashes.first().expect("an event has a stream");
        let place = self.count();
        let mut hashes = hashes.iter();
        let mut stream = 0;
        let before = std::mem::take(&mut self.latest);
        terms_of(event, |kind, name| {
            let hash = *hashes.next().expect("every term has its hash");
            let number = self.number(&before, kind, name, hash);
            self.latest.push(number);
            let term = &mut self.terms[number as usize];
            if kind == Kind::Stream {
                stream = number;
                if term.places.is_empty() {
                    term.first_version = version.get();
                }
            }
            term.places.push(place);
        });
        self.add(event.id, stream, IdentityHashes { id: id_hash, stream: stream_hash }, offset);
    }

    /// Adds the next event, which has the same terms as the latest one.
    pub fn insert_alike(&mut self, id: EventId, id_hash: u64, offset: Offset) {
        let place = self.count();
        let stream = self.identities[place as usize - 1].0;
        let hashes = IdentityHashes { id: id_hash, stream: self.terms[stream as usize].hash };
        for &number in &self.latest {
            self.terms[number as usize].places.push(place);
        }
        self.add(id, stream, hashes, offset);
    }

    fn add(&mut self, id: EventId, stream: u32, hashes: IdentityHashes, offset: Offset) {
        let place = self.count();
        self.id_range.add(id);
        self.offsets.push(offset);
        self.identities.push((stream, id));
        let (identities, terms) = (&self.identities, &self.terms);
        let has_id = |first: &u32| identities[*first as usize].1 == id;
        match self.ids.entry(hashes.id, has_id, |&place| id_hash(identities[place as usize].1)) {
            Entry::Vacant(vacant) => drop(vacant.insert(place)),
            Entry::Occupied(first) => {
                self.shared.entry(*first.get()).or_default().push(place);
                self.shared_ids.insert_unique(hashes.both(), place, |&place| {
                    let (stream, id) = identities[place as usize];
                    identity_hash(id_hash(id), terms[stream as usize].hash)
                });
            }
        }
    }

    /// An empty index with the capacity for as many events and terms as `other` has.
    pub fn like(other: &Self) -> Self {
        Self {
            offsets: Vec::with_capacity(other.offsets.len()),
            identities: Vec::with_capacity(other.identities.len()),
            ids: HashTable::with_capacity(other.ids.len()),
            numbers: HashTable::with_capacity(other.numbers.len()),
            terms: Vec::with_capacity(other.terms.len()),
            names: Vec::with_capacity(other.names.len()),
            ..Self::default()
        }
    }

    /// The number of a term, which is added if it is new. The numbers in `likely` are tried first.
    fn number(&mut self, likely: &[u32], kind: Kind, name: &[u8], hash: u64) -> u32 {
        let is_it = |number: &&u32| self.is_term(&self.terms[**number as usize], kind, name, hash);
        let known = likely.iter().find(is_it).copied();
        let known = known.or_else(|| self.find_number(kind, name, hash));
        known.unwrap_or_else(|| self.add_term(kind, name, hash))
    }

    fn add_term(&mut self, kind: Kind, name: &[u8], hash: u64) -> u32 {
        let number = u32::try_from(self.terms.len()).expect("a run has fewer terms than a segment has bytes");
        let start = self.names.len();
        self.names.extend_from_slice(name);
        let name = start..self.names.len();
        self.terms.push(Term { hash, kind, name, first_version: 0, places: SmallVec::new() });
        let terms = &self.terms;
        self.numbers.insert_unique(hash, number, |&number| terms[number as usize].hash);
        self.stream_count += usize::from(kind == Kind::Stream);
        number
    }

    fn find_number(&self, kind: Kind, name: &[u8], hash: u64) -> Option<u32> {
        let is_it = |&number: &u32| self.is_term(&self.terms[number as usize], kind, name, hash);
        self.numbers.find(hash, is_it).copied()
    }

    fn is_term(&self, term: &Term, kind: Kind, name: &[u8], hash: u64) -> bool {
        term.hash == hash && term.kind == kind && self.names[term.name.clone()] == *name
    }

    /// Number of events, including staged ones.
    pub fn count(&self) -> u32 {
        self.offsets.len() as u32
    }

    /// Stream, version and id of the event at this place.
    pub fn identity(&self, place: u32) -> Option<(StreamId, Version, EventId)> {
        let &(number, id) = self.identities.get(place as usize)?;
        let term = &self.terms[number as usize];
        let rank = term.places.binary_search(&place).expect("an event is among those of its stream");
        let name = std::str::from_utf8(&self.names[term.name.clone()]).expect("names are UTF-8");
        let stream = StreamId::new(name).expect("only names that were accepted are indexed");
        Some((stream, Version::new(term.first_version + rank as u64), id))
    }

    /// The smallest and the largest id.
    pub fn id_range(&self) -> IdRange {
        self.id_range
    }

    pub(super) fn all_offsets(&self) -> &[Offset] {
        &self.offsets
    }

    /// Every event's place, with the hashes of its id and stream.
    pub(super) fn all_ids(&self) -> impl Iterator<Item = (u32, IdentityHashes)> + '_ {
        let hashes = |&(stream, id): &(u32, EventId)| IdentityHashes {
            id: id_hash(id),
            stream: self.terms[stream as usize].hash,
        };
        self.identities.iter().enumerate().map(move |(place, identity)| (place as u32, hashes(identity)))
    }

    /// Stream and id of the event at this place.
    pub(super) fn identity_at(&self, place: u32) -> (&[u8], EventId) {
        let (stream, id) = self.identities[place as usize];
        (&self.names[self.terms[stream as usize].name.clone()], id)
    }

    /// All terms, ordered by kind and then by the bytes of the name.
    pub(super) fn sorted_terms(&self) -> Vec<TermView<'_>> {
        let mut of_kinds: [Vec<u32>; Kind::Predecessor as usize + 1] = Default::default();
        for (number, term) in self.terms.iter().enumerate() {
            of_kinds[term.kind as usize].push(number as u32);
        }
        let view = |number: u32| {
            let Term { hash, kind, first_version, ref name, ref places } = self.terms[number as usize];
            TermView { kind, name: &self.names[name.clone()], hash, first_version, places }
        };
        of_kinds.into_iter().flat_map(|numbers| self.sorted_by_name(numbers)).map(view).collect()
    }

    /// Numbers of the terms of streams in the order of their names.
    fn sorted_streams(&self) -> Arc<[u32]> {
        let mut known = self.streams.lock();
        if known.len() != self.stream_count {
            let is_stream = |&number: &u32| self.terms[number as usize].kind == Kind::Stream;
            let streams = (0..self.terms.len() as u32).filter(is_stream).collect();
            *known = self.sorted_by_name(streams).collect();
        }
        known.clone()
    }

    /// Sorts the numbers of terms by name. Names of a kind usually begin alike (`account-`), so the first
    /// bytes in which they differ are compared first, as one number.
    fn sorted_by_name(&self, numbers: Vec<u32>) -> impl Iterator<Item = u32> + use<> {
        let name = |number: u32| &self.names[self.terms[number as usize].name.clone()];
        let mut alike: &[u8] = numbers.first().map_or(&[], |&number| name(number));
        for &number in &numbers {
            let same = alike.iter().zip(name(number)).take_while(|(one, other)| one == other).count();
            alike = &alike[..same];
        }
        let key = |number: u32| {
            let mut first = [0; 8];
            let differs = &name(number)[alike.len()..];
            let length = differs.len().min(first.len());
            first[..length].copy_from_slice(&differs[..length]);
            u64::from_be_bytes(first)
        };
        let mut keyed: Vec<_> = numbers.into_iter().map(|number| (key(number), number)).collect();
        keyed.sort_unstable_by(|&(left, one), &(right, other)| {
            left.cmp(&right).then_with(|| name(one).cmp(name(other)))
        });
        keyed.into_iter().map(|(_, number)| number)
    }

    /// The first place of an event with this id.
    fn first_with(&self, id: EventId, hash: u64) -> Option<u32> {
        self.ids.find(hash, |&place| self.identities[place as usize].1 == id).copied()
    }

    fn postings(&self, number: u32) -> Postings {
        let term = &self.terms[number as usize];
        Postings {
            first_version: term.first_version,
            count: term.places.len() as u32,
            source: Source::Memory(number),
        }
    }

    fn all_places<'a>(&'a self, postings: &'a Postings) -> &'a [u32] {
        match &postings.source {
            Source::Memory(number) => &self.terms[*number as usize].places,
            Source::Inline(places) => places,
            Source::Blocks(..) | Source::Causes(_) => unreachable!("postings are asked of their own index"),
        }
    }
}

impl Index for RwLock<MemoryIndex> {
    fn count(&self) -> u32 {
        self.read().count()
    }

    fn offsets(&self, places: Range<u32>, to: &mut Vec<Offset>) -> Result<(), Fault> {
        to.extend_from_slice(&self.read().offsets[places.start as usize..places.end as usize]);
        Ok(())
    }

    fn find(&self, kind: Kind, name: &[u8], hash: u64) -> Result<Option<Postings>, Fault> {
        let index = self.read();
        Ok(index.find_number(kind, name, hash).map(|number| index.postings(number)))
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

    fn id_range(&self) -> IdRange {
        self.read().id_range
    }

    fn with_id(&self, stream: &[u8], id: EventId, hashes: IdentityHashes) -> Result<Vec<u32>, Fault> {
        let index = self.read();
        if !index.id_range.may_have(id) {
            return Ok(Vec::new());
        }
        let Some(stream) = index.find_number(Kind::Stream, stream, hashes.stream) else {
            return Ok(Vec::new());
        };
        let is_it = |place: &u32| index.identities[*place as usize] == (stream, id);
        let first = index.first_with(id, hashes.id);
        let found = first.filter(is_it).or_else(|| {
            let others = first.is_some_and(|first| index.shared.contains_key(&first));
            others.then(|| index.shared_ids.find(hashes.both(), is_it).copied()).flatten()
        });
        Ok(found.into_iter().collect())
    }

    fn of_id(&self, id: EventId) -> Result<Option<Postings>, Fault> {
        let index = self.read();
        let Some(first) = index.first_with(id, id_hash(id)) else { return Ok(None) };
        let mut places = vec![first];
        places.extend(index.shared.get(&first).into_iter().flatten());
        let count = places.len() as u32;
        Ok(Some(Postings { first_version: 0, count, source: Source::Inline(places) }))
    }

    fn streams_after(&self, name: Option<&str>, limit: usize) -> Result<Vec<(String, Postings)>, Fault> {
        let index = self.read();
        let streams = index.sorted_streams();
        let name_of = |number: u32| &index.names[index.terms[number as usize].name.clone()];
        let after = name.unwrap_or_default().as_bytes();
        let from = streams.partition_point(|&number| name_of(number) <= after);
        let named = |number| (String::from_utf8_lossy(name_of(number)).into_owned(), index.postings(number));
        Ok(streams[from..].iter().take(limit).map(|&number| named(number)).collect())
    }
}
