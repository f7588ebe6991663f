//! Migrations: creates the tables of a log, and updates them to this version of Annals.
//!
//! - M1  Of several processes that migrate concurrently, one migrates and the others wait for an advisory
//!       lock; they then find no missing steps. Existing objects are read from the tables of the catalog, in
//!       the snapshot of each statement: a backend's cache of names (`to_regclass`) may be older than the
//!       lock.
//! - M2  All missing steps are one transaction.
//! - M3  Tables that are newer than this version are refused, and left unchanged.
//! - M4  Functions that a dump did not include are created again.
//! - M5  An index over all events is created with a new log, and otherwise only by [`migrate`], while appends
//!       continue: no log waits for it when it is opened. An index that was left incomplete is dropped and
//!       created again.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, Invalid, Result, StoreId};
use annals_sql::{Line, Step, Stopped};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};
use uuid::Uuid;

use crate::Options;
use crate::error::{failed, stopped};
use crate::options::Address;
use crate::session::Connector;

/// The time limit for creating tables, and for waiting for another process that creates them.
const TABLES_MAX: Duration = Duration::from_secs(120);

/// The time limit for creating an index over all events, which may take long: it only ends a hung statement.
const INDEX_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The interval at which the lock is tried while another process creates the index.
const LOOK: Duration = Duration::from_millis(200);
/// The index of predecessors, without the command that creates it. Ordered by bytes, so that no change of a
/// system collation affects its order.
const PREDECESSORS: &str = "events_by_predecessor ON events (triggering_event COLLATE \"C\", position) \
     WHERE triggering_event IS NOT NULL";

/// Tables that belong together, with the table of their completed steps.
struct Part {
    /// The table of completed steps.
    migrations: &'static str,
    /// The SQL of each step, from 1 on. A released step does not change.
    steps: &'static [&'static str],
    /// Functions, and the step (from 0 on) that creates each.
    functions: &'static [(&'static str, usize)],
}

const LOG: Part = Part {
    migrations: "migrations",
    steps: &[
        include_str!("../sql/001_tables.sql"),
        include_str!("../sql/002_append.sql"),
        include_str!("../sql/003_assert_log.sql"),
        include_str!("../sql/004_owner.sql"),
        include_str!("../sql/005_newest.sql"),
    ],
    functions: &[("append_group", 1), ("assert_log", 2), ("assumed_after", 4)],
};

/// The state beside a log, which may be in another schema or database.
const STATE: Part = Part {
    migrations: "state_migrations",
    steps: &[
        include_str!("../sql/state/001_tables.sql"),
        include_str!("../sql/state/002_ladders.sql"),
        include_str!("../sql/state/003_leases.sql"),
    ],
    functions: &[],
};

/// Creates the tables of the log with this address and of the state beside it, or updates them, with the
/// indexes that a log of an earlier version does not have. Returns the number of missing steps. The log may
/// be used meanwhile.
///
/// # Errors
/// `Invalid` if the address is not valid, if the database is not in UTF-8, or if the tables are newer than
/// this version of Annals; `Unavailable` if PostgreSQL is not reached or refuses.
pub async fn migrate(url: &str) -> Result<usize> {
    let address: Address = url.parse()?;
    let mut schema = Schema::connect(&address, &Options::default()).await?;
    Ok(schema.run(&LOG).await? + schema.run(&STATE).await? + schema.index_predecessors().await?)
}

/// Creates or updates the tables of the state with this address, if steps are missing.
pub(crate) async fn open_state(address: &Address, options: &Options) -> Result<()> {
    let mut schema = Schema::connect(address, options).await?;
    if !schema.missing(&STATE).await?.is_nothing() {
        schema.run(&STATE).await?;
    }
    Ok(())
}

/// The identity of the log; creates or updates its tables, if steps are missing.
pub(crate) async fn open(address: &Address, options: &Options) -> Result<(StoreId, Opened)> {
    let mut schema = Schema::connect(address, options).await?;
    let missing = schema.missing(&LOG).await?;
    if options.replica && missing.steps > 0 {
        let problem = "the replica does not have the tables of the log yet";
        return Err(Error::Unavailable(problem.into()));
    }
    if options.existing && missing.steps > 0 {
        let all = missing.steps == LOG.steps.len();
        return Err(failed(stopped(if all { Stopped::NoLog } else { Stopped::OldTables })));
    }
    if !options.replica && !options.existing && !missing.is_nothing() {
        schema.run(&LOG).await?;
    }
    let id = schema.ask(async |connection| {
        warn(connection).await?;
        let row = sqlx::query("SELECT store_id FROM log").fetch_one(connection).await?;
        row.try_get::<Uuid, _>(0)
    });
    let id = StoreId::from_bytes(id.await?.into_bytes());
    Ok((id, Opened(schema)))
}

