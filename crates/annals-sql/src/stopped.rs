//! Why a store itself stops a call, apart from errors of its database.

use std::time::Duration;

use annals_core::{Error, Invalid, StoreId, Witness};

/// Why a store itself stops a call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Stopped {
    /// The log does not accept appends any longer.
    #[error("the log has moved to another database: ask where, and send it there")]
    Moved,
    /// The address leads to another log.
    #[error(
        "this address now leads to the log {found}, not to {expected}: check where it leads, then try again"
    )]
    OtherLog {
        /// The log that was opened.
        expected: StoreId,
        /// The log that is there.
        found: StoreId,
    },
    /// The log has lost events.
    #[error(
        "the log no longer has the event {} at position {}, which was there before: read it again, it has lost events",
        seen.id, seen.position
    )]
    OtherHistory {
        /// The event that was there.
        seen: Witness,
    },
    /// A standby does not have yet what was read before.
    #[error(
        "this server only reads, as one that follows another, and does not have {seen} yet: wait until it does, or have \
         the address lead to the primary"
    )]
    Behind {
        /// What it does not have.
        seen: String,
    },
    /// The log does not exist, and may not be created.
    #[error("there is no log: there are no tables of Annals here")]
    NoLog,
    /// The tables of the log are older than this version, and may not be changed.
    #[error("the tables of the log are those of an earlier version of Annals: run `annals migrate`")]
    OldTables,
    /// The index of predecessors is missing.
    #[error(
        "the log was made by an earlier version of Annals and has no index of predecessors, so nothing is found by them: run \
         `annals migrate`"
    )]
    NoPredecessors,
    /// The connection is not the one that it was.
    #[error(
        "the settings of the session are gone: a pooler between here and the database gives its connections to others \
         between transactions; it must keep sessions (pgbouncer: pool_mode = session)"
    )]
    Pooled,
    /// The server has not given the session the lock of its own name.
    #[error(
        "the server does not give locks to sessions (GET_LOCK): by them it is known which session to end"
    )]
    NoLock,
    /// A server that should be a standby accepts writes.
    #[error("this server follows no other any more, so it is no replica")]
    NoReplica,
    /// The server has a setting with which it does not do what the store relies on.
    #[error("{0}")]
    Setting(String),
    /// No connection of a pool was free in time.
    #[error("no connection in time: the server is not reached, or all of them are busy")]
    Busy,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The server has not answered in time.
    #[error("the database has not answered for {} ms: the connection is given up", .0.as_millis())]
    Silent(Duration),
    /// The statement is larger than the server accepts.
    #[error("takes {bytes} bytes, of {bytes_max} that the server's max_allowed_packet lets through")]
    TooLarge {
        /// The bytes.
        bytes: usize,
        /// The limit of the server.
        bytes_max: usize,
    },
}

impl Stopped {
    /// Whether a retry fails too until an operator changes something. An address may lead back, and a standby
    /// may catch up.
    pub(crate) fn needs_somebody(&self) -> bool {
        match self {
            Self::Moved
            | Self::NoLog
            | Self::OldTables
            | Self::NoPredecessors
            | Self::Pooled
            | Self::NoLock
            | Self::Setting(_)
            | Self::TooLarge { .. } => true,
            Self::OtherLog { .. }
            | Self::OtherHistory { .. }
            | Self::Behind { .. }
            | Self::NoReplica
            | Self::Busy
            | Self::Closed
            | Self::Silent(_) => false,
        }
    }
}

/// Whether an append was not written because the log was moved.
pub fn has_moved(error: &Error) -> bool {
    matches!(stopped(error), Some(Stopped::Moved))
}

/// What opening a store has failed with: a pooler that does not keep sessions is wrong as asked, not away for
/// a while.
pub fn of_opening(error: Error) -> Error {
    match stopped(&error) {
        Some(Stopped::Pooled) => Invalid::new("store", format!("cannot be used: {}", Stopped::Pooled)).into(),
        _ => error,
    }
}

/// The reason of the store itself, if there is one.
fn stopped(error: &Error) -> Option<&Stopped> {
    let mut cause = error.cause().map(|cause| cause as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(stopped) = error.downcast_ref::<Stopped>() {
            return Some(stopped);
        }
        if let Some(shared) = error.downcast_ref::<crate::cause::SharedCause>()
            && let Some(stopped) = shared.is::<Stopped>()
        {
            return Some(stopped);
        }
        cause = error.source();
    }
    None
}
