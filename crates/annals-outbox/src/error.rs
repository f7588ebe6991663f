//! Why something about an outbox could not be done, by what the caller can do about it; and why a message could not be
//! published.

use std::fmt;

use annals_core::{Cause, EventId, Invalid, chain};

/// Why something about an outbox could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Wrong as asked; nothing was written.
    #[error("{0}")]
    Invalid(Invalid),
    /// The database has no such tables.
    #[error(
        "there are no tables of the outbox `{0}`: call `Outbox::migrate`, or put its SQL into your own migrations"
    )]
    NoTables(String),
    /// The tables are of a later version of Annals, which this one leaves alone.
    #[error("the tables of the outbox have format {0}, this version of Annals knows 1: use a newer one")]
    NewerTables(i64),
    /// There is no dead letter with this id.
    #[error("there is no dead letter with the id {0}")]
    NoDeadLetter(EventId),
    /// The database refuses or is not reached. After a failed statement the caller's transaction is to be rolled back.
    #[error("the database of the outbox fails: {}", chain(.0))]
    Database(sqlx::Error),
}

/// What is done with an outbox comes to this.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// Not by `#[from]`, which would make it the source of what prints it already.
impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl Error {
    /// What an error of the driver means, for the outbox of this name. A database is asked by code; SQLite has none that
    /// would tell a missing table from other mistakes.
    pub(crate) fn of(error: sqlx::Error, name: &str) -> Self {
        let missing = match &error {
            sqlx::Error::Database(refused) => {
                let code = refused.code().unwrap_or_default();
                matches!(&*code, "42P01" | "42S02") || refused.message().starts_with("no such table")
            }
            _ => false,
        };
        if missing { Self::NoTables(name.to_owned()) } else { Self::Database(error) }
    }
}

/// Why a sink did not take a message. Every error turns into one with `?`, which counts against the message; a sink
/// that knows that it is not the message's fault returns [`unavailable`](Failure::unavailable).
///
/// It is not itself a `std::error::Error`, as otherwise not every error could turn into one.
pub struct Failure {
    pub(crate) cause: Cause,
    pub(crate) unavailable: bool,
}

impl Failure {
    /// This message is refused: it is tried again after a while, and becomes a dead letter after the last attempt. Only
    /// messages of the same aggregate wait for it.
    pub fn refused(reason: impl Into<Cause>) -> Self {
        Self { cause: reason.into(), unavailable: false }
    }

    /// Nobody could publish anything now (the broker is away): all messages wait, and it counts against none of them.
    pub fn unavailable(reason: impl Into<Cause>) -> Self {
        Self { cause: reason.into(), unavailable: true }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::refused(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&chain(&*self.cause))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
