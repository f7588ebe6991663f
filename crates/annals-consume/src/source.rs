//! The source of a runner, and the store of its checkpoint.
//!
//! ```text
//! source          item                 cursor of an item       checkpoint
//! a log           event                position and id         ladder
//! an outbox       message              row                     rows to be marked
//! a WAL, binlog   change               LSN and index           the same
//! a set of topics record               partition and offset    an offset for each partition
//! ```

use std::hash::Hash;

use annals_core::{Cause, RecordedEvent, Witness};

use crate::history::{Found, Ladder, LogReader};

/// Items in an order that can be resumed.
///
/// Cursor and checkpoint are opaque to the runner: it never compares two of them.
pub trait Source: Send + Sized + 'static {
    /// An item.
    type Item: Clone + Send + Sync + 'static;
    /// The place of one item.
    type Cursor: Clone + Send + Sync + 'static;
    /// The place where a consumer resumes.
    type Checkpoint: Send + Sync + 'static;

    /// Whether a checkpoint covers everything before it, so that it may move past an item only after all
    /// earlier items are applied. `false` for an outbox, whose messages are marked one by one.
    const IS_ORDERED: bool = true;

    /// Items with equal keys are applied one after the other, in order.
    fn key(item: &Self::Item) -> impl Hash + '_;

    /// The name of the item in messages.
    fn name(item: &Self::Item) -> String;

    /// The place of the item.
    fn cursor(item: &Self::Item) -> Self::Cursor;

    /// The approximate size of the item in memory, in bytes.
    fn bytes(item: &Self::Item) -> usize;

    /// Advances the checkpoint past these items, which come next in the order of the source.
    fn advance(checkpoint: &mut Self::Checkpoint, applied: &[Self::Cursor]);

    /// Reads the next items, without waiting for any.
    ///
    /// # Errors
    /// If the source cannot be read now. The call may be repeated.
    fn read(&mut self) -> impl Future<Output = Result<Read<Self>, Cause>> + Send;

    /// Waits until there may be more to read.
    ///
    /// # Errors
    /// If the source cannot be reached now. The call may be repeated.
    fn wait(&mut self) -> impl Future<Output = Result<(), Cause>> + Send;
}

/// The result of reading a source.
#[derive(Debug)]
pub enum Read<S: Source> {
    /// The next items.
    Page {
        /// In order. A page may be empty before the end, too.
        items: Vec<S::Item>,
        /// The place up to which the source was read, if that is beyond the last item.
        through: Option<S::Cursor>,
        /// Whether this was the end of the source.
        is_end: bool,
    },
    /// The source no longer has the items that were read before: the consumer must look for the place where
    /// to resume.
    Lost,
}

/// Where a consumer keeps its checkpoint.
pub trait Checkpoints<S: Source>: Send + Sync + 'static {
    /// Opens the source at the checkpoint.
    ///
    /// # Errors
    /// If the checkpoint or the source cannot be read, or they contradict each other. The call is repeated.
    fn resume(&self) -> impl Future<Output = Result<Resumed<S>, Cause>> + Send;

    /// Stores the checkpoint. Every item that it covers is applied.
    ///
    /// # Errors
    /// [`WriteError`].
    fn write(&self, checkpoint: &mut S::Checkpoint) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// A source that was opened at its checkpoint.
#[derive(Debug)]
pub struct Resumed<S: Source> {
    /// The source, to be read from the checkpoint on.
    pub source: S,
    /// The checkpoint.
    pub checkpoint: S::Checkpoint,
    /// A message for operators about the place where it resumes.
    pub notice: Option<String>,
}

/// Why a checkpoint was not stored.
#[derive(Debug)]
pub enum WriteError {
    /// It cannot be stored now. A later one is written instead.
    Unavailable(Cause),
    /// Another process has moved the checkpoint: the consumer must resume there.
    Moved(Cause),
}

impl Source for LogReader {
    type Item = RecordedEvent;
    type Cursor = Witness;
    type Checkpoint = Ladder;

    fn key(event: &RecordedEvent) -> impl Hash + '_ {
        event.stream()
    }

    fn name(event: &RecordedEvent) -> String {
        format!("the event at position {}", event.position())
    }

    fn cursor(event: &RecordedEvent) -> Witness {
        Witness::of(event)
    }

    fn bytes(event: &RecordedEvent) -> usize {
        event.data().len() + size_of::<RecordedEvent>()
    }

    fn advance(ladder: &mut Ladder, applied: &[Witness]) {
        ladder.extend(applied);
    }

    async fn read(&mut self) -> Result<Read<Self>, Cause> {
        let before = self.seen();
        Ok(match self.next().await? {
            Found::Lost => Read::Lost,
            // A page that reaches no further was the end.
            Found::Page { events, through, end } => Read::Page {
                items: events,
                through: (through != before).then_some(through),
                is_end: end || through == before,
            },
        })
    }

    async fn wait(&mut self) -> Result<(), Cause> {
        Ok(LogReader::wait(self).await?)
    }
}
