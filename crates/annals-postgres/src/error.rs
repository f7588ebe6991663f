//! Classifies errors of PostgreSQL for the caller of the store: by code, never by text.

use annals_core::{Cause, StoreId};
use annals_sql::{Failure, Step, Stopped, Verdict};
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use uuid::Uuid;

/// The server's error; `None` if the error comes from elsewhere.
fn of_server(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    match error {
        sqlx::Error::Database(refused) => Some(refused.downcast_ref()),
        _ => None,
    }
}

/// The server's error code; empty if the error is not from the server.
pub(crate) fn code(error: &sqlx::Error) -> &str {
    of_server(error).map_or("", PgDatabaseError::code)
}

/// Whether the server closed the connection with this error.
pub(crate) fn is_last(error: &sqlx::Error) -> bool {
    let severity = of_server(error).map(PgDatabaseError::severity);
    matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
}

/// Wraps an error of the store itself in an error of the library.
pub(crate) fn stopped(reason: Stopped) -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(reason))
}

/// The error of the store itself, raised here or by a function in the database (`sql/`).
pub(crate) fn reason(error: &sqlx::Error) -> Option<Stopped> {
    if let sqlx::Error::Configuration(cause) = error {
        return cause.downcast_ref().cloned();
    }
    let refused = of_server(error)?;
    match refused.code() {
        "AN001" => Some(Stopped::Moved),
        "AN002" => {
            let id = |text: &str| text.parse().ok().map(|id: Uuid| StoreId::from_bytes(id.into_bytes()));
            Some(Stopped::OtherLog { expected: id(refused.detail()?)?, found: id(refused.message())? })
        }
        "AN003" => Some(Stopped::OtherHistory { seen: refused.detail()?.parse().ok()? }),
        // The statements that the library prepared are missing, or those of another client are there too.
        "AN004" | "42P05" | "26000" => Some(Stopped::Pooled),
        _ => None,
    }
}

/// Classifies this error of a step.
pub(crate) fn failure(error: sqlx::Error, step: Step) -> Failure {
    if let Some(reason) = reason(&error) {
        return Failure::stopped(step, reason);
    }
    let code = code(&error);
    let verdict = match &error {
        sqlx::Error::Database(_) => match code.get(..2).unwrap_or("") {
            // The server has responded, so it has rolled back, unless it is shutting down during a commit.
            "08" => Verdict::Unknown,
            "57" if code.starts_with("57P") => Verdict::Unknown,
            "22" | "23" | "44" | "54" => Verdict::Refused,
            "P0" if code == "P0001" => Verdict::Refused,
            // A missing privilege, database, table or feature.
            "0A" | "28" | "3D" | "3F" | "42" => Verdict::Unusable,
            _ if ["57014", "53200", "53400"].contains(&code) && step == Step::Read => Verdict::Exhausted,
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

/// The server's message and code, without what the library adds: the location in PostgreSQL's source.
fn described(error: sqlx::Error) -> Cause {
    match of_server(&error) {
        Some(refused) => format!("{} ({})", refused.message(), refused.code()).into(),
        None => error.into(),
    }
}

/// What the caller can do about the error.
fn hint(error: &sqlx::Error) -> &'static str {
    match (code(error), error) {
        ("", sqlx::Error::Io(_)) => "no connection to PostgreSQL",
        ("", sqlx::Error::RowNotFound) => "there is no log here: its table `log` is empty",
        ("", _) => "no response from PostgreSQL",
        ("25006", _) => "this server is a read-only standby: use the address of the primary",
        ("42P01" | "42883" | "3F000", _) => "there is no log here, or an older one: run `annals migrate`",
        ("42501", _) => "the role lacks a privilege: grant it access to the tables of the schema",
        ("55P03", _) => "timed out waiting for the lock of the log",
        ("57014", _) => "the statement was cancelled or took longer than statement_timeout",
        (code, _) if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => {
            "the database refuses it"
        }
        (code, _) if code.starts_with("28") => "PostgreSQL does not accept this role or its password",
        (code, _) if code.starts_with("53") => "PostgreSQL is out of a resource",
        (code, _) if code.starts_with("57P") || code.starts_with("08") => {
            "PostgreSQL has ended the connection"
        }
        _ => "PostgreSQL refuses",
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
