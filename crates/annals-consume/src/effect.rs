//! What a runner does with items.

use crate::source::Source;

/// Applies items: calls handlers, writes rows, sends messages.
///
/// A call may be dropped at any await: when the lease is lost, or when it does not end in time after a stop. It may panic: then
/// the first item failed that it did not say was applied.
pub trait Effect<S: Source>: Send + Sync + 'static {
    /// Applies these items in order, as far as it can.
    ///
    /// `attempt` says which attempt this is of the first item, from 1. An item that failed before comes alone. What may take
    /// long says `so_far` how many of the items are applied, so that the checkpoint does not wait for the others.
    fn apply(
        &self,
        items: &[S::Item],
        attempt: u32,
        so_far: &SoFar<'_>,
    ) -> impl Future<Output = Applied> + Send;

    /// Everything that the source had is applied. Called before that is reported, and again whenever the source was looked at.
    ///
    /// # Errors
    /// Why the consumer must resume: what the effect made durable is not as it left it.
    fn caught_up(&self) -> impl Future<Output = Result<(), String>> + Send {
        async { Ok(()) }
    }
}

/// Takes note of items that are applied before the call that applies them ends.
pub struct SoFar<'a>(pub(crate) &'a (dyn Fn(usize) + Send + Sync));

impl SoFar<'_> {
    /// This many items of the call are applied, from the first one on.
    pub fn applied(&self, count: usize) {
        (self.0)(count);
    }
}

impl std::fmt::Debug for SoFar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SoFar")
    }
}

/// What an effect has applied.
#[derive(Debug)]
pub struct Applied {
    /// How many items, from the first one on.
    pub count: usize,
    /// Why it stopped at the next one; `None` if all are applied.
    pub stopped: Option<Stopped>,
}

/// Why an effect stopped at an item.
#[derive(Debug)]
pub enum Stopped {
    /// The item failed. It is tried again after a wait, and only later items of its key wait for it.
    Failed(String),
    /// Nothing can be applied now, whatever the item. Everything waits, and it does not count as an attempt.
    Unavailable(String),
    /// Nothing is wrong: a stop was asked for, and the item was not begun.
    Interrupted,
    /// The effect has arranged another attempt with the source, which will read the item again with the later ones of its key.
    Released,
    /// What the effect made durable is not as it left it: the consumer must resume where it is. An effect that finds this again
    /// and again waits in between.
    Moved(String),
}

impl Applied {
    /// All of this many items.
    pub fn all(count: usize) -> Self {
        Self { count, stopped: None }
    }

    /// This many items, and then it stopped.
    pub fn stopped(count: usize, stopped: Stopped) -> Self {
        Self { count, stopped: Some(stopped) }
    }
}
