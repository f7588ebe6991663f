//! Opening a log: what a crash left is told from damage, and made whole.
//!
//! - R1  A sealed segment is taken as it is: its header and its index's header are read, nothing else. An index
//!       that is missing or broken, or of a log with another digest, is built again from the segment.
//! - R2  The last segment is walked, frame by frame, and its index built in memory.
//! - R3  Behind its last whole frame there may be the remains of a group that was never acknowledged: they are
//!       replaced by zeros before anything is written. It is damage instead if any whole frame behind says that
//!       the broken one had been durable (F3 of `frame`).
//! - R4  A segment never begins before the one in front of it has ended: gaps are damage. So is an index without
//!       a segment after its own: the last one is gone. So is an identity without any segment.
//! - R5  What was found is made durable before it is shown or written behind. Whoever wrote it may have been killed
//!       before the sync, or the sync may have failed (D4 of `disk`): the last group is written again, and synced,
//!       and so is the directory.
//!
//! Next below: `segment::walk`.

use std::sync::Arc;

use annals_core::{Clock, Position, StoreId, Timestamp};
use parking_lot::RwLock;

use crate::commit::{Active, Tail};
use crate::disk::{Disk, File};
use crate::encoding::get_u64;
use crate::error::Fault;
use crate::frame;
use crate::identity;
use crate::index::{BlockCache, FileIndex, MemoryIndex, SegmentIndex};
use crate::seal::write_index;
use crate::segment::{
    BlockReader, End, HEADER_BYTES, Segment, SegmentHeader, base_of, base_of_index, file_name, index_name,
    walk,
};

/// What is cleared or written again at once.
const MEND_BYTES: usize = 64 << 10;

/// A log that was opened.
pub struct Recovered {
    /// Identity.
    pub id: StoreId,
    /// All segments, the active one last.
    pub segments: Vec<Arc<Segment>>,
    /// The active segment.
    pub active: Active,
    /// Where the log ends.
    pub tail: Tail,
}

/// Opens the log on this disk; creates it if there is none.
pub fn open(disk: &dyn Disk, cache: &Arc<BlockCache>, clock: &dyn Clock) -> Result<Recovered, Fault> {
    let names = disk.list().map_err(Fault::io("list", "the log"))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        disk.remove(name).map_err(Fault::io("remove", name))?;
    }
    let mut bases: Vec<Position> = names.iter().filter_map(|name| base_of(name)).collect();
    bases.sort_unstable();
    check_last(&names, bases.last().copied())?;
    disk.sync_directory().map_err(Fault::io("sync", "the log"))?;
    let identity = identity::read(disk, &names)?;
    identity::check(identity, bases.len())?;
    let recovered = match bases.split_last() {
        None => create(disk, clock.now())?,
        Some((&last, sealed)) => take_up(disk, cache, identity, sealed, last)?,
    };
    if identity.is_none()
        && let Err(fault) = identity::write(disk, recovered.id)
    {
        // A full disk does not keep a store from being opened (G9); the next open tries again.
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "the identity of the log stands in its segments only"
        );
    }
    Ok(recovered)
}

/// Opens a log that has segments: these, of which the last is written on.
fn take_up(
    disk: &dyn Disk,
    cache: &Arc<BlockCache>,
    identity: Option<StoreId>,
    sealed: &[Position],
    last: Position,
) -> Result<Recovered, Fault> {
    let mut segments = Vec::with_capacity(sealed.len() + 1);
    let mut expected = Expected { base: Position::FIRST, id: identity };
    for (index, &base) in sealed.iter().enumerate() {
        let (file, header) = expected.open(disk, base)?;
        let next_base = sealed.get(index + 1).copied().unwrap_or(last);
        let next_name = file_name(next_base);
        let next = disk.open(&next_name).map_err(Fault::io("open", &next_name))?;
        let next = SegmentHeader::read(&*next, next_base)?;
        let index = sealed_index(disk, &file, &header, &next, cache)?;
        expected.base = base.plus(u64::from(index.count()));
        segments.push(Arc::new(Segment { base, file, index }));
    }
    let (file, header) = expected.open(disk, last)?;
    let mut index = MemoryIndex::default();
    let end = walk(&*file, &header, |event, offset| index.insert(&event, offset))?;
    mend(&*file, &header, &end)?;
    let allocated = file.length().map_err(Fault::io("read the length of", &file_name(last)))?;
    let index = Arc::new(RwLock::new(index));
    segments.push(Arc::new(Segment { base: last, file: file.clone(), index: index.clone() }));
    let active = Active { base: last, salt: header.salt(), file, index, allocated };
    let tail = Tail { next: end.next, byte: end.byte, chain: end.chain, recorded_at: end.recorded_at };
    Ok(Recovered { id: header.store, segments, active, tail })
}

