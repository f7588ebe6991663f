//! What an error of PostgreSQL means to the caller of the store: by its code, never by its text.

use annals_sql::{Failure, Moved, Step};
use sqlx::postgres::PgDatabaseError;

/// The log has moved: what `append_group` raises.
const MOVED: &str = "AN001";

/// The server's code of an error; empty if it is none of the server's.
fn code(error: &sqlx::Error) -> &str {
    match error {
        sqlx::Error::Database(refused) => refused.downcast_ref::<PgDatabaseError>().code(),
        _ => "",
    }
}

/// The same, read under the lock.
pub(crate) fn moved() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(Moved))
}

/// What this error means for what was under way.
pub(crate) fn failure(error: sqlx::Error, step: Step) -> Failure {
    let refused = match &error {
        // The server has answered, so it has rolled back, unless it is going down with the commit under way.
        sqlx::Error::Database(_) => !(code(&error).starts_with("57P") || code(&error).starts_with("08")),
        // Nothing was sent.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Encode(_) => true,
        _ => false,
    };
    let is_said = matches!(&error, sqlx::Error::Configuration(cause) if cause.is::<Moved>());
    if is_said || code(&error) == MOVED {
        return Failure::unavailable(Moved);
    }
    let hint = hint(&error);
    Failure::at(step, error, refused, hint)
}

/// What can be done about it.
fn hint(error: &sqlx::Error) -> &'static str {
    match (code(error), error) {
        ("", sqlx::Error::PoolTimedOut) => {
            "no connection in time: the server is not reached, or all of them are busy"
        }
        ("", sqlx::Error::Io(_)) => "the connection to PostgreSQL is lost, or there is none",
        ("", _) => "PostgreSQL did not answer",
        ("25006", _) => "this server only reads, it is a standby: name the primary",
        ("42P01" | "42883" | "3F000", _) => "there is no log here, or an older one: run `annals migrate`",
        ("42501", _) => "the role may not do this: grant it the tables of the schema",
        ("55P03", _) => "another process holds the log for too long",
        ("57014", _) => "the statement was cancelled or took longer than statement_timeout",
        (code, _) if code.starts_with("28") => "PostgreSQL does not let this role in",
        (code, _) if code.starts_with("53") => "PostgreSQL has run out of something",
        (code, _) if code.starts_with("57P") || code.starts_with("08") => {
            "PostgreSQL has ended the connection"
        }
        _ => "PostgreSQL refuses",
    }
}

/// A read that failed, for the caller.
pub(crate) fn failed(error: sqlx::Error) -> annals_core::Error {
    failure(error, Step::Read).into()
}
