//! Classifies errors of MariaDB and MySQL for the caller of the store: by number, never by text.

use annals_core::{Cause, EventId, Position, StoreId, Witness};
use annals_sql::{Failure, Step, Stopped, Verdict};
use annals_state::Fault;
use sqlx::mysql::MySqlDatabaseError;

/// The server is shutting down, the connection or the statement was killed or timed out, or the commit itself
/// failed.
pub(crate) const ENDED: [u16; 7] = [1053, 1077, 1180, 1317, 1927, 3169, 4031];

/// Errors in the rows: a value that does not fit or has an invalid form, a violated constraint, a trigger
/// that raises an error.
const REFUSED: [u16; 15] =
    [1048, 1062, 1118, 1153, 1264, 1265, 1292, 1364, 1366, 1406, 1451, 1452, 1644, 3819, 4025];

/// A missing privilege, database, table or procedure, or a setting of the server: permanent until it is
/// changed.
const UNUSABLE: [u16; 15] =
    [1044, 1045, 1049, 1142, 1143, 1146, 1227, 1286, 1305, 1370, 1418, 1419, 1449, 1665, 1698];

/// A statement has used too much time or memory.
const EXHAUSTED: [u16; 5] = [1038, 1041, 1969, 3024, 1436];

/// The server has reached its limit of prepared statements.
pub(crate) const STATEMENTS: u16 = 1461;

/// Wraps an error of the store itself in an error of the library.
pub(crate) fn stopped(reason: Stopped) -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(reason))
}

/// The error of the store itself, raised here or by a procedure in the database (`sql/`), whose message
/// contains its values.
fn reason(error: &sqlx::Error) -> Option<Stopped> {
    let message = match error {
        sqlx::Error::Configuration(cause) => return cause.downcast_ref().cloned(),
        // Other software, such as ProxySQL, uses these numbers too: a SIGNAL of the store has this SQLSTATE.
        sqlx::Error::Database(refused) if refused.code().as_deref() == Some("45000") => refused.message(),
        _ => return None,
    };
    match number(error) {
        9001 => Some(Stopped::Moved),
        9002 => {
            let (expected, found) = message.split_once(' ')?;
            let id = |hex| id_of_hex(hex).map(StoreId::from_bytes);
            Some(Stopped::OtherLog { expected: id(expected)?, found: id(found)? })
        }
        9003 => {
            let (position, id) = message.split_once(' ')?;
            let position: Position = position.parse().ok()?;
            Some(Stopped::OtherHistory {
                seen: Witness { position, id: EventId::from_bytes(id_of_hex(id)?) },
            })
        }
        9004 => Some(Stopped::Pooled),
        _ => None,
    }
}

fn id_of_hex(hex: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

/// Classifies this error of a step.
pub(crate) fn failure(error: sqlx::Error, step: Step) -> Failure {
    if let Some(reason) = reason(&error) {
        return Failure::stopped(step, reason);
    }
    let number = number(&error);
    let verdict = match &error {
        sqlx::Error::Database(_) => match number {
            // The server has responded, so it has rolled back, unless it closed the connection during a
            // commit.
            _ if ENDED.contains(&number) => Verdict::Unknown,
            _ if REFUSED.contains(&number) => Verdict::Refused,
            _ if UNUSABLE.contains(&number) => Verdict::Unusable,
            _ if EXHAUSTED.contains(&number) && step == Step::Read => Verdict::Exhausted,
            _ => Verdict::Undone,
        },
        // Nothing was sent, or the table `log` has no row.
        sqlx::Error::Encode(_) | sqlx::Error::RowNotFound => Verdict::Unusable,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } if step == Step::Read => Verdict::Unusable,
        _ => Verdict::Unknown,
    };
    let hint = hint(&error);
    Failure::at(step, described(error), verdict, hint)
}

/// The server's message and number, without what the library adds.
fn described(error: sqlx::Error) -> Cause {
    match &error {
        sqlx::Error::Database(refused) => format!("{} ({})", refused.message(), number(&error)).into(),
        _ => error.into(),
    }
}

