//! The log as a projection reads it: events are decoded with the page in which they are read, while the rows
//! of the page before are written on another thread.

use std::borrow::Cow;
use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use annals_consume::{Ladder, LogReader, Read, Source, on_blocking_thread};
use annals_core::{Cause, Event, Position, RecordedEvent, Witness};

use crate::Recorded;
use crate::codec::{self, Parts, Unreadable};

/// More bytes than this are decoded on a thread for blocking work: other tasks of the runtime would wait.
const DECODED_HERE_MAX: usize = 512 << 10;

/// A stored event, decoded: to one event, or, by upcasters, to none or several.
pub(super) struct Decoded<E> {
    page: Arc<Page<E>>,
    index: usize,
}

impl<E> Clone for Decoded<E> {
    fn clone(&self) -> Self {
        Self { page: self.page.clone(), index: self.index }
    }
}

/// Stored events that were decoded together.
struct Page<E> {
    stored: Vec<Stored>,
    /// Of all stored events, in order.
    events: Vec<Recorded<E>>,
}

struct Stored {
    witness: Witness,
    append: Position,
    bytes: usize,
    /// The events in the page; or the stored event, if it could not be decoded.
    events: Result<Range<usize>, Box<RecordedEvent>>,
}

impl<E: Event> Decoded<E> {
    /// Decodes stored events. One that cannot be decoded is an error only when it is applied.
    pub fn all(stored: Vec<RecordedEvent>) -> Vec<Self> {
        let mut page =
            Page { stored: Vec::with_capacity(stored.len()), events: Vec::with_capacity(stored.len()) };
        for event in stored {
            let (witness, append, bytes) = (Witness::of(&event), event.append(), LogReader::bytes(&event));
            let begin = page.events.len();
            let events = match codec::numbered(&event) {
                Ok(Parts::One((part, decoded))) => {
                    page.events.push(Recorded::new(decoded, part, event));
                    Ok(begin..begin + 1)
                }
                Ok(Parts::Several(parts)) => {
                    let recorded = |(part, decoded)| Recorded::new(decoded, part, event.clone());
                    page.events.extend(parts.into_iter().map(recorded));
                    Ok(begin..page.events.len())
                }
                Err(_) => Err(Box::new(event)),
            };
            page.stored.push(Stored { witness, append, bytes, events });
        }
        let page = Arc::new(page);
        (0..page.stored.len()).map(|index| Self { page: page.clone(), index }).collect()
    }

    fn stored(&self) -> &Stored {
        &self.page.stored[self.index]
    }

    pub fn witness(&self) -> Witness {
        self.stored().witness
    }

    /// The position of the first event of the same append.
    pub fn append(&self) -> Position {
        self.stored().append
    }

    /// Whether the events of these two stand side by side in memory.
    pub fn is_followed_by(&self, next: &Self) -> bool {
        let are_decoded = self.stored().events.is_ok() && next.stored().events.is_ok();
        Arc::ptr_eq(&self.page, &next.page) && self.index + 1 == next.index && are_decoded
    }

    /// The events of stored ones each of which is [followed by](Self::is_followed_by) the next. A stored
    /// event that could not be decoded with its page is decoded again.
    ///
    /// # Errors
    /// If it cannot be decoded now either.
    pub fn events(run: &[Self]) -> Result<Cow<'_, [Recorded<E>]>, Unreadable> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Cow::default()) };
        match (&first.stored().events, &last.stored().events) {
            (Ok(begin), Ok(end)) => Ok(Cow::Borrowed(&first.page.events[begin.start..end.end])),
            (Err(event), _) | (_, Err(event)) => {
                Ok(Cow::Owned(codec::recorded(event)?.into_iter().collect()))
            }
        }
    }
}

/// A log whose events are decoded as they are read.
pub(super) struct DecodedLog<E> {
    log: LogReader,
    events: PhantomData<fn() -> E>,
}

impl<E> DecodedLog<E> {
    pub fn new(log: LogReader) -> Self {
        Self { log, events: PhantomData }
    }
}

impl<E: Event> Source for DecodedLog<E> {
    type Item = Decoded<E>;
    type Cursor = Witness;
    type Checkpoint = Ladder;

    /// All events have one key: the order of a projection is that of the log.
    fn key(_: &Decoded<E>) -> impl Hash + '_ {}

    fn name(decoded: &Decoded<E>) -> String {
        format!("the event at position {}", decoded.witness().position)
    }

    fn cursor(decoded: &Decoded<E>) -> Witness {
        decoded.witness()
    }

    fn bytes(decoded: &Decoded<E>) -> usize {
        decoded.stored().bytes
    }

    fn advance(ladder: &mut Ladder, applied: &[Witness]) {
        LogReader::advance(ladder, applied);
    }

    async fn read(&mut self) -> Result<Read<Self>, Cause> {
        Ok(match self.log.read().await? {
            Read::Lost => Read::Lost,
            Read::Page { items, through, is_end } => {
                let items = match items.iter().map(LogReader::bytes).sum::<usize>() {
                    ..=DECODED_HERE_MAX => Decoded::all(items),
                    // An error would be a failure of the log, and the next page would be read.
                    _ => match on_blocking_thread(move || Decoded::all(items)).await {
                        Some(items) => items,
                        // The runtime shuts down, and drops this.
                        None => std::future::pending().await,
                    },
                };
                Read::Page { items, through, is_end }
            }
        })
    }

    async fn wait(&mut self) -> Result<(), Cause> {
        Source::wait(&mut self.log).await
    }
}
