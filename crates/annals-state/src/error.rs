//! Errors of databases and their results, and errors of the state.

use annals_core::{Cause, Error, Invalid, chain};
#[cfg(feature = "sqlite")]
use rusqlite::ErrorCode;

use crate::Fault;

/// An error of a database, or of reading its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The database refused the statement; a retry fails too.
    #[error("{}", chain(&**.0))]
    Statement(Cause),
    /// The database refused the tables that a projection defines (its `SCHEMA`); a retry fails too.
    #[error("the database refuses the SCHEMA: {}", chain(&**.0))]
    Schema(Cause),
    /// The database is unavailable: the connection is lost, or a lock is held for too long. A retry may
    /// succeed.
    #[error("{}", chain(&**.0))]
    Unavailable(Cause),
    /// A value does not fit a column: whole numbers end at 9,223,372,036,854,775,807.
    #[error("{0} is too large for a column")]
    TooLarge(u64),
    /// A column is missing or has another type.
    #[error("column {column} {problem}")]
    Column {
        /// The name or index of the column.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The work was interrupted by a panic or by the end of the runtime. Nothing was written.
    #[error("the work on the database was stopped: {}", chain(&**.0))]
    Stopped(Cause),
}

/// A number for a column.
///
/// # Errors
/// [`SqlError::TooLarge`]
pub fn whole(number: u64) -> Result<i64, SqlError> {
    i64::try_from(number).map_err(|_| SqlError::TooLarge(number))
}

/// An error of SQLite.
#[cfg(feature = "sqlite")]
#[derive(Debug, thiserror::Error)]
#[error("SQLite: {0}")]
struct Sqlite(rusqlite::Error);

#[cfg(feature = "sqlite")]
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

/// Maps it to the error of opening or using a store.
impl From<SqlError> for Error {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Unavailable(_) => Self::Unavailable(Box::new(error)),
            SqlError::Schema(cause) => {
                let problem = format!("has a SCHEMA that the database refuses: {}", chain(&*cause));
                Invalid::new("projection", problem).into()
            }
            // What the store in the same database says is of its own kind.
            SqlError::Statement(cause) => match cause.downcast::<Self>() {
                Ok(of_store) => *of_store,
                Err(cause) => Self::Unusable(Box::new(SqlError::Statement(cause))),
            },
            SqlError::Column { .. } => Self::Unreadable(Box::new(error)),
            SqlError::TooLarge(_) | SqlError::Stopped(_) => Self::Internal(Box::new(error)),
        }
    }
}

#[cfg(feature = "sqlite")]
impl SqlError {
    /// Whether SQLite reports that its file is corrupt.
    pub fn is_broken_file(&self) -> bool {
        let Self::Statement(cause) = self else { return false };
        cause.downcast_ref::<Sqlite>().is_some_and(|Sqlite(error)| is_broken(error))
    }
}

/// Whether a file is not a database, or is corrupt.
#[cfg(feature = "sqlite")]
pub fn is_broken(error: &rusqlite::Error) -> bool {
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
            Fault::Store(error) => Self::Statement(Box::new(error)),
            Fault::Column { column, problem } => Self::Column { column, problem },
        }
    }
}

/// Maps an error of the state to the error of opening or using a store.
pub fn state_failed(error: impl Into<SqlError>) -> Error {
    error.into().into()
}

/// An error of reading or writing state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The stored checkpoint is invalid. It is not changed.
    #[error(
        "the checkpoint of `{name}` {problem}: correct its row in `checkpoints`, or remove it, \
         and the subscriber starts as for the first time"
    )]
    Unreadable {
        /// The name of the checkpoint.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another holder has acquired the lease. Nothing was written.
    #[error("the lease `{0}` is lost: another process has it, and nothing was written")]
    LeaseLost(String),
    /// The state cannot be used.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<SqlError> for StateError {
    fn from(error: SqlError) -> Self {
        Self::Failed(state_failed(error))
    }
}

impl From<Fault> for StateError {
    fn from(fault: Fault) -> Self {
        SqlError::from(fault).into()
    }
}

impl From<Invalid> for StateError {
    fn from(invalid: Invalid) -> Self {
        Self::Failed(invalid.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_store_keeps_its_kind() {
        assert!(matches!(state_failed(Fault::Store(Error::Closed)), Error::Closed));
        let damaged = Fault::Store(Error::Unusable("it is damaged".into()));
        let Error::Unusable(cause) = state_failed(damaged) else { panic!("it is unusable") };
        assert_eq!(cause.to_string(), "it is damaged");
        assert!(matches!(state_failed(Fault::refused("no such table")), Error::Unusable(_)));
    }
}