/// The server's error number; 0 if the error is not from the server.
pub(crate) fn number(error: &sqlx::Error) -> u16 {
    match error {
        sqlx::Error::Database(refused) => refused.downcast_ref::<MySqlDatabaseError>().number(),
        _ => 0,
    }
}

/// What the caller can do about the error.
fn hint(error: &sqlx::Error) -> &'static str {
    match (number(error), error) {
        (0, sqlx::Error::Io(_)) => "no connection to the database",
        (0, sqlx::Error::RowNotFound) => "there is no log here: its table `log` is empty",
        (0, _) => "no response from the database",
        (1290 | 1792 | 1836, _) => "this server is a read-only replica: use the address of the primary",
        (1146 | 1305, _) => "there is no log here, or an older one: run `annals migrate`",
        (1449, _) => {
            "a procedure belongs to a user who is not on this server: drop it and run `annals migrate`"
        }
        (1044 | 1045 | 1142 | 1370 | 1698, _) => {
            "the database denies this user access: check its privileges and its password"
        }
        (1205, _) => "timed out waiting for the lock of the log",
        (1153, _) => {
            "the append is larger than the server's max_allowed_packet: raise it, or append less at once"
        }
        (STATEMENTS, _) => {
            "all clients together keep too many prepared statements: raise max_prepared_stmt_count"
        }
        (1665, _) => "the server's binlog_format is STATEMENT: set it to ROW or MIXED",
        (1286, _) => "the server does not let tables be made with InnoDB: see enforce_storage_engine",
        (1969 | 3024, _) => "the statement took longer than the server allows",
        (1021 | 1030 | 1040 | 1041 | 1114 | 1203, _) => "the database is out of a resource",
        (number, _) if ENDED.contains(&number) => "the database has ended the statement",
        (number, _) if REFUSED.contains(&number) => "the database refuses it",
        _ => "the database refuses",
    }
}

/// The error of a failed read.
pub(crate) fn failed(error: sqlx::Error) -> annals_core::Error {
    match failure(error, Step::Read) {
        // Wrong in the database, not in the request.
        Failure::Refused(cause) => annals_core::Error::Unusable(Box::new(cause)),
        failure => failure.into(),
    }
}

/// Classifies an error for the sender of a statement.
pub(crate) fn fault(error: sqlx::Error) -> Fault {
    if let Some(reason) = reason(&error) {
        return reason.fault();
    }
    /// Limits on locks, time, connections, threads, memory or disk, and deadlocks; a table that was recreated
    /// meanwhile; a read-only server or a node that is not ready, because the address may lead to another
    /// server later.
    const LATER: [u16; 26] = [
        1021, 1030, 1040, 1041, 1047, 1114, 1135, 1158, 1159, 1160, 1161, 1203, 1205, 1206, 1213, 1226, 1290,
        1412, STATEMENTS, 1615, 1637, 1792, 1836, 1969, 3024, 3101,
    ];
    let number = number(&error);
    let refused = match &error {
        sqlx::Error::Database(_) => !ENDED.contains(&number) && !LATER.contains(&number),
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        // The driver returns this if the number of parameters differs from that of the values.
        sqlx::Error::Protocol(_) => true,
        _ => false,
    };
    let cause: Cause = match error {
        sqlx::Error::Database(refused) => {
            let hint = match number {
                1044 | 1142 | 1227 | 1370 => "; docs/sql-stores.md lists the required privileges",
                STATEMENTS => {
                    "; all clients together keep too many prepared statements: raise max_prepared_stmt_count"
                }
                1927 => "; the connection was idle for too long, or was killed",
                _ => "",
            };
            format!("the database: {}{hint}", refused.message()).into()
        }
        error => Box::new(error),
    };
    if refused { Fault::Refused(cause) } else { Fault::Unavailable(cause) }
}
