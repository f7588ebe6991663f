//! The lease: of all publishers of an outbox, one publishes.
//!
//! - L1  The database says who has it and until when, by its own clock.
//! - L2  The holder counts from before it asked, by a clock that only goes forward, so it lets go before the database does.
//! - L3  A message is given to the sink only if what is left of the lease is enough for that to end. So when another
//!       publisher begins, nothing of this one is under way, unless the process was stopped just then. What it does after
//!       that is a message again that the other one publishes too, in its place.
//! - L4  Messages that were chosen under one lease are not published under the next: another may have published since.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use annals_core::EventId;

use crate::{Outbox, Result};

pub(crate) struct Lease {
    holder: String,
    length: Duration,
    held: Mutex<Held>,
}

#[derive(Clone, Copy)]
struct Held {
    /// Grows each time that the lease is taken after it was lost.
    term: u64,
    until: Option<Instant>,
}

impl Lease {
    pub(crate) fn new(length: Duration) -> Self {
        let held = Mutex::new(Held { term: 0, until: None });
        Self { holder: EventId::generate().to_string(), length, held }
    }

    /// Takes or keeps the lease; says its term if this publisher has it.
    pub(crate) async fn keep(&self, outbox: &Outbox) -> Result<Option<u64>> {
        let now = Instant::now();
        let Held { term, until } = self.held();
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if left > self.length * 2 / 3 {
            return Ok(Some(term));
        }
        let has_it = outbox.lease(&self.holder, self.length).await?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = held.until.is_none_or(|until| until <= Instant::now());
        held.term += u64::from(lost || !has_it);
        held.until = has_it.then_some(now + self.length);
        Ok(has_it.then_some(held.term))
    }

    /// Whether the lease of this term will hold for so long.
    pub(crate) fn allows(&self, term: u64, time: Duration) -> bool {
        let held = self.held();
        held.term == term && held.until.is_some_and(|until| Instant::now() + time <= until)
    }

    /// Gives the lease back.
    pub(crate) async fn release(&self, outbox: &Outbox) -> Result<()> {
        if self.held().until.is_none() {
            return Ok(());
        }
        outbox.release(&self.holder).await
    }

    fn held(&self) -> Held {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
