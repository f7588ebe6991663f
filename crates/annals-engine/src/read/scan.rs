//! Scanning: all events in a row, borrowed from the block that they were read into. Nothing is made for any of them.
//!
//! For a consumer that reads the whole log once: a read model that is built again, an export, a search. Every event's
//! checksum is looked at, as by any other read. Next below: `fetch`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc;

use annals_core::{EventId, Position, Timestamp, Version};
use parking_lot::Mutex;

use super::fetch::{Block, Plan};
use super::view::View;
use crate::error::Fault;
use crate::log::body::Body;
use crate::log::encoding::Malformed;
use crate::log::frame::Record;

/// An event during a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScannedEvent<'a> {
    record: Record<'a>,
    body: Body<'a>,
    stream: &'a str,
    event_type: &'a str,
}

impl<'a> ScannedEvent<'a> {
    fn of(record: Record<'a>) -> Result<Self, Malformed> {
        let body = Body::read(record.body)?;
        let text = |bytes, what| std::str::from_utf8(bytes).map_err(|_| Malformed::Field(what));
        Ok(Self {
            record,
            body,
            stream: text(body.stream, "stream")?,
            event_type: text(body.event_type, "type")?,
        })
    }

    /// All that the caller gave.
    pub(crate) fn body(&self) -> &Body<'a> {
        &self.body
    }

    /// Place in the log.
    pub fn position(&self) -> Position {
        self.record.position
    }

    /// Name of the stream.
    pub fn stream(&self) -> &'a str {
        self.stream
    }

    /// Place in the stream.
    pub fn version(&self) -> Version {
        self.record.version
    }

    /// Position of the first event of its append.
    pub fn append(&self) -> Position {
        self.record.append
    }

    /// When it was recorded.
    pub fn recorded_at(&self) -> Timestamp {
        self.record.recorded_at
    }

    /// When it happened, if the writer gave a time.
    pub fn occurred_at(&self) -> Option<Timestamp> {
        self.body.occurred_at
    }

    /// Identifies the event.
    pub fn id(&self) -> EventId {
        self.body.id
    }

    /// Name of its type.
    pub fn event_type(&self) -> &'a str {
        self.event_type
    }

    /// Version of the schema of its type.
    pub fn schema_version(&self) -> u16 {
        self.body.schema_version
    }

    /// What happened, in the form that was given.
    pub fn data(&self) -> &'a [u8] {
        self.body.data
    }

    /// The tags, in the order in which they were given.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> {
        // They were checked to be UTF-8 when they were given, and are what was given.
        self.body.tags().map(|tag| std::str::from_utf8(tag).unwrap_or_default())
    }
}

/// Fewer events than this are read when they are needed; of more, the next ones are read while these are handed out.
const READ_AHEAD_EVENTS_MIN: u64 = 16 << 10;
/// The most threads that read ahead, beside the one that hands out.
const READERS_MAX: usize = 2;
/// The most blocks that are ready in each of the two places where they wait.
const BLOCKS_AHEAD: usize = 2;

/// Hands out the events from this position on until there are no more or `each` breaks; returns the position to resume
/// at.
pub fn scan(
    view: &View,
    from: Position,
    mut each: impl FnMut(&ScannedEvent<'_>) -> ControlFlow<()>,
) -> Result<Position, Fault> {
    let mut next = from.max(Position::FIRST);
    if (view.head.get() + 1).saturating_sub(next.get()) >= READ_AHEAD_EVENTS_MIN {
        return scan_ahead(view, next, each);
    }
    let mut bytes = Vec::new();
    while next <= view.head {
        let block = Plan::of(view, next..view.head.next())?.read(bytes)?;
        next = block.next;
        match block.each(|record| Ok(each(&ScannedEvent::of(record)?)))? {
            ControlFlow::Break(stopped) => return Ok(stopped),
            ControlFlow::Continue(used) => bytes = used,
        }
    }
    Ok(next)
}

/// The same with threads that read and check what comes next. The consuming thread reads ahead too while no block is
/// ready: so no processor waits, and most of what is handed out was read where it is handed out.
fn scan_ahead(
    view: &View,
    from: Position,
    mut each: impl FnMut(&ScannedEvent<'_>) -> ControlFlow<()>,
) -> Result<Position, Fault> {
    let ahead = Ahead { view, next: Mutex::new((0, from)), used: Mutex::default() };
    let ahead = &ahead;
    let readers = std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1);
    std::thread::scope(|threads| {
        let (blocks, read) = mpsc::sync_channel(BLOCKS_AHEAD);
        for _ in 0..readers.clamp(1, READERS_MAX) {
            let blocks = blocks.clone();
            threads.spawn(move || {
                while let Some(numbered) = ahead.read() {
                    // The consumer may have stopped.
                    if blocks.send(numbered).is_err() {
                        return;
                    }
                }
            });
        }
        drop(blocks);
        let (mut number, mut next) = (0, from);
        let mut ready: BTreeMap<u64, Result<Block<'_>, Fault>> = BTreeMap::new();
        while next <= view.head {
            let Some(block) = ready.remove(&number) else {
                let come = read.try_recv().ok();
                let own = || if ready.len() < BLOCKS_AHEAD { ahead.read() } else { None };
                // What nobody has read yet and is not to be read here is being read.
                let Some((other, block)) = come.or_else(own).or_else(|| read.recv().ok()) else { break };
                ready.insert(other, block);
                continue;
            };
            let block = block?;
            (number, next) = (number + 1, block.next);
            match block.each(|record| Ok(each(&ScannedEvent::of(record)?)))? {
                ControlFlow::Break(stopped) => return Ok(stopped),
                ControlFlow::Continue(bytes) => ahead.used.lock().push(bytes),
            }
        }
        Ok(next)
    })
}

/// What the next free thread reads.
struct Ahead<'a> {
    view: &'a View,
    /// The number of the next block, and where it begins.
    next: Mutex<(u64, Position)>,
    /// Memory that was read into before.
    used: Mutex<Vec<Vec<u8>>>,
}

impl<'a> Ahead<'a> {
    /// Reads the next block; `None` if there is none, or an earlier one was wrong.
    fn read(&self) -> Option<(u64, Result<Block<'a>, Fault>)> {
        let mut next = self.next.lock();
        let (number, from) = *next;
        let end = self.view.head.next();
        if from >= end {
            return None;
        }
        let plan = Plan::of(self.view, from..end);
        *next = (number + 1, plan.as_ref().map_or(end, |plan| plan.next));
        drop(next);
        let bytes = self.used.lock().pop().unwrap_or_default();
        Some((number, plan.and_then(|plan| plan.read(bytes))))
    }
}
