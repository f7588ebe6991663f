//! Whether a log has the index of predecessors. A log of an earlier version gets it by `annals migrate`, not
//! when it is opened. Without it a query by predecessor would scan the whole table, so it is refused.

use std::sync::atomic::{AtomicBool, Ordering};

use annals_core::{Append, Condition, Query, Result};

/// Whether the index of predecessors was found.
#[derive(Debug, Default)]
pub struct Predecessors {
    is_there: AtomicBool,
}

impl Predecessors {
    /// Checks for the index, by `look`, if the query names a predecessor and the index was not found before.
    ///
    /// # Errors
    /// `missing`, if it does not exist; those of `look`.
    pub async fn check(
        &self,
        named: bool,
        look: impl AsyncFnOnce() -> Result<bool>,
        missing: impl FnOnce() -> annals_core::Error,
    ) -> Result<()> {
        if !named || self.is_there.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Another process may have created it meanwhile.
        if !look().await? {
            return Err(missing());
        }
        self.is_there.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether a query names a predecessor.
pub fn names_predecessor(query: &Query) -> bool {
    query.items.iter().any(|item| item.predecessor.is_some())
}

/// Whether a condition of an append names a predecessor.
pub fn conditions_name_predecessor(append: &Append) -> bool {
    append.conditions.iter().any(|condition| match condition {
        Condition::NoMatch { query, .. } => names_predecessor(query),
        _ => false,
    })
}
