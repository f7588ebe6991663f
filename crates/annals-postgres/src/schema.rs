//! Migrations: the tables of a log are made, and brought to what this version of Annals knows.
//!
//! - M1  Of several processes that migrate at once, one does it and the others wait, under an advisory lock; they find
//!       nothing left to do. What is there is read from the tables of the catalog, in the snapshot of each statement: what
//!       a backend keeps of names (`to_regclass`) may be older than the lock.
//! - M2  All missing steps are one transaction.
//! - M3  Tables that are newer than this version are refused, and left as they are.
//! - M4  Functions that a dump has left out are made again.
//! - M5  An index over all events is made with a new log, and otherwise only by [`migrate`], beside the appends that go on
//!       meanwhile: no log waits for it when it is opened. One that was left half made is dropped and made again.

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
use crate::session::Door;

/// A server that has not answered for this long while tables are made, or while another process makes them, is given up.
const TABLES_MAX: Duration = Duration::from_secs(120);

/// An index over all events may take long to be made: this only ends what has hung.
const INDEX_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often who waits for another that makes the index looks whether it is done.
const LOOK: Duration = Duration::from_millis(200);
/// The index of predecessors, but for how it is made. By bytes, so that no collation of the system can change its order.
const PREDECESSORS: &str = "events_by_predecessor ON events (triggering_event COLLATE \"C\", position) \
     WHERE triggering_event IS NOT NULL";

/// Tables that belong together, and where it is noted how far they are.
struct Part {
    /// The table of the steps that were done.
    migrations: &'static str,
    /// What each step does, from 1 on. A step that was released does not change.
    steps: &'static [&'static str],
    /// Functions, and the step (from 0 on) that makes each.
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

/// The state beside a log, which may lie elsewhere.
const STATE: Part = Part {
    migrations: "state_migrations",
    steps: &[
        include_str!("../sql/state/001_tables.sql"),
        include_str!("../sql/state/002_ladders.sql"),
        include_str!("../sql/state/003_leases.sql"),
    ],
    functions: &[],
};

/// Makes the tables of the log with this address and of the state beside it, or brings them up to date, with the indexes that
/// a log of an earlier version does not have. Returns how many steps were missing. Others may use the log meanwhile.
///
/// # Errors
/// `Invalid` if the address is none, if the database is not in UTF-8, or if the tables are newer than this version of
/// Annals; `Unavailable` if PostgreSQL is not reached or refuses.
pub async fn migrate(url: &str) -> Result<usize> {
    let address: Address = url.parse()?;
    let mut schema = Schema::connect(&address, &Options::default()).await?;
    Ok(schema.run(&LOG).await? + schema.run(&STATE).await? + schema.index_predecessors().await?)
}

/// Makes the tables of the state with this address, or brings them up to date, if need be.
pub(crate) async fn open_state(address: &Address, options: &Options) -> Result<()> {
    let mut schema = Schema::connect(address, options).await?;
    if !schema.missing(&STATE).await?.is_nothing() {
        schema.run(&STATE).await?;
    }
    Ok(())
}

/// The identity of the log; makes its tables, or brings them up to date, if need be.
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

/// Reports what the server is set to that takes from the guarantees.
async fn warn(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row =
        connection.fetch_one("SELECT current_setting('fsync'), current_setting('full_page_writes')").await?;
    for (column, setting) in ["fsync", "full_page_writes"].into_iter().enumerate() {
        if row.try_get::<String, _>(column)? != "on" {
            tracing::warn!(setting, "is off: acknowledged events may be lost or broken with the machine");
        }
    }
    Ok(())
}

/// The connection over which a log was opened.
pub(crate) struct Opened(Schema);

impl Opened {
    /// Checks, after another connection was made and used, that this one still has its own session.
    ///
    /// # Errors
    /// If a pooler has given it another.
    pub(crate) async fn still_the_same(mut self) -> Result<()> {
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

/// What is missing of a part.
struct Missing {
    steps: usize,
    functions: Vec<usize>,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        self.steps == 0 && self.functions.is_empty()
    }
}

/// A schema on which tables are made.
struct Schema {
    line: Line<Door>,
    name: String,
    silence: Duration,
}

impl Schema {
    /// By a connection of its own: a pool would try for long to reach a server that is not there.
    async fn connect(address: &Address, options: &Options) -> Result<Self> {
        let door = Arc::new(Door::migrating(address, options));
        let line = Line::open(&door).await.map_err(failed)?;
        Ok(Self { line, name: address.schema.clone(), silence: options.silence() })
    }

    /// What a question is answered with, in time.
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

    /// What is missing of this part.
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

    /// Makes what is missing of this part; returns how much that was.
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
    /// Makes the index of predecessors, if it is missing; returns how many steps that took. Appends go on meanwhile.
    ///
    /// Who waits for another that makes it asks again and again: a statement that waits would be waited for by the other.
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
                // It waits for transactions that were open when it began, as that of a dump.
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

    /// Whether the index of predecessors can be used; `None` if it is not there.
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

/// Makes what is missing of this part, in the transaction that is open.
async fn make(
    connection: &mut PgConnection,
    schema: &str,
    part: &Part,
    missing: &Missing,
) -> Result<(), sqlx::Error> {
    let Part { migrations, steps, .. } = part;
    let done = steps.len() - missing.steps;
    if done == 0 {
        // A role that may make tables in a schema that is there need not be allowed to make one.
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

/// How many steps were done, and which of them make a function that is missing.
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
