//! Merges the indexes of consecutive runs into one. It is a merge of sorted inputs, so it needs little memory
//! except for the filter, which has about two and a half bytes for each event.

use std::sync::Arc;

use annals_core::Position;

use super::block::PAYLOAD_BYTES;
use super::file::{Cursor, READ_BLOCKS};
use super::writer::{IDS_PER_BLOCK, OFFSETS_PER_BLOCK, Pause, RunWriter, cause, in_order, is_long};
use super::{FileIndex, IdRange, Index};
use crate::disk::File;
use crate::error::Fault;
use crate::log::encoding::get_u32;
use crate::log::terms::{IdentityHashes, Kind};
use annals_core::body::Body;

/// The ids and predecessors of a run, each as a hash and a place.
pub struct Hashes {
    ids: Vec<u64>,
    causes: Vec<u64>,
}

impl Hashes {
    /// An empty list, with capacity for `events` events.
    pub fn with_capacity(events: usize) -> Self {
        Self { ids: Vec::with_capacity(events), causes: Vec::with_capacity(events) }
    }

    /// Adds the event at this place.
    pub fn add(&mut self, place: u32, event: &Body<'_>) {
        self.ids.push(in_order(IdentityHashes::of(event.stream, event.id).short(), place));
        let causes = event.predecessor.map(|name| in_order(cause(Kind::Predecessor.hash(name)), place));
        self.causes.extend(causes);
    }
}

/// Writes the merged index of these consecutive runs to an empty file and syncs it. Returns an error after
/// `pause` has returned false.
pub fn merge(
    name: &str,
    file: &Arc<dyn File>,
    runs: &[Arc<FileIndex>],
    pause: &Pause<'_>,
) -> Result<(), Fault> {
    write(name, file, runs, None, pause)
}

/// Rewrites the index of a run in the newest format version. `hashes` has what the old index lacks or has in
/// another order.
pub fn renew(
    name: &str,
    file: &Arc<dyn File>,
    run: &Arc<FileIndex>,
    mut hashes: Hashes,
    pause: &Pause<'_>,
) -> Result<(), Fault> {
    hashes.ids.sort_unstable();
    hashes.causes.sort_unstable();
    write(name, file, std::slice::from_ref(run), Some(hashes), pause)
}

/// Writes the index of these runs, with the `given` ids and predecessors or else with those of the runs.
fn write(
    name: &str,
    file: &Arc<dyn File>,
    runs: &[Arc<FileIndex>],
    given: Option<Hashes>,
    pause: &Pause<'_>,
) -> Result<(), Fault> {
    let first = runs.first().expect("there is something to merge");
    let base = first.layout().base;
    let mut shifts = Vec::with_capacity(runs.len());
    let mut count: u32 = 0;
    for run in runs {
        assert_eq!(run.layout().base, base + u64::from(count), "runs follow each other");
        shifts.push(count);
        count = count.checked_add(run.count()).expect("merged runs are bounded");
    }
    let id_range = runs.iter().map(|run| run.layout().id_range).fold(IdRange::default(), IdRange::with);
    let mut out = RunWriter::new(name, file.clone(), Position::new(base), count, id_range, pause);
    for run in runs {
        let mut offsets = Fixed::new(run, 1, run.count(), 4, OFFSETS_PER_BLOCK);
        while let Some(offset) = offsets.next()? {
            out.offset(get_u32(offset))?;
        }
    }
    // An upper bound for the items of the filter: a stream in several runs is counted more than once.
    let things: u64 = runs.iter().map(|run| run.things_in_filter()).sum();
    out.begin_ids(things.saturating_sub(u64::from(count)))?;
    if let Some(Hashes { ids, causes }) = given {
        ids.into_iter().try_for_each(|id| out.id(id))?;
        out.begin_causes()?;
        causes.into_iter().try_for_each(|cause| out.cause(cause))?;
    } else {
        let ids = |run: &FileIndex| (run.layout().ids, run.count());
        hashes(runs, &shifts, ids, |id| out.id(id))?;
        out.begin_causes()?;
        let causes = |run: &FileIndex| (run.layout().causes, run.layout().cause_count);
        hashes(runs, &shifts, causes, |cause| out.cause(cause))?;
    }
    let mut segments = Vec::new();
    for run in runs {
        segments.extend(run.segments()?);
    }
    segments.dedup();
    out.begin_terms(&segments)?;
    terms(runs, &shifts, &mut out)?;
    out.finish(runs.last().expect("there is something to merge").ending())
}

