//! The statements that a projection may run while it applies an event.

#[cfg(feature = "sqlite")]
use std::cell::RefCell;
#[cfg(feature = "sqlite")]
use std::sync::Arc;

#[cfg(feature = "sqlite")]
use rusqlite::{CachedStatement, Connection, params_from_iter};

#[cfg(feature = "sqlite")]
use crate::Value;
#[cfg(feature = "sqlite")]
use crate::file::{Cell, read_cell};
use crate::{Dialect, Params, Row, SqlError, StatementChannel, row};

/// The transaction in which a projection applies an event. Its changes and the checkpoint are committed
/// together.
///
/// Values are `?1`, `?2`, … in every database. The SQL that works in all of them is in `docs/sql-stores.md`.
pub struct Tx<'a>(Over<'a>);

/// At most this many statements are kept for the rest of a transaction.
#[cfg(feature = "sqlite")]
const PREPARED_MAX: usize = 16;

enum Over<'a> {
    #[cfg(feature = "sqlite")]
    Sqlite {
        connection: &'a Connection,
        prepared: Prepared<'a>,
        /// Why a queued statement has failed. As in the other databases, nothing of the transaction stays
        /// then.
        failed: RefCell<Option<String>>,
    },
    Database(&'a StatementChannel),
}

/// Statements of this transaction, by their text: most events of a page run the same few.
#[cfg(feature = "sqlite")]
type Prepared<'a> = RefCell<Vec<(Box<str>, CachedStatement<'a>)>>;

impl<'a> Tx<'a> {
    /// A transaction on this connection to SQLite.
    #[cfg(feature = "sqlite")]
    pub fn new(connection: &'a Connection) -> Self {
        Self(Over::Sqlite { connection, prepared: Prepared::default(), failed: RefCell::default() })
    }

    /// A transaction on another database, through a channel to its connection.
    pub fn on(line: &'a StatementChannel) -> Self {
        Self(Over::Database(line))
    }

    /// The SQL dialect of the database, for statements that differ between databases.
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite { .. } => Dialect::Sqlite,
            Over::Database(line) => line.dialect(),
        }
    }

    /// Fails if the transaction is rolled back already: SQLite does so after some errors, the other databases
    /// after every error. A caller that ignored such an error would write the rest without the part before
    /// it.
    ///
    /// # Errors
    /// With the statement that failed before.
    pub fn still_one_transaction(&self) -> Result<(), SqlError> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite { connection, .. } if connection.is_autocommit() => {
                Err(SqlError::Statement("a statement failed and has undone the transaction".into()))
            }
            #[cfg(feature = "sqlite")]
            Over::Sqlite { failed, .. } => match &*failed.borrow() {
                None => Ok(()),
                Some(before) => {
                    let problem =
                        format!("a queued statement failed, so nothing of the transaction stays: {before}");
                    Err(SqlError::Statement(problem.into()))
                }
            },
            Over::Database(line) => line.still_whole(),
        }
    }

    /// Runs a statement and returns how many rows it changed; an update also counts rows whose values stay
    /// the same.
    ///
    /// # Errors
    /// If the database refuses the statement. Except in SQLite, applying the event fails then.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, SqlError> {
        self.still_one_transaction()?;
        let values = params.values()?;
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite { connection, prepared, .. } => {
                let mut prepared = prepared.borrow_mut();
                let statement = prepared_in(&mut prepared, connection, sql)?;
                Ok(statement.execute(params_from_iter(values.iter().map(Cell)))?)
            }
            Over::Database(line) => Ok(usize::try_from(line.run(sql, values)?.changed).unwrap_or(usize::MAX)),
        }
    }

    /// Runs a statement whose result is not asked for. In PostgreSQL, MariaDB and MySQL such statements are
    /// gathered and sent together, so that a statement costs no round trip of its own: at the latest before
    /// the next statement whose result is asked for, after 512 statements or a megabyte, and before the
    /// transaction is committed with the checkpoint. They are executed in the order in which they were
    /// queued, also with [`execute`](Self::execute) and [`query`](Self::query) between them. SQLite executes
    /// each at once.
    ///
    /// An error is reported by a later call, or after the event: nothing of its transaction stays then, and
    /// the events are applied one by one, each with what it has queued, so that the status names the event
    /// whose statement fails.
    ///
    /// ```
    /// # use annals_state::{SqlError, Tx};
    /// # fn apply(tx: &Tx<'_>) -> Result<(), SqlError> {
    /// tx.queue("INSERT INTO deposits (account, amount) VALUES (?1, ?2)", ("a1", 5))?;
    /// tx.queue("UPDATE accounts SET balance = balance + ?2 WHERE id = ?1", ("a1", 5))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the statement names other values than it is given, is none that reads or changes rows, or if an
    /// earlier one has failed.
    pub fn queue(&self, sql: &str, params: impl Params) -> Result<(), SqlError> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite { failed, .. } => {
                let done = self.execute(sql, params).map(drop);
                if let Err(error) = &done {
                    failed.borrow_mut().get_or_insert_with(|| error.to_string());
                }
                done
            }
            Over::Database(line) => {
                line.still_whole()?;
                line.queue(sql, params.values()?)
            }
        }
    }

    /// Executes what is queued, and fails if a statement has failed. The framework calls it after each event
    /// that is applied on its own.
    ///
    /// # Errors
    /// As [`still_one_transaction`](Self::still_one_transaction), or as the database says of a queued
    /// statement.
    pub fn flush(&self) -> Result<(), SqlError> {
        self.still_one_transaction()?;
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Over::Sqlite { .. } => Ok(()),
            Over::Database(line) => line.flush(),
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
            Over::Sqlite { connection, prepared, .. } => {
                let mut prepared = prepared.borrow_mut();
                rows_of(prepared_in(&mut prepared, connection, sql)?, &values)
            }
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

/// The same, prepared once a transaction.
#[cfg(feature = "sqlite")]
fn prepared_in<'a, 'p>(
    prepared: &'p mut Vec<(Box<str>, CachedStatement<'a>)>,
    connection: &'a Connection,
    sql: &str,
) -> Result<&'p mut CachedStatement<'a>, SqlError> {
    let index = match prepared.iter().position(|(known, _)| **known == *sql) {
        Some(index) => index,
        None => {
            prepared.truncate(PREPARED_MAX - 1);
            prepared.push((sql.into(), prepare(connection, sql)?));
            prepared.len() - 1
        }
    };
    Ok(&mut prepared[index].1)
}

/// The rows of a result of SQLite.
///
/// # Errors
/// If SQLite refuses.
#[cfg(feature = "sqlite")]
pub fn select(connection: &Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
    rows_of(&mut prepare(connection, sql)?, params)
}

#[cfg(feature = "sqlite")]
fn rows_of(statement: &mut CachedStatement<'_>, params: &[Value]) -> Result<Vec<Row>, SqlError> {
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
