//! What a runner consumes: a source of items, and where its checkpoint is kept.
//!
//! ```text
//! source          item                 cursor of an item       checkpoint
//! a log           event                position and id         ladder
//! an outbox       message              row                     rows that are to be marked
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
    /// What is consumed.
    type Item: Send + Sync + 'static;
    /// The place of one item.
    type Cursor: Clone + Send + Sync + 'static;
    /// Where to resume.
    type Checkpoint: Send + Sync + 'static;

    /// Whether a checkpoint covers everything before it, so that it may only move past items that are applied with all that
    /// come before them. An outbox, whose messages are marked one by one, has no such order.
    const IS_ORDERED: bool = true;

    /// Items with equal keys are applied one after the other, in order.
    fn key(item: &Self::Item) -> impl Hash + '_;

    /// Names the item in messages.
    fn name(item: &Self::Item) -> String;

    /// The place of the item.
    fn cursor(item: &Self::Item) -> Self::Cursor;

    /// About how much memory the item needs, in bytes.
    fn bytes(item: &Self::Item) -> usize;

    /// Moves the checkpoint past these, which come next in the order of the source.
    fn advance(checkpoint: &mut Self::Checkpoint, applied: &[Self::Cursor]);

    /// Reads what comes after what was read last; without waiting for it.
    ///
    /// # Errors
    /// If the source cannot be read now. It may be asked again.
    fn read(&mut self) -> impl Future<Output = Result<Read<Self>, Cause>> + Send;

    /// Waits until there may be more to read.
    ///
    /// # Errors
    /// If that cannot be known now. It may be asked again.
    fn wait(&mut self) -> impl Future<Output = Result<(), Cause>> + Send;
}

/// What a source has read.
#[derive(Debug)]
pub enum Read<S: Source> {
    /// The next items.
    Page {
        /// In order. There may be none, also before the end.
        items: Vec<S::Item>,
        /// Up to where the source has looked, if that is beyond the last item.
        through: Option<S::Cursor>,
        /// Whether there was nothing more to read.
        is_end: bool,
    },
    /// The source no longer has what was read before: the consumer must find out where to resume.
    Lost,
}

/// Where a consumer keeps its checkpoint.
pub trait Checkpoints<S: Source>: Send + Sync + 'static {
    /// Opens the source at the checkpoint.
    ///
    /// # Errors
    /// If the checkpoint or the source cannot be read, or makes no sense. It is tried again.
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
    /// What comes after the checkpoint.
    pub source: S,
    /// The checkpoint.
    pub checkpoint: S::Checkpoint,
    /// What an operator should know about it.
    pub notice: Option<String>,
}

/// Why a checkpoint was not stored.
#[derive(Debug)]
pub enum WriteError {
    /// Not now. It is tried again with a later one.
    Unavailable(Cause),
    /// The checkpoint is no longer where this consumer left it: the consumer must resume where it is.
    Moved(Cause),
}

impl Source for LogReader {
    type Item = RecordedEvent;
    type Cursor = Witness;
    type Checkpoint = Ladder;

    fn key(event: &RecordedEvent) -> impl Hash + '_ {
        event.stream.as_str()
    }

    fn name(event: &RecordedEvent) -> String {
        format!("the event at position {}", event.position)
    }

    fn cursor(event: &RecordedEvent) -> Witness {
        Witness::of(event)
    }

    fn bytes(event: &RecordedEvent) -> usize {
        event.data.len() + size_of::<RecordedEvent>()
    }

    fn advance(ladder: &mut Ladder, applied: &[Witness]) {
        ladder.extend(applied);
    }

    async fn read(&mut self) -> Result<Read<Self>, Cause> {
        let before = self.seen();
        Ok(match self.next().await? {
            Found::Lost => Read::Lost,
            // A page that moved nothing was the end, if it could be read at all.
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
