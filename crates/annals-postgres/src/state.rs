//! The state beside a log, in a schema: connections for the framework, which knows the tables. What is said over one is
//! said in the same way in the transaction of an append, for inline projections.
//!
//! What is committed here can be made again from the log, so a commit does not wait for the disk; a crash of the server
//! may take back the last ones, whole ones only.

use std::time::Duration;

use annals_core::{Error, Result};
use annals_sql::{Answer, Dialect, Fault, Session, Sessions, Value};
use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgDatabaseError, PgPool};
use sqlx::{
    Arguments, AssertSqlSafe, Column, Connection, Either, Executor, Postgres, Row, SqlSafeStr, Statement,
    ValueRef,
};

use crate::options::Address;
use crate::value::{self, Cell};
use crate::{Options, schema, session};

/// A connection of a pool that nobody used for this long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// A schema with the state beside a log in it.
pub struct PostgresState {
    address: Address,
    options: Options,
    readers: PgPool,
    writers: PgPool,
}

impl PostgresState {
    /// The state with this address, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=SCHEMA`. Connects to nothing yet.
    /// Must be called on the runtime that it is used on.
    ///
    /// # Errors
    /// `Invalid` if the address is none.
    pub fn at(url: &str, options: Options) -> Result<Self> {
        let address: Address = url.parse()?;
        let readers = pool(&address, &options, "SET default_transaction_read_only TO on");
        let writers = pool(&address, &options, "SET synchronous_commit TO off");
        Ok(Self { address, options, readers, writers })
    }
}

fn pool(address: &Address, options: &Options, own: &str) -> PgPool {
    let set = format!("{}; {own}", settings(address, options));
    session::pool_of(options, set).idle_timeout(IDLE).connect_lazy_with(address.connect.clone())
}

/// What the state relies on. Whoever falls silent with something locked is thrown out.
fn settings(address: &Address, options: &Options) -> String {
    format!(
        "SET search_path TO \"{}\"; \
         SET default_transaction_isolation TO 'read committed'; \
         SET lock_timeout TO {}; \
         SET idle_in_transaction_session_timeout TO 60000; \
         SET standard_conforming_strings TO on",
        address.schema,
        options.patience.as_millis()
    )
}

#[async_trait]
impl Sessions for PostgresState {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn home(&self) -> &str {
        &self.address.schema
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
        let set = format!(
            "{}; SELECT set_config('idle_session_timeout', '30000', false) \
             WHERE current_setting('idle_session_timeout', true) IS NOT NULL",
            settings(&self.address, &self.options)
        );
        let connecting = session::connect_set(&self.address, &self.options, set);
        Ok(Box::new(Held::Alone(connecting.await.map_err(fault)?)))
    }
}

/// A connection, and whose it is.
pub(crate) enum Held<'a> {
    /// A pool's, which it goes back to.
    Lent { connection: PoolConnection<Postgres>, done: bool },
    /// Nobody else's: it ends with this.
    Alone(PgConnection),
    /// The writer's, with the transaction of a group open.
    Open(&'a mut PgConnection),
}

impl Held<'_> {
    /// What a pool lends, which ends with this unless it is said that nothing is open on it.
    fn lent(connection: PoolConnection<Postgres>) -> Self {
        Self::Lent { connection, done: false }
    }

    fn connection(&mut self) -> &mut PgConnection {
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
        let set = match self {
            // Until its end; and the statements of users are planned as usual.
            Self::Open(_) => format!(
                "SET LOCAL search_path TO \"{place}\"; SET LOCAL enable_seqscan TO on; SET LOCAL enable_bitmapscan TO on; \
                 SET LOCAL enable_hashjoin TO on; SET LOCAL enable_mergejoin TO on"
            ),
            _ => format!("SET search_path TO \"{place}\""),
        };
        self.script(&set).await
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

/// Carries out a statement. The server is asked first which types it takes, so that what SQL means is left to it.
async fn run(connection: &mut PgConnection, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
    let done = try_run(connection, sql, values).await;
    if let Err(Fault::Unavailable(_)) = done {
        // A table may have been made again with other columns; the statement is prepared anew.
        let _ = connection.clear_cached_statements().await;
    }
    done
}

async fn try_run(connection: &mut PgConnection, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
    let statement = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await.map_err(fault)?;
    let types = match statement.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    if types.len() != values.len() {
        return Err(Fault::refused(format!(
            "`{sql}` names {} values, is given {}",
            types.len(),
            values.len()
        )));
    }
    let mut arguments = PgArguments::default();
    for (place, (value, info)) in values.iter().zip(types).enumerate() {
        let added = arguments.add(Cell { value, info: info.clone() });
        added.map_err(|error| Fault::refused(format!("value {} of `{sql}`: {error}", place + 1)))?;
    }
    let mut answer = Answer::default();
    let mut steps = connection.fetch_many(statement.query_with(arguments));
    while let Some(step) = steps.try_next().await.map_err(fault)? {
        match step {
            Either::Left(done) => answer.changed += done.rows_affected(),
            Either::Right(row) => {
                if answer.rows.is_empty() {
                    answer.columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
                }
                answer.rows.push(columns(&row)?);
            }
        }
    }
    Ok(answer)
}

fn columns(row: &sqlx::postgres::PgRow) -> Result<Vec<Value>, Fault> {
    let read = |column: &sqlx::postgres::PgColumn| {
        let value = row.try_get_raw(column.ordinal()).map_err(fault)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        value::read(&value, column.type_info()).map_err(|problem| Fault::Column {
            column: format!("`{}`", column.name()),
            problem: problem.to_string(),
        })
    };
    row.columns().iter().map(read).collect()
}

/// What an error means for whoever has sent a statement.
pub(crate) fn fault(error: sqlx::Error) -> Fault {
    let refused = match &error {
        sqlx::Error::Database(refused) => {
            let code = refused.downcast_ref::<PgDatabaseError>().code();
            // A statement whose table was made anew meanwhile is to be sent again.
            let anew = code == "0A000" && refused.message().contains("cached plan");
            let silent = code == "25P03";
            !anew
                && !silent
                && ["0A", "21", "22", "23", "25", "2B", "42", "44", "P0", "3F"]
                    .contains(&code.get(..2).unwrap_or(""))
        }
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    };
    let told: annals_core::Cause = match error {
        sqlx::Error::Database(refused) => {
            let refused = refused.downcast::<PgDatabaseError>();
            let hint = match refused.code() {
                "42501" => "; docs/sql-stores.md says what the role must be allowed to",
                "25P03" | "57P05" => "; it was silent for too long",
                _ => "",
            };
            let detail = refused.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("PostgreSQL: {}{detail}{hint}", refused.message()).into()
        }
        sqlx::Error::PoolTimedOut => {
            "no connection in time: the server is not reached, or all of them are busy".into()
        }
        error => Box::new(error),
    };
    if refused { Fault::Refused(told) } else { Fault::Unavailable(told) }
}