/// Calls `each` for the ids or the predecessors of all runs, in order; `part` returns their first block and
/// their number.
fn hashes(
    runs: &[Arc<FileIndex>],
    shifts: &[u32],
    part: impl Fn(&FileIndex) -> (u32, u32),
    mut each: impl FnMut(u64) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let fixed = |run| {
        let (first, count) = part(run);
        Fixed::new(run, first, count, 8, IDS_PER_BLOCK)
    };
    let mut parts: Vec<_> = runs.iter().map(|run| fixed(run)).collect();
    // Hash and place in one number, so that they compare as one; `u64::MAX` means the end of a run.
    let number = |entry: Option<&[u8]>, shift: u32| match entry {
        Some(entry) => in_order(get_u32(entry), get_u32(&entry[4..]) + shift),
        None => u64::MAX,
    };
    let mut next = Vec::with_capacity(parts.len());
    for (part, shift) in parts.iter_mut().zip(shifts) {
        next.push(number(part.next()?, *shift));
    }
    loop {
        let (mut smallest, mut from) = (u64::MAX, 0);
        for (index, &number) in next.iter().enumerate() {
            if number < smallest {
                (smallest, from) = (number, index);
            }
        }
        if smallest == u64::MAX {
            return Ok(());
        }
        each(smallest)?;
        next[from] = number(parts[from].next()?, shifts[from]);
    }
}

fn terms(runs: &[Arc<FileIndex>], shifts: &[u32], out: &mut RunWriter<'_>) -> Result<(), Fault> {
    let mut cursors = Vec::with_capacity(runs.len());
    for run in runs {
        cursors.push(Cursor::start(run)?);
    }
    // The runs that have terms left, in the order of their current terms and then their own, the first last.
    let mut order = Vec::with_capacity(runs.len());
    for run in 0..runs.len() {
        enqueue(&mut order, &cursors, run);
    }
    let (mut name, mut places, mut having) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(first) = order.pop() {
        let (kind, smallest) = cursors[first].term().expect("only runs with terms are in the queue");
        name.clear();
        name.extend_from_slice(smallest);
        having.push(first);
        while order.last().is_some_and(|&next: &usize| cursors[next].term() == Some((kind, &name))) {
            having.extend(order.pop());
        }
        let Some(kind) = Kind::of(kind) else {
            return Err(runs[first].file().damaged(0, "has a term of an unknown kind"));
        };
        let (first_version, mut count) = cursors[first].head()?;
        for &run in &having[1..] {
            count += cursors[run].head()?.1;
        }
        places.clear();
        let mut long = is_long(count).then(|| out.begin_places());
        for run in having.drain(..) {
            let cursor = &mut cursors[run];
            cursor.places(shifts[run], |part| match &mut long {
                Some(long) => out.add_places(long, part),
                None => {
                    places.extend_from_slice(part);
                    Ok(())
                }
            })?;
            cursor.advance()?;
            // In a corrupt index, terms out of order could form an endless loop.
            if cursor.term().is_some_and(|next| next <= (kind as u8, &name)) {
                return Err(runs[run].file().damaged(0, "has terms out of order"));
            }
            enqueue(&mut order, &cursors, run);
        }
        match long {
            Some(long) => out.long_term(kind, &name, first_version, long)?,
            None => out.term(kind, &name, first_version, &places)?,
        }
    }
    Ok(())
}

/// Adds a run to the queue, unless it has no terms left.
fn enqueue(order: &mut Vec<usize>, cursors: &[Cursor<'_>], run: usize) {
    let key = |run: usize| (cursors[run].term(), run);
    if cursors[run].term().is_some() {
        order.insert(order.partition_point(|&other| key(other) > key(run)), run);
    }
}

/// Reads entries of a fixed size in sequence, without the cache.
struct Fixed<'a> {
    run: &'a FileIndex,
    block: u32,
    left: u32,
    size: usize,
    per_block: usize,
    bytes: Vec<u8>,
    at: usize,
}

impl<'a> Fixed<'a> {
    fn new(run: &'a FileIndex, block: u32, count: u32, size: usize, per_block: usize) -> Self {
        Self { run, block, left: count, size, per_block, bytes: Vec::new(), at: 0 }
    }

    fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        // Skip the unused bytes at the end of a block.
        if self.at % PAYLOAD_BYTES == self.per_block * self.size && PAYLOAD_BYTES > self.per_block * self.size
        {
            self.at += PAYLOAD_BYTES - self.per_block * self.size;
        }
        if self.at == self.bytes.len() {
            let blocks = self.left.div_ceil(self.per_block as u32).min(READ_BLOCKS);
            self.bytes = self.run.file().read(self.block, blocks)?;
            self.block += blocks;
            self.at = 0;
        }
        self.left -= 1;
        let thing = &self.bytes[self.at..self.at + self.size];
        self.at += self.size;
        Ok(Some(thing))
    }
}