/// An index is written when the next segment is there: one for the last segment or behind it says that a segment
/// is gone.
pub(crate) fn check_last(names: &[String], last: Option<Position>) -> Result<(), Fault> {
    let orphan = |name: &&String| base_of_index(name).is_some_and(|base| base >= last.unwrap_or_default());
    match names.iter().find(orphan) {
        None => Ok(()),
        Some(index) => Err(Fault::damaged(index, 0, None, "there is an index, but no segment after its own")),
    }
}

fn create(disk: &dyn Disk, now: Timestamp) -> Result<Recovered, Fault> {
    let header = SegmentHeader {
        store: StoreId::generate(),
        base: Position::FIRST,
        created_at: now,
        chain: [0; 32],
        recorded_at: Timestamp::MIN,
    };
    let file = header.create(disk).map_err(|(fault, _)| fault)?;
    let index = Arc::new(RwLock::new(MemoryIndex::default()));
    let segment = Segment { base: header.base, file: file.clone(), index: index.clone() };
    let salt = header.salt();
    let active = Active { base: header.base, salt, file, index, allocated: HEADER_BYTES };
    let tail =
        Tail { next: header.base, byte: HEADER_BYTES, chain: header.chain, recorded_at: header.recorded_at };
    Ok(Recovered { id: header.store, segments: vec![Arc::new(segment)], active, tail })
}

/// What the next segment must be like.
pub(crate) struct Expected {
    pub base: Position,
    pub id: Option<StoreId>,
}

impl Expected {
    pub fn open(&mut self, disk: &dyn Disk, base: Position) -> Result<(Arc<dyn File>, SegmentHeader), Fault> {
        let name = file_name(base);
        if base != self.base {
            let problem = format!("the log has no segment with position {}; this one comes next", self.base);
            return Err(Fault::damaged(&name, 0, Some(self.base), problem));
        }
        let file = disk.open(&name).map_err(Fault::io("open", &name))?;
        let header = SegmentHeader::read(&*file, base)?;
        if *self.id.get_or_insert(header.store) != header.store {
            return Err(Fault::damaged(&name, 16, Some(base), "the segment is of another log"));
        }
        Ok((file, header))
    }
}

/// The index of a sealed segment, behind which the one with the header `next` stands; built again if need be, and
/// kept in memory if it cannot be written: a full disk does not keep a store from being opened (G9).
fn sealed_index(
    disk: &dyn Disk,
    file: &Arc<dyn File>,
    header: &SegmentHeader,
    next: &SegmentHeader,
    cache: &Arc<BlockCache>,
) -> Result<Arc<dyn SegmentIndex>, Fault> {
    let base = header.base;
    let name = index_name(base);
    let opened = disk.open(&name).map_err(Fault::io("open", &name));
    let opened = opened.and_then(|file| FileIndex::open(&name, file, base.get(), cache.clone()));
    match opened {
        Ok(index) if base.plus(u64::from(index.count())) == next.base && index.chain() == next.chain => {
            return Ok(Arc::new(index));
        }
        Ok(_) => tracing::warn!(name, "the index is that of another segment; it is built again"),
        Err(fault) => tracing::warn!(
            name,
            error = &fault as &dyn std::error::Error,
            "the index of a segment cannot be used; it is built again"
        ),
    }
    let mut index = MemoryIndex::default();
    let end = walk(&**file, header, |event, offset| index.insert(&event, offset))?;
    if end.next != next.base {
        let problem = format!("a frame is broken, and the next segment begins at position {}", next.base);
        return Err(Fault::damaged(&file_name(base), end.byte, Some(end.next), problem));
    }
    if end.chain != next.chain {
        let problem = "the digest in the header is not that of the log before it";
        return Err(Fault::damaged(&file_name(next.base), 48, Some(next.base), problem));
    }
    Ok(match write_index(disk, base, end.ending(), &index, cache) {
        Ok(index) => Arc::new(index),
        Err(fault) => {
            tracing::warn!(
                name,
                error = &fault as &dyn std::error::Error,
                "the index of a segment stays in memory; it is written at the next open"
            );
            Arc::new(RwLock::new(index))
        }
    })
}

