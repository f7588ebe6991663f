//! By which a log is recognised again: its identity, and the newest event that this process knows to be in it.
//!
//! - L1  Every connection, append and page carries both to the database and is refused or noticed there, in the same
//!       transaction, if the log is another one or has lost that event.
//! - L2  A server that follows another may not have an event yet. One that is read as the log itself refuses then: it is not
//!       older than what was read before. One that is read as a replica says how far it has come.
//! - L3  Another identity is never accepted. A lost event is accepted once: what was under way is answered with it, what
//!       is known of the log is dropped, and later calls are about the log as it is.
//!
//! Next: `stopped`, what a caller gets to know.

use std::sync::{Mutex, PoisonError};

use annals_core::{Direction, EventId, Position, RecordedEvent, StoreId, Witness};

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
    /// What the server is.
    pub role: Role,
}

/// What a server is to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes: what it does not have, the log does not have.
    Primary,
    /// It only reads, as one that follows another, and is read as the log itself.
    Standby,
    /// It follows another, and is read as a replica, which may be behind.
    Replica,
}

impl Role {
    /// The role of a server that says whether it follows another one.
    ///
    /// # Errors
    /// If it is read as a replica and follows none.
    pub fn of(follows: bool, read_as_replica: bool) -> Result<Self, Stopped> {
        match (follows, read_as_replica) {
            (true, true) => Ok(Self::Replica),
            (true, false) => Ok(Self::Standby),
            (false, false) => Ok(Self::Primary),
            (false, true) => Err(Stopped::NoReplica),
        }
    }

    /// Checks that a server has what comes before a read: `from` is the first number that is read, and the server has those up
    /// to `end`.
    ///
    /// # Errors
    /// If it does not have it yet.
    pub fn has(self, what: &str, from: u64, direction: Direction, end: u64) -> Result<(), Stopped> {
        let seen = match direction {
            Direction::Forward => from.saturating_sub(1),
            // The newest, whichever that is.
            Direction::Backward if from == u64::MAX => 0,
            Direction::Backward => from,
        };
        match self {
            Self::Standby if seen > end => Err(Stopped::Behind { seen: format!("{what} {seen}") }),
            _ => Ok(()),
        }
    }
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

    /// Whether the log has what was seen, if this is the event that it has at that position.
    pub fn has(&self, seen: Witness, event: Option<EventId>) -> bool {
        match seen.position {
            Position::ZERO => seen == Witness::origin(self.id),
            _ => event == Some(seen.id),
        }
    }

    /// Compares what a database has with the log. `asked` is the event that it was asked about.
    ///
    /// # Errors
    /// If it is another log, or is read from a server that does not have the event yet. A log that has lost the event is noted
    /// ([`lost`](Self::lost)).
    pub fn check(&self, asked: Witness, found: Found) -> Result<(), Stopped> {
        if found.store != self.id {
            return Err(Stopped::OtherLog { expected: self.id, found: found.store });
        }
        let is_there = match (found.event, found.role) {
            (Some(event), _) => event == asked.id,
            (None, _) if asked.position == Position::ZERO => true,
            (None, Role::Primary) => false,
            (None, role) => {
                return role.has("position", asked.position.get(), Direction::Backward, 0);
            }
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
    fn a_server_that_follows_and_is_behind_has_lost_nothing_and_a_primary_has() {
        let lineage = Lineage::of(StoreId::generate(), Progress::at(Position::new(3)));
        let newest = witness(3);
        lineage.saw(newest);
        let found = |event, role| Found { store: lineage.id(), event, role };
        lineage.check(newest, found(Some(newest.id), Role::Primary)).unwrap();
        lineage.check(newest, found(None, Role::Replica)).unwrap();
        let behind = lineage.check(newest, found(None, Role::Standby)).unwrap_err().to_string();
        assert!(behind.contains("position 3"), "{behind}");
        assert_eq!((lineage.newest(), lineage.losses()), (newest, 0));
        lineage.check(newest, found(None, Role::Primary)).unwrap();
        assert_eq!((lineage.newest(), lineage.losses()), (Witness::origin(lineage.id()), 1));
        lineage.check(newest, found(None, Role::Primary)).unwrap();
        assert_eq!(lineage.losses(), 1, "it is noted once");
        lineage.saw(witness(2));
        lineage.check(lineage.newest(), found(Some(witness(2).id), Role::Standby)).unwrap();
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
            lineage.check(lineage.newest(), Found { store, event: None, role: Role::Replica }).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains(&store.to_string()) && said.contains(&lineage.id().to_string()), "{said}");
    }

    #[test]
    fn a_standby_refuses_to_read_on_from_what_it_does_not_have() {
        use Direction::{Backward, Forward};
        for (from, direction, is_there) in [
            (4, Forward, true),
            (5, Forward, false),
            (3, Backward, true),
            (4, Backward, false),
            (0, Forward, true),
            (u64::MAX, Backward, true),
            (u64::MAX, Forward, false),
        ] {
            let has = |role: Role| role.has("position", from, direction, 3).is_ok();
            assert_eq!(has(Role::Standby), is_there, "{from} {direction:?}");
            assert!(has(Role::Primary) && has(Role::Replica));
        }
    }
}
