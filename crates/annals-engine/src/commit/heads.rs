//! A cache of the versions of streams, as the writer sees them.
//!
//! The writer must know the version of each stream that it appends to. Without the cache it has to look for
//! the stream in the index of each run, from the newest to the oldest.
//!
//! - H1  A cached version is that of the stream at the end of the log, including staged events: what is
//!       staged is entered in the same step. A store whose write fails takes no further appends, so nothing
//!       is ever taken back.
//! - H2  A stream is known by 128 bits of a keyed hash of its name (SipHash-1-3), whose key is random and
//!       never leaves the process. Nobody can choose names that collide, and by chance two of a billion
//!       streams have the same hash with a probability below 10⁻²⁰.
//!
//! Entries have a fixed size, about 38 bytes with the empty places of the table. Each part of the cache has
//! two halves. When the new one is full it becomes the old one, and what the old one had is forgotten.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use annals_core::{StreamId, Version};
use hashbrown::HashTable;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// Parts of the cache. A part that grows or forgets delays one append, so parts are small.
const PARTS: usize = 256;
/// Bytes of memory of an entry, with the empty places of the table.
const ENTRY_BYTES: usize = 38;

/// A cache of the current versions of streams; 0 for streams that do not exist.
pub struct Heads {
    key: [u64; 2],
    parts: RefCell<Vec<Part>>,
    /// Most entries of either half of a part.
    half_max: usize,
}

/// A part of the cache: the entries that were used lately, and those of before.
#[derive(Clone, Default)]
struct Part {
    new: HashTable<Head>,
    old: HashTable<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    hash: Hash,
    version: Version,
}

/// The hash of a stream's name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash {
    low: u64,
    high: u64,
}

impl Heads {
    /// A cache that takes at most this many bytes, or little more than none if that is less.
    pub fn new(bytes: usize) -> Self {
        let key = [0, 1].map(|number: u64| RandomState::new().hash_one(number));
        let half_max = (bytes / ENTRY_BYTES / PARTS / 2).max(1);
        Self { key, parts: vec![Part::default(); PARTS].into(), half_max }
    }

    /// The cached version of a stream.
    pub fn get(&self, stream: &StreamId) -> Option<Version> {
        let hash = self.hash(stream);
        let part = &mut self.parts.borrow_mut()[hash.part()];
        if let Some(head) = part.new.find(hash.low, |head| head.hash == hash) {
            return Some(head.version);
        }
        let version = part.old.find(hash.low, |head| head.hash == hash)?.version;
        part.set(Head { hash, version }, self.half_max);
        Some(version)
    }

    /// Sets the version of a stream.
    pub fn set(&self, stream: &StreamId, version: Version) {
        let hash = self.hash(stream);
        self.parts.borrow_mut()[hash.part()].set(Head { hash, version }, self.half_max);
    }

    fn hash(&self, stream: &StreamId) -> Hash {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(stream.as_str().as_bytes());
        let hash = hasher.finish128();
        Hash { low: hash.h1, high: hash.h2 }
    }
}

impl Hash {
    fn part(self) -> usize {
        self.high as usize % PARTS
    }
}

impl Part {
    fn set(&mut self, set: Head, half_max: usize) {
        if let Some(head) = self.new.find_mut(set.hash.low, |head| head.hash == set.hash) {
            head.version = set.version;
            return;
        }
        if self.new.len() >= half_max {
            std::mem::swap(&mut self.new, &mut self.old);
            self.new.clear();
        }
        self.new.insert_unique(set.hash.low, set, |head| head.hash.low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: usize) -> StreamId {
        StreamId::of("account", &number.to_string()).unwrap()
    }

    fn version(number: usize) -> Version {
        Version::new(number as u64)
    }

    #[test]
    fn the_newest_version_of_each_stream_is_found() {
        let heads = Heads::new(10_000 * ENTRY_BYTES);
        for round in 0..3 {
            for number in 0..1_000 {
                assert_eq!(heads.get(&stream(number)), (round > 0).then(|| version(number + round - 1)));
                heads.set(&stream(number), version(number + round));
            }
        }
    }

    /// What is found is never an older version, however often parts forget.
    #[test]
    fn a_full_cache_forgets_streams_and_never_finds_an_old_version() {
        let most = 4_096;
        let heads = Heads::new(most * ENTRY_BYTES);
        let mut newest = vec![0; 3 * most];
        let mut found = 0;
        let mut random = 7_u64;
        for round in 1..20 * most {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 33) as usize % newest.len();
            if let Some(known) = heads.get(&stream(number)) {
                assert_eq!(known, version(newest[number]), "of stream {number}");
                found += 1;
            }
            newest[number] = round;
            heads.set(&stream(number), version(round));
        }
        assert!(found > 2 * most, "{found} were found");
        let kept = (0..newest.len()).filter(|&number| heads.get(&stream(number)).is_some()).count();
        assert!(kept <= most, "{kept} streams are kept, of at most {most}");
        let entries: usize = heads.parts.borrow().iter().map(|part| part.new.len() + part.old.len()).sum();
        assert!(entries <= most, "{entries} entries, of at most {most}");
    }

    /// The streams that are written again and again stay in the cache, whatever else is written.
    #[test]
    fn what_is_used_often_stays() {
        let most = 4_096;
        let heads = Heads::new(most * ENTRY_BYTES);
        heads.set(&stream(0), version(1));
        for number in 1..10 * most {
            heads.set(&stream(number), version(1));
            if number % 100 == 0 {
                assert_eq!(heads.get(&stream(0)), Some(version(1)), "after {number} others");
            }
        }
    }
}
