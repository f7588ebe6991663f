//! Scanning: all events in a row, borrowed from the block that they were read into. Nothing is made for any of them.
//!
//! For whoever goes through the whole log once: a read model that is built again, an export, a search. Every event's
//! checksum is looked at, as by any other read. Next below: `fetch`.

use std::ops::ControlFlow;
use std::sync::mpsc;

use annals_core::{EventId, Position, Timestamp, Version};

use crate::body::Body;
use crate::encoding::Malformed;
use crate::error::Fault;
use crate::fetch;
use crate::frame::Record;
use crate::log::View;

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

    /// When it happened, if the writer said so.
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
/// So many threads read ahead, each every so manieth stretch of the log.
const READERS: u64 = 2;
/// Events of a stretch.
const STRETCH_EVENTS: u64 = 4 << 10;
/// So many blocks are read ahead by each.
const BLOCKS_AHEAD: usize = 2;

/// Hands out the events from this position on until there are no more or it is told to stop; returns the position to go
/// on at.
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
        let block = fetch::block(view, next..view.head.next(), bytes)?;
        next = block.next;
        match block.each(|record| Ok(each(&ScannedEvent::of(record)?)))? {
            ControlFlow::Break(stopped) => return Ok(stopped),
            ControlFlow::Continue(used) => bytes = used,
        }
    }
    Ok(next)
}

/// Reads and checks on other threads what is handed out here next.
fn scan_ahead(
    view: &View,
    from: Position,
    mut each: impl FnMut(&ScannedEvent<'_>) -> ControlFlow<()>,
) -> Result<Position, Fault> {
    let end_of = |stretch: Position| stretch.plus(STRETCH_EVENTS).min(view.head.next());
    std::thread::scope(|threads| {
        let reader = |number: u64| {
            let (blocks, read) = mpsc::sync_channel(BLOCKS_AHEAD);
            let (used, free) = mpsc::channel();
            threads.spawn(move || {
                let mut stretch = from.plus(number * STRETCH_EVENTS);
                while stretch <= view.head {
                    let (mut next, end) = (stretch, end_of(stretch));
                    while next < end {
                        let block = fetch::block(view, next..end, free.try_recv().unwrap_or_default());
                        // Behind what is wrong nothing is asked for.
                        let went_on = block.as_ref().is_ok_and(|block| block.next > next);
                        next = block.as_ref().map_or(next, |block| block.next);
                        // Whoever scans may have stopped.
                        if blocks.send(block).is_err() || !went_on {
                            return;
                        }
                    }
                    stretch = stretch.plus(READERS * STRETCH_EVENTS);
                }
            });
            (read, used)
        };
        let readers: Vec<_> = (0..READERS).map(reader).collect();
        let mut next = from;
        for (read, used) in readers.iter().cycle() {
            let end = end_of(next);
            while next < end {
                // A reader ends before only behind what was wrong, and has told so.
                let Ok(block) = read.recv() else { return Ok(next) };
                let block = block?;
                next = block.next;
                match block.each(|record| Ok(each(&ScannedEvent::of(record)?)))? {
                    ControlFlow::Break(stopped) => return Ok(stopped),
                    // If nothing more is to be read, nobody needs it.
                    ControlFlow::Continue(bytes) => drop(used.send(bytes)),
                }
            }
            if next > view.head {
                break;
            }
        }
        Ok(next)
    })
}