/// Logs a warning for each setting of the server that weakens the guarantees.
async fn warn(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row =
        connection.fetch_one("SELECT current_setting('fsync'), current_setting('full_page_writes')").await?;
    for (column, setting) in ["fsync", "full_page_writes"].into_iter().enumerate() {
        if row.try_get::<String, _>(column)? != "on" {
            tracing::warn!(
                setting,
                "is off: acknowledged events may be lost or corrupted if the machine fails"
            );
        }
    }
    Ok(())
}

/// The connection with which a log was opened.
pub(crate) struct Opened(Schema);

impl Opened {
    /// Checks, after another connection was opened and used, that this one still has its own session.
    ///
    /// # Errors
    /// If a pooler has assigned it another session.
    pub(crate) async fn check_same_log(mut self) -> Result<()> {
        let session = self.0.line.connection().session.clone();
        let found = self.0.ask(async |connection| {
            let sql = "SELECT current_setting('annals.session', true)";
            connection.fetch_one(sql).await?.try_get::<Option<String>, _>(0)
        });
        match found.await? == Some(session) {
            true => Ok(()),
            false => Err(failed(stopped(Stopped::Pooled))),
        }
    }
}

/// The missing objects of a part.
struct Missing {
    steps: usize,
    functions: Vec<usize>,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        self.steps == 0 && self.functions.is_empty()
    }
}

/// A connection to a schema, for migrations.
struct Schema {
    line: Line<Connector>,
    name: String,
    silence: Duration,
}

impl Schema {
    /// Opens a single connection: a pool would retry for long if the server is not reachable.
    async fn connect(address: &Address, options: &Options) -> Result<Self> {
        let connector = Arc::new(Connector::migrating(address, options));
        let line = Line::open(&connector).await.map_err(failed)?;
        Ok(Self { line, name: address.schema.clone(), silence: options.silence() })
    }

    /// Executes a query within the time limit.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T> {
        let limit = self.silence;
        self.within(limit, question).await
    }

    async fn within<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T> {
        let done = self.line.answered(limit, Step::Read, async |connection| work(connection).await);
        done.await.map_err(failed)
    }

    /// Finds the missing objects of this part.
    async fn missing(&mut self, part: &Part) -> Result<Missing> {
        let name = self.name.clone();
        let (done, functions) =
            self.ask(async move |connection| missing(connection, &name, part).await).await?;
        if done > part.steps.len() {
            let problem = format!(
                "has tables of step {done}, this version of Annals knows {}: use a newer one",
                part.steps.len()
            );
            return Err(Error::from(Invalid::new("store", problem)));
        }
        let functions = functions.into_iter().filter(|step| *step < done).collect();
        Ok(Missing { steps: part.steps.len() - done, functions })
    }

    /// Creates the missing objects of this part; returns their number.
    async fn run(&mut self, part: &Part) -> Result<usize> {
        let encoding = self.ask(async |connection| {
            connection.fetch_one("SHOW server_encoding").await?.try_get::<String, _>(0)
        });
        let encoding = encoding.await?;
        if encoding != "UTF8" {
            let problem = format!("is a database in {encoding}; create one with ENCODING 'UTF8'");
            return Err(Invalid::new("store", problem).into());
        }
        let name = self.name.clone();
        let lock = self.within(TABLES_MAX, async move |connection| {
            connection.execute("BEGIN").await?;
            let lock = "SELECT pg_advisory_xact_lock(hashtextextended('annals migrate ' || $1, 0))";
            sqlx::query(lock).bind(name).execute(connection).await
        });
        lock.await?;
        let missing = self.missing(part).await?;
        let name = self.name.clone();
        let count = missing.steps + missing.functions.len();
        let make = async move |connection: &mut PgConnection| {
            make(connection, &name, part, &missing).await?;
            connection.execute("COMMIT").await
        };
        self.within(TABLES_MAX, make).await?;
        Ok(count)
    }
}

