//! Errors of an outbox, by what the caller can do about them, and the error of a sink.

use std::fmt;

use annals_core::{Cause, EventId, Invalid, chain};

/// An error of an outbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is not acceptable; nothing was written.
    #[error("{0}")]
    Invalid(Invalid),
    /// The database has no such tables.
    #[error(
        "there are no tables of the outbox `{0}`: call `Outbox::migrate`, or put its SQL into your own migrations"
    )]
    NoTables(String),
    /// The tables are of a later version of Annals, and are not used.
    #[error("the tables of the outbox have format {0}, this version of Annals knows 1: use a newer one")]
    NewerTables(i64),
    /// There is no dead letter with this id.
    #[error("there is no dead letter with the id {0}")]
    NoDeadLetter(EventId),
    /// The database refused a statement or cannot be reached. After a failed statement, roll the transaction
    /// back.
    #[error("the database of the outbox fails: {}", chain(.0))]
    Database(sqlx::Error),
}

/// The result of an operation on an outbox.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// Not by `#[from]`, which would make it the source of what prints it already.
impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl Error {
    /// Maps an error of the driver, for the outbox of this name, by its code. SQLite has no code for a
    /// missing table, so its message is compared.
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

/// The error of a sink. `?` turns every error into one that counts against the message. A sink that could
/// publish no other message either returns [`unavailable`](SinkError::unavailable).
///
/// It does not implement `std::error::Error`, because `From` could then not be implemented for every error.
#[doc(alias("Failure"))]
pub struct SinkError {
    pub(crate) cause: Cause,
    pub(crate) unavailable: bool,
}

impl SinkError {
    /// The message is refused: it is retried after [`Options::backoff`](crate::Options::backoff), and becomes
    /// a dead letter after [`Options::attempts_max`](crate::Options::attempts_max) attempts. Only messages of
    /// the same aggregate wait for it.
    pub fn refused(reason: impl Into<Cause>) -> Self {
        Self { cause: reason.into(), unavailable: false }
    }

    /// The sink can publish nothing now (the broker is down): all messages wait, and it counts against none
    /// of them.
    pub fn unavailable(reason: impl Into<Cause>) -> Self {
        Self { cause: reason.into(), unavailable: true }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for SinkError {
    fn from(error: E) -> Self {
        Self::refused(error)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&chain(&*self.cause))
    }
}

impl fmt::Debug for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
