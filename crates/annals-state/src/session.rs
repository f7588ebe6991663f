//! The interface to a connection to a database with state: statements and values, without a driver.

use std::sync::Arc;

use annals_core::{Cause, Error, StoreId, chain};
use async_trait::async_trait;

use crate::{Dialect, Translated, Value};

/// A connection on which statements are executed one after the other, each within a time limit.
///
/// Dropping it without [`Session::done`] closes it, so that no transaction stays open; dropping it during a
/// statement also cancels the statement on the server.
#[async_trait]
pub trait Session: Send {
    /// Sets the schema (in MariaDB and MySQL, the database) of unqualified table names.
    async fn enter(&mut self, place: &str) -> Result<(), Fault>;

    /// Executes statements without values and without a result, several in one text.
    async fn script(&mut self, sql: &str) -> Result<(), Fault>;

    /// Executes one statement in the dialect of the database, with its placeholders for these values.
    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault>;

    /// Executes statements whose results are not needed, one after the other, in as few round trips as the
    /// database allows. Stops at the first error, and the caller rolls back.
    async fn run_all(&mut self, statements: &[Queued]) -> Result<(), Fault>;

    /// Begins a transaction, sets this schema and executes a query without values there, in one round trip.
    /// Returns the whole number in the first column of its first row; `None` if there is no row.
    async fn begin(&mut self, place: &str, query: &str) -> Result<Option<i64>, Fault>;

    /// Returns it to its pool: no transaction is open.
    fn done(&mut self);
}

/// A statement whose result is not needed.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The statement, with the placeholders of the database.
    pub statement: Arc<Translated>,
    /// The values that `places` of the statement are indexes into.
    pub values: Vec<Value>,
}

impl Queued {
    /// The values, one for each placeholder.
    pub fn marked(&self) -> Vec<&Value> {
        self.statement.places.iter().map(|place| &self.values[*place]).collect()
    }
}

/// The result of a statement.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// How many rows it changed.
    pub changed: u64,
    /// The names of the columns; none if there is no row.
    pub columns: Arc<[String]>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<Value>>,
}

/// A database with state in it.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Its dialect.
    fn dialect(&self) -> Dialect;

    /// The schema, or in MariaDB and MySQL the database, that contains the state.
    fn home(&self) -> &str;

    /// Creates the tables of the state, or migrates them, if necessary.
    async fn migrate(&self) -> Result<(), Error>;

    /// Requires that every new connection leads to the state of this log.
    fn bind(&self, log: StoreId);

    /// Returns a connection of the pool for reading.
    async fn reader(&self) -> Result<Box<dyn Session>, Fault>;

    /// Returns a connection of the pool for writing.
    async fn writer(&self) -> Result<Box<dyn Session>, Fault>;

    /// Opens a new connection outside of the pools, for locks that last as long as it.
    async fn alone(&self) -> Result<Box<dyn Session>, Fault>;
}

/// Why a statement was not executed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The database refuses it; a retry fails too.
    #[error("{}", chain(&**.0))]
    Refused(Cause),
    /// The connection is lost, a lock is held for too long, or the server is busy. A retry may succeed.
    #[error("{}", chain(&**.0))]
    Unavailable(Cause),
    /// The store in the same database cannot be used until somebody repairs it.
    #[error(transparent)]
    Store(Error),
    /// A value of the result has a type that is not supported.
    #[error("column {column} {problem}")]
    Column {
        /// The column's name.
        column: String,
        /// What is wrong with it, and what can be done.
        problem: String,
    },
}

impl Fault {
    /// A [`Refused`](Self::Refused) with this cause.
    pub fn refused(cause: impl Into<Cause>) -> Self {
        Self::Refused(cause.into())
    }

    /// An [`Unavailable`](Self::Unavailable) with this cause.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(_) => Self::Unusable(Box::new(fault)),
            Fault::Column { .. } => Self::Unreadable(Box::new(fault)),
            Fault::Unavailable(_) => Self::Unavailable(Box::new(fault)),
            Fault::Store(error) => error,
        }
    }
}

/// Executes one statement that is written for all databases, with `?1`, `?2`, … for its values.
///
/// # Errors
/// Errors of the database.
pub async fn run(
    session: &mut (dyn Session + '_),
    dialect: Dialect,
    sql: &str,
    values: &[Value],
) -> Result<Answer, Fault> {
    let translated = dialect.translate(sql, values.len()).map_err(Fault::refused)?;
    let values: Vec<&Value> = translated.places.iter().map(|place| &values[*place]).collect();
    session.run(&translated.sql, &values).await
}
