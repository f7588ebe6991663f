//! The lineage of a log, by which it is recognised: its identity, and the newest event that this process
//! knows to be in it.
//!
//! - L1  Both are compared with the database on every connection, and in the transaction of every append and
//!       page: another log is refused, and a lost event is detected.
//! - L2  A server that follows another may not have an event yet. One that is read as the log itself refuses
//!       then: it is not older than what was read before. One that is read as a replica reports how far it
//!       is.
//! - L3  Another identity is never accepted. A lost event is accepted once: calls in progress fail with it,
//!       what is known of the log is dropped, and later calls use the log as it is.
//!
//! Next: `stopped`, the errors.

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
    /// An event that was found to be lost since the number of losses was this; `None` if there is none.
    pub fn lost_since(&self, losses: u64) -> Option<Witness> {
        self.lost.filter(|_| self.losses > losses)
    }
}

/// The log of a database, as the database reports it.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The identity of its log.
    pub store: StoreId,
    /// The event at the requested position; `None` if there is none.
    pub event: Option<EventId>,
    /// What the server is.
    pub role: Role,
}

/// The role of a server for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts writes: an event that it does not have is not in the log.
    Primary,
    /// It is read-only, as a standby is, and is read as the log itself.
    Standby,
    /// It is a standby, and is read as a replica, which may lag.
    Replica,
}

impl Role {
    /// The role of a server, by whether it is a standby.
    ///
    /// # Errors
    /// If it is read as a replica and is not a standby.
    pub fn of(follows: bool, read_as_replica: bool) -> Result<Self, Stopped> {
        match (follows, read_as_replica) {
            (true, true) => Ok(Self::Replica),
            (true, false) => Ok(Self::Standby),
            (false, false) => Ok(Self::Primary),
            (false, true) => Err(Stopped::NoReplica),
        }
    }

    /// Checks that a server has the events before a read: `from` is the first number that is read, and the
    /// server has those up to `end`.
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
    /// The log with this identity, of which no event is known yet. `progress` is corrected when events were
    /// lost.
    pub fn of(id: StoreId, progress: Progress) -> Self {
        Self { id, progress, known: Mutex::new(Known { newest: Witness::origin(id), losses: 0, lost: None }) }
    }

    /// The identity of the log.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The newest known event; the origin of the log if none is known.
    pub fn newest(&self) -> Witness {
        self.known().newest
    }

    /// How often events were found to be lost. A decision before the last loss may rest on lost events.
    pub fn losses(&self) -> u64 {
        self.known().losses
    }

    /// What is known now.
    pub(crate) fn now(&self) -> Known {
        *self.known()
    }

    /// Records that the log has at least this head.
    pub fn reached(&self, head: Position) {
        self.progress.passed(head);
    }

    /// Records that this event is in the log.
    pub fn saw(&self, event: Witness) {
        let mut known = self.known();
        if event.position > known.newest.position {
            known.newest = event;
        }
    }

    /// Records that the newest of these events is in the log.
    pub fn saw_all(&self, events: &[RecordedEvent]) {
        if let Some(newest) = events.iter().max_by_key(|event| event.position()) {
            self.saw(Witness::of(newest));
        }
    }

    /// Whether the log still has the event that was seen, if this is the event at its position.
    pub fn has(&self, seen: Witness, event: Option<EventId>) -> bool {
        match seen.position {
            Position::ZERO => seen == Witness::origin(self.id),
            _ => event == Some(seen.id),
        }
    }

    /// Compares the log of a database with the known one. `asked` is the event whose position was requested.
    ///
    /// # Errors
    /// If it is another log, or is read from a server that does not have the event yet. A lost event is
    /// recorded ([`lost`](Self::lost)).
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

    /// Records that the log has lost this event: drops what is known of the log, and wakes the calls that
    /// wait for it to grow.
    pub fn lost(&self, event: Witness) {
        let mut known = self.known();
        // Another call may have recorded it already, and newer events since.
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
        let message = refused.to_string();
        assert!(
            message.contains(&store.to_string()) && message.contains(&lineage.id().to_string()),
            "{message}"
        );
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
