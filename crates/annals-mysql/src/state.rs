//! The state beside a log, in a database: connections for the framework, which knows the tables.

use std::time::Duration;

use annals_core::{Error, Result};
use annals_sql::{Answer, Dialect, Fault, Session, Sessions, Value};
use async_trait::async_trait;
use futures::{FutureExt, TryStreamExt};
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Either, Executor, MySql, Row};

use crate::error::{ENDED, number};
use crate::options::Address;
use crate::{Options, schema, session, value};

/// A connection of a pool that nobody used for this long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// Quotes and concatenation as the standard, PostgreSQL and SQLite have them; and what does not fit is refused, not cut.
pub(crate) const MODE: &str = "SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'";

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
    let set = format!("{}; {MODE}; {own}", session::settings(options));
    MySqlPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.patience)
        .idle_timeout(IDLE)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| session::is_there(connection, meta).boxed())
        .after_connect(move |connection, _| {
            let set = set.clone();
            async move { connection.execute(AssertSqlSafe(set)).await.map(drop) }.boxed()
        })
        .connect_lazy_with(address.connect.clone())
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
        Ok(Box::new(Lent::of(self.readers.acquire().await.map_err(fault)?)))
    }

    async fn writer(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Lent::of(self.writers.acquire().await.map_err(fault)?)))
    }

    async fn alone(&self) -> Result<Box<dyn Session>, Fault> {
        let connecting = tokio::time::timeout(self.options.patience, self.address.connect.connect());
        let connected = connecting.await.map_err(|_| fault(sqlx::Error::PoolTimedOut))?;
        let mut connection = connected.map_err(fault)?;
        // Whoever falls silent with something locked is thrown out.
        let set = format!("{}; {MODE}; SET SESSION wait_timeout = 30", session::settings(&self.options));
        connection.execute(AssertSqlSafe(set)).await.map_err(fault)?;
        Ok(Box::new(Alone(connection)))
    }
}

/// A connection of a pool.
struct Lent {
    connection: PoolConnection<MySql>,
    done: bool,
}

impl Lent {
    fn of(connection: PoolConnection<MySql>) -> Self {
        Self { connection, done: false }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.done {
            self.connection.close_on_drop();
        }
    }
}

#[async_trait]
impl Session for Lent {
    async fn enter(&mut self, place: &str) -> Result<(), Fault> {
        script(&mut self.connection, &enter(place)).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        script(&mut self.connection, sql).await
    }

    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
        run(&mut self.connection, sql, values).await
    }

    fn done(&mut self) {
        self.done = true;
    }
}

/// A connection that ends with this.
struct Alone(MySqlConnection);

#[async_trait]
impl Session for Alone {
    async fn enter(&mut self, place: &str) -> Result<(), Fault> {
        script(&mut self.0, &enter(place)).await
    }

    async fn script(&mut self, sql: &str) -> Result<(), Fault> {
        script(&mut self.0, sql).await
    }

    async fn run(&mut self, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
        run(&mut self.0, sql, values).await
    }

    fn done(&mut self) {}
}

/// From here on names of tables are those of this database.
pub(crate) fn enter(database: &str) -> String {
    format!("USE `{}`", database.replace('`', "``"))
}

pub(crate) async fn script(connection: &mut MySqlConnection, sql: &str) -> Result<(), Fault> {
    connection.execute(AssertSqlSafe(sql)).await.map(drop).map_err(fault)
}

pub(crate) async fn run(
    connection: &mut MySqlConnection,
    sql: &str,
    values: &[&Value],
) -> Result<Answer, Fault> {
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
