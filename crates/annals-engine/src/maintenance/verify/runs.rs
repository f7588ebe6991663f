//! The indexes of a log, which a pass compares with the events.
//!
//! An open store may merge indexes during the pass: so they are listed again for each segment, and removed
//! ones are skipped. A missing index is not damage: it is built at open. A wrong index is reported once.
//!
//! Next below: `index::compare`.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use annals_core::Position;

use super::pass::Findings;
use crate::disk::Disk;
use crate::error::Fault;
use crate::index::{BlockCache, FileIndex, MemoryIndex, compare};
use crate::log::segment::{End, Segment, run_of, walk};
use crate::maintenance::work::{Watched, Work};

/// Events that are compared at a time.
const PART_EVENTS: u64 = 1 << 16;
/// Size of the block cache, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// The indexes of a log.
pub struct Runs {
    cache: Arc<BlockCache>,
    open: Vec<FileIndex>,
    /// Names of the indexes that are skipped from now on.
    done: RefCell<HashSet<String>>,
    work: Option<Arc<Work>>,
}

impl Default for Runs {
    fn default() -> Self {
        let cache = Arc::new(BlockCache::new(CACHE_BYTES));
        Self { cache, open: Vec::new(), done: RefCell::default(), work: None }
    }
}

impl Runs {
    /// Skips these files, whose damage was reported already.
    pub fn pass_over<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.done.borrow_mut().extend(names.map(str::to_owned));
    }

    /// Opens the indexes that contain events from this position on.
    pub fn open(
        &mut self,
        disk: &dyn Disk,
        from: Position,
        work: &Arc<Work>,
        findings: &mut Findings,
    ) -> Result<(), Fault> {
        self.work = Some(work.clone());
        self.open.retain(|index| index.last() >= from);
        let mut names = disk.list().map_err(Fault::io("list", "the log"))?;
        names.sort_unstable();
        for name in names {
            let Some((first, last)) = run_of(&name) else { continue };
            let known = self.open.iter().any(|index| index.name() == name);
            if last < from || known || self.done.borrow().contains(&name) {
                continue;
            }
            let file = match disk.open(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => Arc::new(Watched::whole(file.map_err(Fault::io("open", &name))?, work)),
            };
            let index = FileIndex::open(&name, file, first, self.cache.clone()).and_then(|index| {
                if index.last() != last {
                    return Err(Fault::damaged(&name, 0, Some(first), "is the index of another run"));
                }
                index.check_blocks()?;
                Ok(index)
            });
            match index {
                Ok(index) => self.open.push(index),
                Err(fault) => self.wrong(&name, fault, findings)?,
            }
        }
        Ok(())
    }

    /// Reports a damaged index, once.
    fn wrong(&self, name: &str, fault: Fault, findings: &mut Findings) -> Result<(), Fault> {
        self.done.borrow_mut().insert(name.to_owned());
        findings.note(Err(match fault {
            Fault::Damaged { location, problem } => {
                let problem = format!("the index {problem}; remove it, and it is built again at open");
                Fault::Damaged { location, problem }
            }
            fault => fault,
        }))
    }

    /// The position after the part that begins with this event: the part ends with a run, if a run ends
    /// within `PART_EVENTS`.
    pub fn part(&self, from: Position) -> Position {
        let ends = self.speaking_of(from).map(|index| index.last().next());
        ends.min().unwrap_or(Position::MAX).min(from.plus(PART_EVENTS))
    }

    /// Whether any index may contain events of the part that begins with this event.
    pub fn speak_of(&self, from: Position) -> bool {
        self.speaking_of(from).next().is_some()
    }

    fn speaking_of(&self, from: Position) -> impl Iterator<Item = &FileIndex> {
        let until = from.plus(PART_EVENTS);
        let done = self.done.borrow();
        let speaks = move |index: &&FileIndex| {
            index.base() < until && index.last() >= from && !done.contains(index.name())
        };
        self.open.iter().filter(speaks)
    }

    /// Compares all indexes with these events of a segment, from position `from` up to `end`.
    pub fn check(
        &self,
        segment: &Segment,
        from: Position,
        end: &End,
        events: &MemoryIndex,
        findings: &mut Findings,
    ) -> Result<(), Fault> {
        let speaking: Vec<_> = self.speaking_of(from).collect();
        for index in speaking {
            let checked = compare(index, from, events).and_then(|differs| match differs {
                Some(problem) => Err(Fault::damaged(index.name(), 0, Some(from), problem)),
                None if index.last().next() == end.next => {
                    findings.indexes += 1;
                    self.check_ending(index, segment, end)
                }
                None => Ok(()),
            });
            match checked {
                Err(fault @ Fault::Damaged { .. }) => self.wrong(index.name(), fault, findings)?,
                checked => checked?,
            }
        }
        Ok(())
    }

    /// Checks the ending that is recorded in an index: opening a log relies on it.
    fn check_ending(&self, index: &FileIndex, segment: &Segment, end: &End) -> Result<(), Fault> {
        let ending = index.ending();
        let mut end = *end;
        if ending.byte > end.byte
            && let Some(work) = &self.work
        {
            // Include close marks after the last event.
            let marks = Watched::beginning(segment.file.clone(), ending.byte, work);
            end = walk(&marks, &segment.header, end, Position::MAX, |_| Ok(()))?;
        }
        let is = (ending.store, ending.segment, ending.salt, ending.byte, ending.link, ending.recorded_at);
        let header = &segment.header;
        let should = (header.store, header.base, segment.origin.salt, end.byte, end.link, end.recorded_at);
        // If this segment has no frame yet, the last frame is in the previous segment.
        if is == should && (ending.frame == end.frame || end.frame == (0, 0)) {
            return Ok(());
        }
        Err(Fault::damaged(index.name(), 0, Some(end.next), "has another end than the log"))
    }
}
