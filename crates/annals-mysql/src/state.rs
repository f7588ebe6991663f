//! The state beside a log, in a database: connections for the framework, which knows the tables. What is said over one is
//! said in the same way in the transaction of an append, for inline projections.

use std::time::Duration;

use annals_core::{Error, Result};
use annals_sql::{Answer, Dialect, Fault, Session, Sessions, Value};
use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlPool};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Column, Either, Executor, MySql, Row};

use crate::error::{ENDED, number};
use crate::options::Address;
use crate::{Options, schema, session, value};

/// A connection of a pool that nobody used for this long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// A database with the state beside a log in it.
pub struct MySqlState {
    address: Address,
    options: Options,
    readers: MySqlPool,
    writers: MySqlPool,
}

impl MySqlState {
    /// The state with this address, `mysql://USER:PASSWORD@HOST:PORT/DATABASE`. Connects to nothing yet. Must be called on
    /// the runtime that it is used on.
    ///
    /// # Errors
    /// `Invalid` if the address is none.
    pub fn at(url: &str, options: Options) -> Result<Self> {
        let address: Address = url.parse()?;
        let readers = pool(&address, &options, "SET SESSION TRANSACTION READ ONLY");
        let writers = pool(&address, &options, "DO 0");
        Ok(Self { address, options, readers, writers })
    }
}

fn pool(address: &Address, options: &Options, own: &str) -> MySqlPool {
    let set = format!("{}; {own}", session::settings(options));
    session::pool_of(options, set).idle_timeout(IDLE).connect_lazy_with(address.connect.clone())
}

#[async_trait]
impl Sessions for MySqlState {
    fn dialect(&self) -> Dialect {
        Dialect::MySql
    }

    fn home(&self) -> &str {
        &self.address.database
    }

    async fn migrate(&self) -> Result<(), Error> {
        schema::open_state(&self.address, &self.options).await
    }

    async fn reader(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Held::lent(self.readers.acquire().await.map_err(fault)?)))
    }

    async fn writer(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Held::lent(self.writers.acquire().await.map_err(fault)?)))
    }

    async fn alone(&self) -> Result<Box<dyn Session>, Fault> {
        // Whoever falls silent with something locked is thrown out.
        let set = format!("{}; SET SESSION wait_timeout = 30", session::settings(&self.options));
        let connecting = session::connect_set(&self.address, &self.options, set);
        Ok(Box::new(Held::Alone(connecting.await.map_err(fault)?)))
    }
}

/// A connection, and whose it is.
pub(crate) enum Held<'a> {
    /// A pool's, which it goes back to.
    Lent { connection: PoolConnection<MySql>, done: bool },
    /// Nobody else's: it ends with this.
    Alone(MySqlConnection),
    /// The writer's, with the transaction of a group open.
    Open(&'a mut MySqlConnection),
}

impl Held<'_> {
    /// What a pool lends, which ends with this unless it is said that nothing is open on it: the driver would take the rest of
    /// an answer that nobody waited for to be that of the next question.
    pub(crate) fn lent(connection: PoolConnection<MySql>) -> Self {
        Self::Lent { connection, done: false }
    }

    pub(crate) fn connection(&mut self) -> &mut MySqlConnection {
        match self {
            Self::Lent { connection, .. } => connection,
            Self::Alone(connection) => connection,
            Self::Open(connection) => connection,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Self::Lent { connection, done: false } = self {
            connection.close_on_drop();
        }
    }
}

#[async_trait]
impl Session for Held<'_> {
    async fn enter(&mut self, place: &str) -> Result<(), Fault> {
        self.script(&enter(place)).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        self.connection().execute(AssertSqlSafe(sql)).await.map(drop).map_err(fault)
    }

    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
        run(self.connection(), sql, values).await
    }

    fn done(&mut self) {
        if let Self::Lent { done, .. } = self {
            *done = true;
        }
    }
}

/// From here on names of tables are those of this database.
pub(crate) fn enter(database: &str) -> String {
    format!("USE `{}`", database.replace('`', "``"))
}

async fn run(connection: &mut MySqlConnection, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
    let mut arguments = MySqlArguments::default();
    for value in values {
        value::add(&mut arguments, value).map_err(Fault::refused)?;
    }
    let mut answer = Answer::default();
    let mut steps = connection.fetch_many(sqlx::query_with(AssertSqlSafe(sql), arguments));
    while let Some(step) = steps.try_next().await.map_err(fault)? {
        match step {
            Either::Left(done) => answer.changed += done.rows_affected(),
            Either::Right(row) => {
                if answer.rows.is_empty() {
                    answer.columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
                }
                answer.rows.push(value::columns(&row)?);
            }
        }
    }
    Ok(answer)
}

/// What an error means for whoever has sent a statement.
pub(crate) fn fault(error: sqlx::Error) -> Fault {
    /// Locks, deadlocks, time, connections, memory and disk; a table that was made anew meanwhile.
    const LATER: [u16; 15] =
        [1021, 1030, 1040, 1041, 1114, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1412, 1615, 1969];
    let number = number(&error);
    let refused = match &error {
        sqlx::Error::Database(_) => !ENDED.contains(&number) && !LATER.contains(&number),
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        // The driver tells by this that a statement has other marks than values.
        sqlx::Error::Protocol(_) => true,
        _ => false,
    };
    let told: annals_core::Cause = match error {
        sqlx::Error::Database(refused) => {
            let hint = match number {
                1044 | 1142 | 1227 | 1370 => "; docs/sql-stores.md says what the user must be allowed to",
                1927 => "; it was silent for too long, or somebody has ended it",
                _ => "",
            };
            format!("the database: {}{hint}", refused.message()).into()
        }
        sqlx::Error::PoolTimedOut => {
            "no connection in time: the server is not reached, or all of them are busy".into()
        }
        error => Box::new(error),
    };
    if refused { Fault::Refused(told) } else { Fault::Unavailable(told) }
}
