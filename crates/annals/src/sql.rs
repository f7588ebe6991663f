//! What SQLite sees of us, and we of it: values, rows, and databases that are one file each.
//!
//! No type of the SQLite library is public, so that its version is not part of ours. The files: `value` (one
//! cell), `row` (one line, and the statements that a projection may run), `database` (one file).

mod database;
mod row;
mod value;

pub(crate) use database::{Database, Place, blocking, remove};
pub(crate) use row::select;
pub use row::{Column, FromRow, Row, Rows};
pub use value::{FromValue, Params, ToValue, Value};

use annals_core::Cause;

/// Why SQLite, or the reading of what it answered, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// SQLite refused the statement.
    #[error("SQLite: {0}")]
    Statement(Cause),
    /// A value does not fit SQLite: its whole numbers end at 9,223,372,036,854,775,807.
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
    #[error("the work on the database was stopped: {0}")]
    Stopped(Cause),
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Statement(Box::new(error))
    }
}
