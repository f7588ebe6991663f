//! The statements that a projection may run while it applies an event.

#[cfg(feature = "sqlite")]
use std::sync::Arc;

#[cfg(feature = "sqlite")]
use rusqlite::{CachedStatement, Connection, params_from_iter};

#[cfg(feature = "sqlite")]
use crate::Value;
#[cfg(feature = "sqlite")]
use crate::file::{Cell, read_cell};
use crate::{Dialect, Params, Row, SqlError, StatementChannel, row};

/// The transaction in which a projection applies an event. Its changes and the checkpoint are committed together.
///
/// Values are `?1`, `?2`, … in every database. The SQL that works in all of them is in `docs/sql-stores.md`.
pub struct Tx<'a>(Over<'a>);

enum Over<'a> {
    #[cfg(feature = "sqlite")]
    Sqlite(&'a Connection),
    Database(&'a StatementChannel),
}

impl<'a> Tx<'a> {
    /// A transaction on this connection to SQLite.
    #[cfg(feature = "sqlite")]
    pub fn new(connection: &'a Connection) -> Self {
        Self(Over::Sqlite(connection))
    }

    /// A transaction on another database, through a channel to its connection.
    pub fn on(line: &'a StatementChannel) -> Self {
        Self(Over::Database(line))
    }

    /// The SQL dialect of the database, for statements that differ between databases.
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite(_) => Dialect::Sqlite,
            Over::Database(line) => line.dialect(),
        }
    }

    /// Fails if the transaction is rolled back already: SQLite does so after some errors, the other databases after every error. A
    /// caller that ignored such an error would write the rest without the part before it.
    ///
    /// # Errors
    /// With the statement that failed before.
    pub fn still_one_transaction(&self) -> Result<(), SqlError> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite(connection) if connection.is_autocommit() => {
                Err(SqlError::Statement("a statement failed and has undone the transaction".into()))
            }
            #[cfg(feature = "sqlite")]
            Over::Sqlite(_) => Ok(()),
            Over::Database(line) => line.still_whole(),
        }
    }

    /// Runs a statement and returns how many rows it changed; an update also counts rows whose values stay the same.
    ///
    /// # Errors
    /// If the database refuses the statement. Except in SQLite, applying the event fails then.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, SqlError> {
        self.still_one_transaction()?;
        let values = params.values()?;
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite(connection) => {
                Ok(prepare(connection, sql)?.execute(params_from_iter(values.iter().map(Cell)))?)
            }
            Over::Database(line) => Ok(usize::try_from(line.run(sql, values)?.changed).unwrap_or(usize::MAX)),
        }
    }

    /// Runs a query and reads every row of the result.
    ///
    /// # Errors
    /// If the database refuses or a row cannot be read.
    pub fn query<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        self.select(sql, params)?.iter().map(read).collect()
    }

    /// Runs a query and reads the first row of the result; `None` if it is empty.
    ///
    /// # Errors
    /// If the database refuses or the row cannot be read.
    pub fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row) -> Result<T, SqlError>,
    ) -> Result<Option<T>, SqlError> {
        self.select(sql, params)?.first().map(read).transpose()
    }

    fn select(&self, sql: &str, params: impl Params) -> Result<Vec<Row>, SqlError> {
        self.still_one_transaction()?;
        let values = params.values()?;
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite(connection) => select(connection, sql, &values),
            Over::Database(line) => Ok(row::read(line.run(sql, values)?)),
        }
    }
}

/// Prepares a statement of the user. Statements that begin or end a transaction are refused.
#[cfg(feature = "sqlite")]
fn prepare<'a>(connection: &'a Connection, sql: &str) -> Result<CachedStatement<'a>, SqlError> {
    let statement = connection.prepare_cached(sql)?;
    // What changes nothing by itself and answers with nothing: `BEGIN`, `COMMIT`, `SAVEPOINT` and the like.
    if statement.readonly() && statement.column_count() == 0 {
        return Err(SqlError::Statement(
            format!("`{sql}` is not for here: transactions are the framework's").into(),
        ));
    }
    Ok(statement)
}

/// The rows of a result of SQLite.
///
/// # Errors
/// If SQLite refuses.
#[cfg(feature = "sqlite")]
pub fn select(connection: &Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
    let mut statement = prepare(connection, sql)?;
    let columns: Arc<[String]> = statement.column_names().into_iter().map(String::from).collect();
    let mut answer = statement.query(params_from_iter(params.iter().map(Cell)))?;
    let mut rows = Vec::new();
    while let Some(row) = answer.next()? {
        let values = (0..columns.len()).map(|place| row.get_ref(place).map(read_cell));
        let values = values.collect::<Result<_, _>>()?;
        rows.push(Row { columns: columns.clone(), values });
    }
    Ok(rows)
}