/// Clears what is behind the last whole frame, unless it is damage, and makes the last group durable.
fn mend(file: &dyn File, header: &SegmentHeader, end: &End) -> Result<(), Fault> {
    let name = file_name(header.base);
    let remains = remains(file, header, end)?;
    if remains > end.byte {
        tracing::info!(
            name,
            position = end.next.get(),
            bytes = remains - end.byte,
            "cleared the remains of appends that were never acknowledged"
        );
    }
    let mut byte = end.byte;
    let zeros = vec![0; MEND_BYTES];
    while byte < remains {
        let count = zeros.len().min((remains - byte) as usize);
        file.write_at(&zeros[..count], byte).map_err(Fault::io("clear", &name))?;
        byte += count as u64;
    }
    let mut reader = BlockReader::new(file, &name, header.salt());
    let mut byte = end.unproven;
    while byte < end.byte {
        let bytes = reader.bytes(byte, MEND_BYTES.min((end.byte - byte) as usize))?;
        if bytes.is_empty() {
            // What fills up the last frame may be missing.
            break;
        }
        file.write_at(&bytes, byte).map_err(Fault::io("write again", &name))?;
        byte += bytes.len() as u64;
    }
    file.sync().map_err(Fault::io("sync", &name))
}

/// Where the remains behind the last whole frame end: at its own end, if there are none.
///
/// # Errors
/// Damage, if they had been durable.
pub(crate) fn remains(file: &dyn File, header: &SegmentHeader, end: &End) -> Result<u64, Fault> {
    let name = file_name(header.base);
    let mut reader = BlockReader::new(file, &name, header.salt());
    let mut frames = BlockReader::new(file, &name, header.salt());
    let mut last = end.byte;
    let mut byte = end.byte;
    loop {
        let block = reader.bytes(byte, 64 << 10)?;
        if block.is_empty() {
            return Ok(last);
        }
        if let Some(at) = block.iter().rposition(|&byte| byte != 0) {
            last = byte + at as u64 + 1;
            for at in (0..=at).step_by(frame::ALIGN) {
                let here = byte + at as u64;
                if says_it_was_durable(&mut frames, end, here, &block[at..])? {
                    let problem =
                        format!("a frame is broken that was durable: the frame at byte {here} says so");
                    return Err(Fault::damaged(&name, end.byte, Some(end.next), problem));
                }
            }
        }
        byte += block.len() as u64;
    }
}

/// Whether at this byte there is a whole frame that was written after the one that is broken was durable.
fn says_it_was_durable(
    frames: &mut BlockReader<'_>,
    end: &End,
    byte: u64,
    bytes: &[u8],
) -> Result<bool, Fault> {
    const FIELDS: usize = 40;
    if bytes.len() >= FIELDS {
        // Cheap to see: most bytes are no frame, or say that nothing of interest was durable.
        let durable = Position::new(get_u64(&bytes[32..]));
        let first = Position::new(get_u64(&bytes[16..]));
        if durable < end.next || first <= durable || first.get() - end.next.get() > u64::from(u32::MAX) {
            return Ok(false);
        }
    }
    Ok(matches!(frames.frame(byte)?, Some((_, Ok(found))) if found.durable >= end.next))
}
