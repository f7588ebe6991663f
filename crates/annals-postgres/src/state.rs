//! The state beside a log, in a schema: connections for the framework, which reads and writes the tables. It
//! sends the same statements in the transaction of an append, for inline projections.
//!
//! Data that is committed here can be derived from the log again, so a commit does not wait for the disk; a
//! crash of the server may undo the last commits, but none in part.

mod queue;

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, Result, StoreId};
use annals_sql::{Held, Line, Pool, Speaks};
use annals_state::{Answer, Dialect, Fault, Queued, Session, Sessions, Value};
use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::postgres::{PgArguments, PgConnection, PgDatabaseError};
use sqlx::{
    Arguments, AssertSqlSafe, Column, Connection, Either, Executor, Row, SqlSafeStr, Statement, ValueRef,
};

use crate::error::reason;
use crate::options::Address;
use crate::session::{Connected, Connector, StateOf};
use crate::value::{self, Cell};
use crate::{Options, schema, session};

/// A pooled connection that is idle for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// A schema with the state beside a log.
pub struct PostgresState {
    address: Address,
    options: Options,
    readers: Pool<Connector>,
    writers: Pool<Connector>,
    alone: Arc<Connector>,
    bound: StateOf,
}

impl PostgresState {
    /// The state with this address, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=SCHEMA`. Does not
    /// connect yet. Must be called on the runtime on which it is used.
    ///
    /// # Errors
    /// `Invalid` if the address is not valid.
    pub fn at(url: &str, options: Options) -> Result<Self> {
        let address: Address = url.parse()?;
        let bound = StateOf::default();
        let all = Connector::new(&address, &options, String::new(), None);
        let connector = |own: &str| {
            let set = format!("{}; {own}", settings(&address, &options));
            Connector::new(&address, &options, set, Some(bound.clone())).ended_with(&all)
        };
        let pool = |own: &str| {
            let pool = Pool::new(connector(own), options.connections_max, options.patience, IDLE);
            pool.reserve();
            pool
        };
        let readers = pool("SET default_transaction_read_only TO on");
        let writers = pool("SET synchronous_commit TO off");
        // A fencing token is durable before it is used, and does not wait for a standby.
        let alone = connector(
            "SET synchronous_commit TO local; \
             SELECT set_config('idle_session_timeout', '30000', false) \
             WHERE current_setting('idle_session_timeout', true) IS NOT NULL",
        );
        Ok(Self { alone: Arc::new(alone), readers, writers, bound, address, options })
    }
}

/// The settings that the state requires. Sessions that stay idle in a transaction are terminated.
fn settings(address: &Address, options: &Options) -> String {
    format!("{}; SET idle_in_transaction_session_timeout TO 60000", session::common(address, options))
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

    fn bind(&self, log: StoreId) {
        let _ = self.bound.set(log);
    }

    async fn reader(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Held::Lent(self.readers.lend().await.map_err(fault)?)))
    }

    async fn writer(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Held::Lent(self.writers.lend().await.map_err(fault)?)))
    }

    async fn alone(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Held::Alone(Line::open(&self.alone).await.map_err(fault)?)))
    }
}

#[async_trait]
impl Speaks for Connector {
    fn enter(place: &str, in_append: bool) -> String {
        match in_append {
            // The user's statements are planned as usual.
            true => format!(
                "SET LOCAL search_path TO \"{place}\", pg_temp; SET LOCAL enable_seqscan TO on; \
                 SET LOCAL enable_bitmapscan TO on; SET LOCAL enable_hashjoin TO on; SET LOCAL enable_mergejoin TO on"
            ),
            false => format!("SET search_path TO \"{place}\", pg_temp"),
        }
    }

    async fn script(connection: &mut Connected, sql: &str) -> Result<(), sqlx::Error> {
        connection.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    async fn run(connection: &mut Connected, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
        run(connection, sql, values).await
    }

    async fn run_all(connection: &mut Connected, statements: &[Queued]) -> Result<(), Fault> {
        queue::run_all(connection, statements).await
    }

    async fn number(connection: &mut Connected, sql: &str) -> Result<Option<i64>, sqlx::Error> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut **connection).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
    }

    fn fault(error: sqlx::Error) -> Fault {
        fault(error)
    }
}

/// Executes a statement. It is prepared first to get the types of its parameters, so the server alone
/// interprets the SQL.
async fn run(connection: &mut PgConnection, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
    let done = try_run(connection, sql, values).await;
    if let Err(Fault::Unavailable(_)) = done {
        // A table may have been recreated with other columns; the statement is prepared again.
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

/// Classifies an error for the sender of a statement.
pub(crate) fn fault(error: sqlx::Error) -> Fault {
    if let Some(reason) = reason(&error) {
        return reason.fault();
    }
    let refused = match &error {
        sqlx::Error::Database(refused) => {
            let refused = refused.downcast_ref::<PgDatabaseError>();
            let code = refused.code();
            // A statement whose table was recreated meanwhile can be sent again. Other unsupported features
            // have the same code, and messages are in the server's language, so the case is recognised by the
            // function in PostgreSQL's source.
            let is_old = code == "0A000" && refused.routine() == Some("RevalidateCachedQuery");
            let silent = code == "25P03";
            // The server is a standby: the address may lead to the primary again later.
            let standby = code == "25006";
            !is_old
                && !silent
                && !standby
                && ["0A", "21", "22", "23", "25", "2B", "42", "44", "P0", "3F"]
                    .contains(&code.get(..2).unwrap_or(""))
        }
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    };
    let cause: annals_core::Cause = match error {
        sqlx::Error::Database(refused) => {
            let refused = refused.downcast::<PgDatabaseError>();
            let hint = match refused.code() {
                "42501" => "; docs/sql-stores.md lists the required privileges",
                "25P03" | "57P05" => "; the session was idle for too long",
                _ => "",
            };
            let detail = refused.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("PostgreSQL: {}{detail}{hint}", refused.message()).into()
        }
        error => Box::new(error),
    };
    if refused { Fault::Refused(cause) } else { Fault::Unavailable(cause) }
}