impl Schema {
    /// Creates the index of predecessors if it is missing; returns the number of steps. Appends continue
    /// meanwhile.
    ///
    /// While another process creates the index, the lock is polled: `CREATE INDEX CONCURRENTLY` there would
    /// wait for a statement that blocks on the lock.
    async fn index_predecessors(&mut self) -> Result<usize> {
        let name = format!("annals index {}", self.name);
        loop {
            let lock = sqlx::query("SELECT pg_try_advisory_lock(hashtextextended($1, 0))").bind(&name);
            let locked = self.ask(async |connection| lock.fetch_one(connection).await?.try_get(0)).await?;
            if locked {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let (schema, there) = (self.name.clone(), self.index_is_valid().await?);
        if there != Some(true) {
            let make = async move |connection: &mut PgConnection| {
                // It waits for transactions that were open when it began, such as that of a dump.
                connection.execute("SET lock_timeout TO 0").await?;
                if there.is_some() {
                    let drop = format!("DROP INDEX CONCURRENTLY \"{schema}\".events_by_predecessor");
                    connection.execute(AssertSqlSafe(drop)).await?;
                }
                let create = format!("CREATE INDEX CONCURRENTLY {PREDECESSORS}");
                connection.execute(AssertSqlSafe(create)).await
            };
            self.within(INDEX_MAX, make).await?;
        }
        let unlock = sqlx::query("SELECT pg_advisory_unlock(hashtextextended($1, 0))").bind(&name);
        self.ask(async |connection| unlock.execute(connection).await).await?;
        Ok(usize::from(there != Some(true)))
    }

    /// Whether the index of predecessors is valid; `None` if it does not exist.
    async fn index_is_valid(&mut self) -> Result<Option<bool>> {
        let name = self.name.clone();
        self.ask(async move |connection| {
            let sql = "SELECT x.indisvalid FROM pg_catalog.pg_index AS x
                JOIN pg_catalog.pg_class AS c ON c.oid = x.indexrelid
                JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relname = 'events_by_predecessor'";
            let row = sqlx::query(sql).bind(name).fetch_optional(connection).await?;
            row.map(|row| row.try_get(0)).transpose()
        })
        .await
    }
}

/// Creates the missing objects of this part, in the open transaction.
async fn make(
    connection: &mut PgConnection,
    schema: &str,
    part: &Part,
    missing: &Missing,
) -> Result<(), sqlx::Error> {
    let Part { migrations, steps, .. } = part;
    let done = steps.len() - missing.steps;
    if done == 0 {
        // A role that may create tables in an existing schema may lack the privilege to create a schema.
        let there = sqlx::query("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)");
        let there = there.bind(schema).fetch_one(&mut *connection).await?;
        let create = match there.try_get::<bool, _>(0)? {
            true => String::new(),
            false => format!("CREATE SCHEMA \"{schema}\"; "),
        };
        let begin = format!(
            "{create}CREATE TABLE {migrations} (step integer PRIMARY KEY, done_at timestamptz NOT NULL DEFAULT now())"
        );
        connection.execute(AssertSqlSafe(begin)).await?;
    }
    for function in &missing.functions {
        connection.execute(steps[*function]).await?;
    }
    for (index, step) in steps.iter().enumerate().skip(done) {
        connection.execute(*step).await?;
        let mark = format!("INSERT INTO {migrations} (step) VALUES ($1)");
        let mark = sqlx::query(AssertSqlSafe(mark)).bind(index as i32 + 1);
        mark.execute(&mut *connection).await?;
    }
    if *migrations == LOG.migrations {
        if done == 0 {
            connection.execute(AssertSqlSafe(format!("CREATE INDEX {PREDECESSORS}"))).await?;
        }
        let identity = sqlx::query("INSERT INTO log (store_id) VALUES ($1) ON CONFLICT DO NOTHING");
        let id = Uuid::from_bytes(*StoreId::generate().as_bytes());
        identity.bind(id).execute(connection).await?;
    }
    Ok(())
}

/// The number of completed steps, and the steps whose functions are missing.
async fn missing(
    connection: &mut PgConnection,
    schema: &str,
    part: &Part,
) -> Result<(usize, Vec<usize>), sqlx::Error> {
    let Part { migrations, functions, .. } = part;
    let there = "SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2)";
    let there = sqlx::query(there).bind(schema).bind(migrations).fetch_one(&mut *connection).await?;
    if !there.try_get::<bool, _>(0)? {
        return Ok((0, Vec::new()));
    }
    let newest = format!("SELECT coalesce(max(step), 0) FROM \"{schema}\".{migrations}");
    let newest = sqlx::query(AssertSqlSafe(newest)).fetch_one(&mut *connection).await?;
    let sql = "SELECT p.proname::text FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = $1";
    let rows = sqlx::query(sql).bind(schema).fetch_all(connection).await?;
    let found: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    let found = found?;
    let missing = functions.iter().filter(|(name, _)| !found.iter().any(|there| there == name));
    let done = newest.try_get::<i32, _>(0)?;
    Ok((usize::try_from(done).unwrap_or(0), missing.map(|(_, step)| *step).collect()))
}
