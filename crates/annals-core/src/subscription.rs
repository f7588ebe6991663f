//! Subscriptions: events from a position on, first those stored, then live, without a seam.
//!
//! There is no hand-over from "catching up" to "live": a subscription reads the page behind the last one and,
//! at the end of the log, waits for the head to move. Because positions become visible in order and without
//! gaps (G4), nothing can be skipped or seen twice (G7).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{EventStore, LogPage, LogRead, Position, Query, RecordedEvent, Result};

/// Events after a position, in order, for ever.
pub struct Subscription {
    store: Arc<dyn EventStore>,
    read: LogRead,
    buffered: VecDeque<RecordedEvent>,
    delivered: Position,
}

impl Subscription {
    /// Every event after this position that the query means. `Position::ZERO` is from the beginning; a
    /// consumer's checkpoint is where it left off; the store's head is only what comes next.
    pub fn new(store: Arc<dyn EventStore>, after: Position, query: Query) -> Self {
        let read = LogRead::forward(after.next()).matching(query);
        Self { store, read, buffered: VecDeque::new(), delivered: after }
    }

    /// At most this many events in a page.
    #[must_use]
    pub fn page_limit(mut self, limit: usize) -> Self {
        self.read.limit = limit;
        self
    }

    /// The next event; waits for it if need be.
    ///
    /// # Errors
    /// As the store's reads; the subscription may be asked again and goes on where it was.
    pub async fn next(&mut self) -> Result<RecordedEvent> {
        loop {
            if let Some(event) = self.buffered.pop_front() {
                self.delivered = event.position;
                return Ok(event);
            }
            let page = self.fetch().await?;
            self.buffered = page.events.into();
            if self.buffered.is_empty() {
                self.delivered = page.next.previous();
            }
        }
    }

    /// The next page: at least one position further, perhaps without an event that the query means. Waits for
    /// the log to grow if need be.
    ///
    /// # Errors
    /// As the store's reads; the subscription may be asked again and goes on where it was.
    pub async fn next_page(&mut self) -> Result<LogPage> {
        let mut page = self.fetch().await?;
        if !self.buffered.is_empty() {
            let earlier = std::mem::take(&mut self.buffered);
            page.events.splice(..0, earlier);
        }
        self.delivered = page.next.previous();
        Ok(page)
    }

    /// The position up to which everything that the query means has been handed out.
    pub fn checkpoint(&self) -> Position {
        self.delivered
    }

    async fn fetch(&mut self) -> Result<LogPage> {
        loop {
            let page = self.store.read_log(self.read.clone()).await?;
            if page.next > self.read.from {
                self.read.from = page.next;
                return Ok(page);
            }
            self.store.wait(self.read.from.previous()).await?;
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("read", &self.read).field("delivered", &self.delivered).finish()
    }
}
