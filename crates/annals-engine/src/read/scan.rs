//! Scanning: all events in sequence, borrowed from the block that they were read into. No memory is allocated
//! per event.
//!
//! For a consumer that reads the whole log once: rebuilding a read model, an export, a search. The checksum
//! of every event is verified, as in every read. Next below: `fetch`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc;

use annals_core::{EventId, Position, Timestamp, Version};
use parking_lot::Mutex;

use super::fetch::{Block, Plan};
use super::view::View;
use crate::error::Fault;
use crate::log::encoding::Malformed;
use crate::log::frame::Record;
use annals_core::body::Body;

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

    /// The decoded event.
    pub(crate) fn body(&self) -> &Body<'a> {
        &self.body
    }

    /// Position in the log.
    pub fn position(&self) -> Position {
        self.record.position
    }

    /// Name of the stream.
    pub fn stream(&self) -> &'a str {
        self.stream
    }

    /// Version in the stream.
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

    /// The event's data, as the caller gave it.
    pub fn data(&self) -> &'a [u8] {
        self.body.data
    }

    /// The tags, in the order in which they were given.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> {
        // Tags were checked to be UTF-8 when they were appended, and the checksum matched.
        self.body.tags().map(|tag| std::str::from_utf8(tag).unwrap_or_default())
    }
}

/// A scan of at least this many events reads ahead.
const READ_AHEAD_EVENTS_MIN: u64 = 16 << 10;
/// The most threads that read ahead, in addition to the consuming thread.
const READERS_MAX: usize = 2;
/// The most blocks in the channel; also the number of ready blocks at which the consuming thread stops
/// reading ahead.
const BLOCKS_AHEAD: usize = 2;

/// Calls `each` for the events from this position on, up to the head or until `each` breaks; returns the
/// position to resume at.
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

/// Scans with threads that read and check the next blocks. The consuming thread reads ahead too while no
/// block is ready, so no processor is idle, and most blocks are consumed on the thread that read them.
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
                // If no block was received or read here, a reader thread is reading one: wait for it.
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

/// The read-ahead state that all threads share.
struct Ahead<'a> {
    view: &'a View,
    /// The number of the next block, and its first position.
    next: Mutex<(u64, Position)>,
    /// Buffers to use again.
    used: Mutex<Vec<Vec<u8>>>,
}

impl<'a> Ahead<'a> {
    /// Reads the next block; `None` if there is none, or if an earlier block could not be located.
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
