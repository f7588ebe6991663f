//! Compares an index on disk with the log.

use annals_core::Position;

use super::{FileIndex, Index, MemoryIndex};
use crate::error::Fault;
use crate::log::terms::{IdentityHashes, Kind};

/// Compares an index with these events of the log, of which the first is at this position. Returns what is
/// wrong with the index; `None` if it agrees, or if it contains none of the events.
pub fn compare(run: &FileIndex, first: Position, events: &MemoryIndex) -> Result<Option<String>, Fault> {
    if run.base() > first.plus(u64::from(events.count())) || run.last() < first {
        return Ok(None);
    }
    // A place in the run is the place among the events plus `shift`.
    let shift = first.get() as i64 - run.base().get() as i64;
    let low = (-shift).max(0);
    let high = i64::from(events.count()).min(i64::from(run.count()) - shift);
    if low >= high {
        return Ok(None);
    }
    let (low, high) = (low as u32, high as u32);
    let there = |place: u32| (i64::from(place) + shift) as u32;
    let range = there(low)..there(high - 1) + 1;
    let wrong = |what: &str| Ok(Some(format!("has other {what} than the log")));
    let mut offsets = Vec::new();
    run.offsets(range.clone(), &mut offsets)?;
    if offsets != events.all_offsets()[low as usize..high as usize] {
        return wrong("places of events");
    }
    // In the order of the index, so that each of its blocks is read once.
    let mut ids: Vec<_> = events.all_ids().filter(|(place, _)| (low..high).contains(place)).collect();
    ids.sort_unstable_by_key(|(place, hashes)| (hashes.short(), *place));
    for (place, _) in ids {
        let (stream, id) = events.identity_at(place);
        if !run.with_id(stream, id, IdentityHashes::of(stream, id))?.contains(&there(place)) {
            return wrong("ids");
        }
    }
    for term in events.sorted_terms() {
        let inside = |place: &&u32| (low..high).contains(*place);
        let expected: Vec<u32> = term.places.iter().filter(inside).map(|&place| there(place)).collect();
        if expected.is_empty() || (term.kind == Kind::Predecessor && run.is_old()) {
            continue;
        }
        let Some(postings) = run.find(term.kind, term.name, term.hash)? else { return wrong("names") };
        let mut found = run.places(&postings, range.clone())?;
        if term.kind == Kind::Predecessor {
            // Another predecessor may have the same hash.
            found.retain(|place| expected.binary_search(place).is_ok());
        }
        if found != expected {
            return wrong("events of a name");
        }
        let before = run.places(&postings, 0..expected[0])?.len() as u64;
        let skipped = term.places.iter().filter(|&&place| place < low).count() as u64;
        if term.kind == Kind::Stream && postings.first_version + before != term.first_version + skipped {
            return wrong("versions of a stream");
        }
    }
    Ok(None)
}
