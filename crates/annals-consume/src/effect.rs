//! The effect of a consumer on the items of its source.

use std::sync::Arc;

use crate::source::Source;

/// Applies items: calls handlers, writes rows, sends messages.
///
/// A call may be dropped at any await: when the lease is lost, or when it does not end in time after a stop.
/// After a panic, the first item that was not reported as applied counts as failed.
pub trait Effect<S: Source>: Send + Sync + 'static {
    /// Applies these items in order, as far as it can. They are shared, so that an effect may apply them on
    /// another thread.
    ///
    /// `attempt` is the number of this attempt at the first item, from 1. An item that failed before is given
    /// alone. A call that may take long reports to `so_far` how many items are applied, so that the
    /// checkpoint does not wait for the others.
    fn apply(
        &self,
        items: &Arc<Vec<S::Item>>,
        attempt: u32,
        so_far: &SoFar<'_>,
    ) -> impl Future<Output = Applied> + Send;

    /// Called when everything that the source had is applied, before that is reported, and again after each
    /// read of the source.
    ///
    /// # Errors
    /// Why the consumer must resume: another process changed what the effect made durable.
    fn caught_up(&self) -> impl Future<Output = Result<(), String>> + Send {
        async { Ok(()) }
    }
}

/// Receives how many items are applied while a call is in progress.
pub struct SoFar<'a>(pub(crate) &'a (dyn Fn(usize) + Send + Sync));

impl SoFar<'_> {
    /// Reports that the first `count` items of the call are applied.
    pub fn applied(&self, count: usize) {
        (self.0)(count);
    }
}

impl std::fmt::Debug for SoFar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SoFar")
    }
}

/// How many items an effect has applied.
#[derive(Debug)]
pub struct Applied {
    /// The number of items, counted from the first one.
    pub count: usize,
    /// Why it stopped at the next item; `None` if all are applied.
    pub stopped: Option<Stopped>,
}

/// Why an effect stopped at an item.
#[derive(Debug)]
pub enum Stopped {
    /// The item failed. It is retried after a pause, and only later items of its key wait for it.
    Failed(String),
    /// No item can be applied now. All items wait, and this does not count as an attempt.
    Unavailable(String),
    /// A stop was requested before the item was begun.
    Interrupted,
    /// The effect has scheduled another attempt with the source, which will read the item and the later ones
    /// of its key again.
    Released,
    /// Another process changed what the effect made durable: the consumer must resume from there. An effect
    /// that returns this repeatedly pauses in between.
    Moved(String),
}

impl Applied {
    /// All items were applied, `count` of them.
    pub fn all(count: usize) -> Self {
        Self { count, stopped: None }
    }

    /// The first `count` items were applied, and then the effect stopped.
    pub fn stopped(count: usize, stopped: Stopped) -> Self {
        Self { count, stopped: Some(stopped) }
    }
}
