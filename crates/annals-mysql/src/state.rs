//! The state beside a log, in a database: connections for the framework, which reads and writes the tables.
//! It sends the same statements in the transaction of an append, for inline projections.

mod queue;

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, Result, StoreId};
use annals_sql::{Held, Line, Pool, Speaks};
use annals_state::{Answer, Dialect, Fault, Queued, Session, Sessions, Value};
use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::{AssertSqlSafe, Column, Connection, Either, Executor, Row};

use crate::error::{STATEMENTS, fault, number};
use crate::options::Address;
use crate::session::{Connected, Connector, StateOf};
use crate::{Options, schema, session, value};

/// A pooled connection that is idle for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// A database with the state beside a log.
pub struct MySqlState {
    address: Address,
    options: Options,
    readers: Pool<Connector>,
    writers: Pool<Connector>,
    alone: Arc<Connector>,
    bound: StateOf,
}

impl MySqlState {
    /// The state with this address, `mysql://USER:PASSWORD@HOST:PORT/DATABASE`. Does not connect yet. Must be
    /// called on the runtime on which it is used.
    ///
    /// # Errors
    /// `Invalid` if the address is not valid.
    pub fn at(url: &str, options: Options) -> Result<Self> {
        let address: Address = url.parse()?;
        let bound = StateOf::default();
        let all = Connector::new(&address, &options, String::new(), None);
        let connector = |own: &str| {
            let set = format!("{}; {own}", session::settings(&options));
            Connector::new(&address, &options, set, Some(bound.clone())).ended_with(&all)
        };
        let pool = |own: &str| {
            let pool = Pool::new(connector(own), options.connections_max, options.patience, IDLE);
            pool.reserve();
            pool
        };
        let readers = pool("SET SESSION TRANSACTION READ ONLY");
        // The locks of a connection whose machine has vanished are released.
        let writers = pool("SET SESSION wait_timeout = 60");
        // The server closes a connection that stays idle with a lock.
        let alone = Arc::new(connector("SET SESSION wait_timeout = 30"));
        Ok(Self { alone, readers, writers, bound, address, options })
    }
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
    fn enter(place: &str, _: bool) -> String {
        enter(place)
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

/// Sets the database of unqualified table names.
pub(crate) fn enter(database: &str) -> String {
    format!("USE `{}`", database.replace('`', "``"))
}

/// Executes a statement, which stays prepared while the server has room for it.
async fn run(connection: &mut Connected, sql: &str, values: &[&Value]) -> Result<Answer, Fault> {
    // The server would close the connection in the middle of the transfer.
    let (bytes, bytes_max) = (sql.len().max(packet_bytes(values)), connection.packet);
    if bytes > bytes_max {
        return Err(Fault::refused(format!(
            "a statement with its values has {bytes} bytes, more than the server's max_allowed_packet ({bytes_max}): raise it, or \
             write less at once"
        )));
    }
    match execute(connection, sql, values, true).await {
        Err(error) if number(&error) == STATEMENTS => {
            connection.clear_cached_statements().await.map_err(fault)?;
            execute(connection, sql, values, false).await.map_err(fault)?
        }
        answer => answer.map_err(fault)?,
    }
}

/// The bytes of the values in the server's protocol.
fn packet_bytes(values: &[&Value]) -> usize {
    let with_length = |bytes: usize| {
        bytes
            + match bytes {
                0..251 => 1,
                251..0x1_0000 => 3,
                0x1_0000..0x100_0000 => 4,
                _ => 9,
            }
    };
    let of_value = |value: &&Value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 8,
        Value::Text(text) => with_length(text.len()),
        Value::Blob(bytes) => with_length(bytes.len()),
    };
    // The header of the command, the NULL bitmap, the types, and the values.
    11 + values.len().div_ceil(8) + 2 * values.len() + values.iter().map(of_value).sum::<usize>()
}

async fn execute(
    connection: &mut MySqlConnection,
    sql: &str,
    values: &[&Value],
    keeps: bool,
) -> Result<Result<Answer, Fault>, sqlx::Error> {
    let mut arguments = MySqlArguments::default();
    for value in values {
        value::add(&mut arguments, value).map_err(sqlx::Error::Encode)?;
    }
    let mut answer = Answer::default();
    let statement = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(keeps);
    let mut steps = connection.fetch_many(statement);
    while let Some(step) = steps.try_next().await? {
        match step {
            Either::Left(done) => answer.changed += done.rows_affected(),
            Either::Right(row) => {
                if answer.rows.is_empty() {
                    answer.columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
                }
                match value::columns(&row) {
                    Ok(row) => answer.rows.push(row),
                    Err(fault) => return Ok(Err(fault)),
                }
            }
        }
    }
    Ok(Ok(answer))
}
