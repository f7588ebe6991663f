//! What databases see of us, and we of them: values, rows, statements.
//!
//! No type of a library for databases is public, so that its version is not part of ours. The files: `value` (one
//! cell), `row` (one line of an answer), `rows` (the statements that a projection may run), `database` (SQLite: one
//! file), `line` (PostgreSQL, MariaDB and MySQL: statements of code that is not async).

mod database;
mod line;
mod row;
mod rows;
mod value;

pub use annals_sql::Dialect;
pub(crate) use database::{Database, Place, blocking, remove};
pub(crate) use line::{Line, carry, carry_out};
pub(crate) use row::read;
pub use row::{Column, FromRow, Row};
pub use rows::Rows;
pub(crate) use rows::select;
pub use value::{FromValue, Params, ToValue, Value};

use annals_core::{Cause, Error, Invalid, chain};
use annals_sql::Fault;
use rusqlite::ErrorCode;

use crate::Failure;

/// Why a database, or the reading of what it answered, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The database refused the statement, and would again.
    #[error("{}", chain(&**.0))]
    Statement(Cause),
    /// The database refuses what a projection says of its tables ([`SCHEMA`](crate::Projection::SCHEMA)), and would again.
    #[error("the database refuses the SCHEMA: {}", chain(&**.0))]
    Schema(Cause),
    /// The database does not answer, or not now: the connection is lost, a lock is held for too long.
    #[error("{}", chain(&**.0))]
    Unavailable(Cause),
    /// A value does not fit a column: whole numbers end at 9,223,372,036,854,775,807.
    #[error("{0} is too large for a column")]
    TooLarge(u64),
    /// A column is missing or holds something else.
    #[error("column {column} {problem}")]
    Column {
        /// The column's name or place.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The work was stopped half way, by a panic or by the end of the runtime. Nothing was written.
    #[error("the work on the database was stopped: {}", chain(&**.0))]
    Stopped(Cause),
}

/// A number for a column.
pub(crate) fn whole(number: u64) -> Result<i64, SqlError> {
    i64::try_from(number).map_err(|_| SqlError::TooLarge(number))
}

/// An error of SQLite.
#[derive(Debug, thiserror::Error)]
#[error("SQLite: {0}")]
struct Sqlite(rusqlite::Error);

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        let may_pass = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::OutOfMemory
                    | ErrorCode::SystemIoFailure
            )
        );
        let error = Box::new(Sqlite(error));
        if may_pass { Self::Unavailable(error) } else { Self::Statement(error) }
    }
}

/// What it means to somebody who opens or uses a store.
impl From<SqlError> for Error {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Unavailable(_) => Self::Unavailable(Box::new(error)),
            SqlError::Schema(cause) => {
                let problem = format!("has a SCHEMA that the database refuses: {}", chain(&*cause));
                Invalid::new("projection", problem).into()
            }
            SqlError::Statement(_) => Self::Unusable(Box::new(error)),
            SqlError::Column { .. } => Self::Unreadable(Box::new(error)),
            SqlError::TooLarge(_) | SqlError::Stopped(_) => Self::Internal(Box::new(error)),
        }
    }
}

impl SqlError {
    /// Whether this is what SQLite says of a broken file.
    pub(crate) fn is_of_broken_file(failure: &Failure) -> bool {
        failure.downcast_ref::<Self>().is_some_and(Self::is_broken_file)
    }

    /// Whether SQLite says that its file is broken.
    pub(crate) fn is_broken_file(&self) -> bool {
        let Self::Statement(cause) = self else { return false };
        cause.downcast_ref::<Sqlite>().is_some_and(|Sqlite(error)| is_broken(error))
    }
}

/// Whether a file is no database, or what is in it makes no sense.
pub(crate) fn is_broken(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        }
        _ => false,
    }
}

impl From<Fault> for SqlError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(cause) => Self::Statement(cause),
            Fault::Unavailable(cause) => Self::Unavailable(cause),
            Fault::Column { column, problem } => Self::Column { column, problem },
        }
    }
}
