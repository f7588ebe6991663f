//! What an error of MariaDB or MySQL means to the caller of the store: by its number, never by its text.

use annals_sql::{Failure, Moved, Step};
use sqlx::mysql::MySqlDatabaseError;

/// The server goes down, the connection or the statement was ended by somebody, or the commit itself has failed.
pub(crate) const ENDED: [u16; 5] = [1053, 1077, 1180, 1317, 1927];

/// The log has moved: what `append_begin` raises.
const MOVED: u16 = 9001;

/// The same, read under the lock.
pub(crate) fn moved() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(Moved))
}

/// What this error means for what was under way.
pub(crate) fn failure(error: sqlx::Error, step: Step) -> Failure {
    let refused = match &error {
        // The server has answered, so it has rolled back, unless it ended the connection with the commit under way.
        sqlx::Error::Database(_) => !ENDED.contains(&number(&error)),
        // Nothing was sent.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Encode(_) => true,
        _ => false,
    };
    let is_said = matches!(&error, sqlx::Error::Configuration(cause) if cause.is::<Moved>());
    if is_said || number(&error) == MOVED {
        return Failure::unavailable(Moved);
    }
    let hint = hint(&error);
    Failure::at(step, error, refused, hint)
}

/// The server's number of an error; 0 if it is none of the server's.
pub(crate) fn number(error: &sqlx::Error) -> u16 {
    match error {
        sqlx::Error::Database(refused) => refused.downcast_ref::<MySqlDatabaseError>().number(),
        _ => 0,
    }
}

/// What can be done about it.
fn hint(error: &sqlx::Error) -> &'static str {
    match (number(error), error) {
        (0, sqlx::Error::PoolTimedOut) => {
            "no connection in time: the server is not reached, or all of them are busy"
        }
        (0, sqlx::Error::Io(_)) => "the connection to the database is lost, or there is none",
        (0, _) => "the database did not answer",
        (1290 | 1792 | 1836, _) => "this server only reads, it is a replica: name the primary",
        (1146 | 1305, _) => "there is no log here, or an older one: run `annals migrate`",
        (1044 | 1045 | 1142 | 1370 | 1698, _) => "the database does not let this user do this",
        (1205, _) => "another process holds the log for too long",
        (1153, _) => {
            "the append is larger than the server's max_allowed_packet: raise it, or append less at once"
        }
        (1969 | 3024, _) => "the statement took longer than the server allows",
        (1021 | 1030 | 1040 | 1041 | 1114 | 1203, _) => "the database has run out of something",
        (number, _) if ENDED.contains(&number) => "the database has ended the statement",
        _ => "the database refuses",
    }
}

/// A read that failed, for the caller.
pub(crate) fn failed(error: sqlx::Error) -> annals_core::Error {
    failure(error, Step::Read).into()
}
