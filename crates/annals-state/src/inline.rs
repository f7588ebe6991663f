//! What takes events in the transaction of their append: the projections of this process that are inline. A
//! store that can write their rows with an append hands out a list of them, [`Inlines`]; `annals_sql::inline`
//! is how stores on databases do it.

use std::sync::{Arc, PoisonError, RwLock};

use annals_core::{Cause, Invalid, Position, RecordedEvent, Witness};
use async_trait::async_trait;

use crate::Session;

/// A projection that takes events in the transaction of their append.
#[async_trait]
pub trait InlineProjection: Send + Sync + 'static {
    /// Takes the events of a group, in its transaction; says whether it did.
    async fn take(&self, session: &mut (dyn Session + '_), group: &Group) -> Result<bool, NotTaken>;

    /// What it took is committed: its rows show the log up to here.
    fn committed(&self, newest: Witness);
}

/// What a group has written, which is not committed yet.
#[derive(Clone, Debug)]
pub struct Group {
    /// Position of the last event before it.
    pub behind: Position,
    /// Its events, in order.
    pub events: Arc<[RecordedEvent]>,
}

/// Why a projection has not taken a group.
#[derive(Debug)]
pub enum NotTaken {
    /// It refuses an event: this one of the group.
    Refused {
        /// The event's place in the group, from 0 on.
        event: usize,
        /// What the caller of the append is answered.
        problem: Invalid,
    },
    /// The database does not answer as it should.
    Unavailable(Cause),
}

/// The inline projections of one store in this process. A clone is the same.
#[derive(Clone, Default)]
pub struct Inlines(Arc<RwLock<Vec<Arc<dyn InlineProjection>>>>);

/// An inline projection takes events as long as this is there.
#[must_use = "it takes events as long as this is there"]
pub struct Registration {
    inlines: Inlines,
    inline: Arc<dyn InlineProjection>,
}

impl Inlines {
    /// From now on it takes every event that this process appends.
    pub fn register(&self, inline: Arc<dyn InlineProjection>) -> Registration {
        // What is under the lock is whole after a panic too.
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(inline.clone());
        Registration { inlines: self.clone(), inline }
    }

    /// Those that take events now.
    pub fn all(&self) -> Vec<Arc<dyn InlineProjection>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inlines = self.inlines.0.write().unwrap_or_else(PoisonError::into_inner);
        inlines.retain(|inline| !Arc::ptr_eq(inline, &self.inline));
    }
}
