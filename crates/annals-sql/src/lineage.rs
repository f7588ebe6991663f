//! By which a log is recognised again: its identity, and the newest event that this process knows to be in it.
//!
//! - L1  Every connection, append and page carries both to the database and is refused or noticed there, in the same
//!       transaction, if the log is another one or has lost that event.
//! - L2  Another identity is never accepted. A lost event is accepted once: what was under way is answered with it, what
//!       is known of the log is dropped, and later calls are about the log as it is.
//!
//! Next: `stopped`, what a caller gets to know.

use std::sync::{Mutex, PoisonError};

use annals_core::{EventId, Position, RecordedEvent, StoreId, Witness};

use crate::{Progress, Stopped};

/// The identity of a log and the newest event of it that is known, for all connections of one store.
#[derive(Debug)]
pub struct Lineage {
    id: StoreId,
    progress: Progress,
    known: Mutex<Known>,
}

/// What is known of a log at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The newest event that is known.
    pub newest: Witness,
    /// How often events were found to be lost, and one of them.
    losses: u64,
    lost: Option<Witness>,
}

impl Known {
    /// An event that was found to be lost since the losses were this many, if any was.
    pub fn lost_since(&self, losses: u64) -> Option<Witness> {
        self.lost.filter(|_| self.losses > losses)
    }
}

/// What a database says of the log that it has.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The identity of its log.
    pub store: StoreId,
    /// The event at the position that was asked about; `None` if there is none.
    pub event: Option<EventId>,
    /// Whether the server only follows another, so that it may not have the newest events yet.
    pub follows: bool,
}

impl Lineage {
    /// The log with this identity, of which no event is known yet. `progress` is corrected when events were lost.
    pub fn of(id: StoreId, progress: Progress) -> Self {
        Self { id, progress, known: Mutex::new(Known { newest: Witness::origin(id), losses: 0, lost: None }) }
    }

    /// The identity of the log.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The newest event that is known. The origin of the log if none is.
    pub fn newest(&self) -> Witness {
        self.known().newest
    }

    /// How often events were found to be lost. What was decided before the last time may rest on lost events.
    pub fn losses(&self) -> u64 {
        self.known().losses
    }

    /// What is known now.
    pub(crate) fn now(&self) -> Known {
        *self.known()
    }

    /// The log goes to here, or further.
    pub fn reached(&self, head: Position) {
        self.progress.passed(head);
    }

    /// This event is in the log.
    pub fn saw(&self, event: Witness) {
        let mut known = self.known();
        if event.position > known.newest.position {
            known.newest = event;
        }
    }

    /// The newest of these events is in the log.
    pub fn saw_all(&self, events: &[RecordedEvent]) {
        if let Some(newest) = events.iter().max_by_key(|event| event.position) {
            self.saw(Witness::of(newest));
        }
    }

    /// Compares what a database has with the log. `asked` is the event that it was asked about.
    ///
    /// # Errors
    /// If it is another log. A log that has lost the event is noted ([`lost`](Self::lost)).
    pub fn check(&self, asked: Witness, found: Found) -> Result<(), Stopped> {
        if found.store != self.id {
            return Err(Stopped::OtherLog { expected: self.id, found: found.store });
        }
        let is_there = match found.event {
            Some(event) => event == asked.id,
            None => found.follows || asked.position == Position::ZERO,
        };
        if !is_there {
            self.lost(asked);
        }
        Ok(())
    }

    /// The log no longer has this event: nothing is known of it any more, and who waits for it to grow is woken.
    pub fn lost(&self, event: Witness) {
        let mut known = self.known();
        // Another call may have found out already, and gone on from there.
        if known.newest != event {
            return;
        }
        tracing::error!(
            log = %self.id,
            event = %event.id,
            position = %event.position,
            "the log has lost events: it no longer has the event that was at this position"
        );
        *known = Known { newest: Witness::origin(self.id), losses: known.losses + 1, lost: Some(event) };
        self.progress.lost(event);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // What is under the lock is whole after a panic too.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(position: u64) -> Witness {
        Witness { position: Position::new(position), id: EventId::generate() }
    }

    #[test]
    fn a_standby_that_is_behind_has_lost_nothing_and_a_primary_has() {
        let lineage = Lineage::of(StoreId::generate(), Progress::at(Position::new(3)));
        let newest = witness(3);
        lineage.saw(newest);
        let found = |event, follows| Found { store: lineage.id(), event, follows };
        lineage.check(newest, found(Some(newest.id), false)).unwrap();
        lineage.check(newest, found(None, true)).unwrap();
        assert_eq!((lineage.newest(), lineage.losses()), (newest, 0));
        lineage.check(newest, found(None, false)).unwrap();
        assert_eq!((lineage.newest(), lineage.losses()), (Witness::origin(lineage.id()), 1));
        lineage.check(newest, found(None, false)).unwrap();
        assert_eq!(lineage.losses(), 1, "it is noted once");
        lineage.saw(witness(2));
        lineage.check(lineage.newest(), found(Some(witness(2).id), true)).unwrap();
        assert_eq!(
            lineage.losses(),
            2,
            "another event at the position is another history, also on a standby"
        );
    }

    #[test]
    fn another_log_is_refused_with_both_identities() {
        let lineage = Lineage::of(StoreId::generate(), Progress::at(Position::ZERO));
        let store = StoreId::generate();
        let refused =
            lineage.check(lineage.newest(), Found { store, event: None, follows: true }).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains(&store.to_string()) && said.contains(&lineage.id().to_string()), "{said}");
    }
}
