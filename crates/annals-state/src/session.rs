//! A connection to a database with state in it, as the framework sees it: statements and values, no library.

use std::sync::Arc;

use annals_core::{Cause, Error, StoreId, chain};
use async_trait::async_trait;

use crate::{Dialect, Translated, Value};

/// A connection on which statements are executed one after the other, each within a time limit.
///
/// Dropped without [`Session::done`] it is closed, so that nothing which was begun on it stays open; dropped in the middle
/// of a statement, that is ended on the server too.
#[async_trait]
pub trait Session: Send {
    /// From here on bare names of tables are those of this schema; in MariaDB and MySQL, of this database.
    async fn enter(&mut self, place: &str) -> Result<(), Fault>;

    /// Carries out statements without values and without an answer, several in one text.
    async fn script(&mut self, sql: &str) -> Result<(), Fault>;

    /// Carries out one statement in the database's own words, with its marks for these values.
    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault>;

    /// Carries out statements whose answers nobody asks for, one after the other, in as few round trips as the database can.
    /// After one that fails none is executed, and the caller undoes the others.
    async fn run_all(&mut self, statements: &[Queued]) -> Result<(), Fault>;

    /// Begins a transaction, enters this schema and carries out a query without values there, in one round trip. Returns the whole
    /// number in the first column of its first row; `None` if there is no row.
    async fn begin(&mut self, place: &str, query: &str) -> Result<Option<i64>, Fault>;

    /// Says that nothing is open on it: others may have it.
    fn done(&mut self);
}

/// A statement whose answer nobody asks for.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The statement, with the database's marks.
    pub statement: Arc<Translated>,
    /// What `places` of the statement are places among.
    pub values: Vec<Value>,
}

impl Queued {
    /// The values, one for each mark.
    pub fn marked(&self) -> Vec<&Value> {
        self.statement.places.iter().map(|place| &self.values[*place]).collect()
    }
}

/// What a statement has answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// How many rows it has changed.
    pub changed: u64,
    /// The names of the columns; none if there is no row.
    pub columns: Arc<[String]>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<Value>>,
}

/// A database with state in it.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// What it speaks.
    fn dialect(&self) -> Dialect;

    /// The schema, or in MariaDB and MySQL the database, in which the state lies.
    fn home(&self) -> &str;

    /// Makes the tables of the state, or brings them up to date, if need be.
    async fn migrate(&self) -> Result<(), Error>;

    /// From here on every new connection must lead to the state of this log.
    fn bind(&self, log: StoreId);

    /// A connection of the pool of those that only read.
    async fn reader(&self) -> Result<Box<dyn Session>, Fault>;

    /// A connection of the pool of those that write.
    async fn writer(&self) -> Result<Box<dyn Session>, Fault>;

    /// A new connection that belongs to nobody else: for locks that last as long as it.
    async fn alone(&self) -> Result<Box<dyn Session>, Fault>;
}

/// Why a statement was not executed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The database refuses it, and would again.
    #[error("{}", chain(&**.0))]
    Refused(Cause),
    /// Not now: the connection is lost, a lock is held for too long, the server is busy. It may work later.
    #[error("{}", chain(&**.0))]
    Unavailable(Cause),
    /// The store in the same database cannot be used, and will not be until somebody changes something.
    #[error(transparent)]
    Store(Error),
    /// A value of the answer is of a kind that is not known here.
    #[error("column {column} {problem}")]
    Column {
        /// The column's name.
        column: String,
        /// What is wrong with it, and what can be done.
        problem: String,
    },
}

impl Fault {
    /// The database refuses, because of this.
    pub fn refused(cause: impl Into<Cause>) -> Self {
        Self::Refused(cause.into())
    }

    /// Not now, because of this.
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

/// Carries out one statement that is written for all databases, with `?1`, `?2`, … for its values.
///
/// # Errors
/// As the database says.
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
