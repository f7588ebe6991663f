//! Migrations: creates the tables of a log, and updates them to this version of Annals.
//!
//! - M1  Of several processes that migrate concurrently, one migrates and the others wait for a lock of the
//!       server (`GET_LOCK`); they then find no missing steps.
//! - M2  The database cannot roll back DDL, so each step can be repeated after a partial execution.
//! - M3  Tables that are newer than this version are refused, and left unchanged.
//! - M4  Procedures that a dump did not include are created again. They run with the privileges of their
//!       caller, so that they do not depend on a user who may not exist on the server on which a dump is
//!       restored.
//! - M5  An index over all events is created with a new log, and otherwise only by [`migrate`], while appends
//!       continue (`LOCK = NONE`): no log waits for it when it is opened. The database removes an incomplete
//!       index.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, Invalid, Result, StoreId, Timestamp};
use annals_sql::{Line, Step, Stopped};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::error::{failed, number, stopped};
use crate::options::Address;
use crate::session::Connector;
use crate::statement::{self, Value, rows};
use crate::{Options, row};

/// The time limit for creating tables, and for waiting for another process that creates them.
const TABLES_MAX: Duration = Duration::from_secs(120);
/// The time limit for creating an index over all events, which may take long: it only ends a hung statement.
const INDEX_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The index of predecessors. Their column is text, which is compared without trailing blanks and is too long
/// to be indexed in full; the index is on a column of its bytes, which takes no space in the table.
const PREDECESSORS: [(&str, &str); 2] = [
    (
        "SELECT COUNT(*) FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = 'events' AND column_name = 'predecessor'",
        "ALTER TABLE events ADD COLUMN predecessor VARBINARY(1024)
            GENERATED ALWAYS AS (CAST(triggering_event AS BINARY)) VIRTUAL, ALGORITHM = INSTANT",
    ),
    (
        "SELECT COUNT(*) FROM information_schema.statistics
            WHERE table_schema = DATABASE() AND table_name = 'events' AND index_name = 'events_by_predecessor'",
        "ALTER TABLE events ADD INDEX events_by_predecessor (predecessor, position), ALGORITHM = INPLACE, LOCK = NONE",
    ),
];
/// The user may not create procedures, or the server is read-only.
const MAY_NOT: [u16; 7] = [1044, 1142, 1227, 1290, 1370, 1792, 1836];

/// Tables that belong together, with the table of their completed steps.
struct Part {
    /// The table of completed steps.
    migrations: &'static str,
    /// The SQL of each step, from 1 on. A released step does not change.
    steps: &'static [&'static [&'static str]],
    /// Procedures, and the SQL that creates each.
    procedures: &'static [(&'static str, &'static [&'static str])],
}

const APPEND_BEGIN: &[&str] = &[
    "DROP PROCEDURE IF EXISTS append_begin",
    include_str!("../sql/002_append.sql"),
    "ALTER PROCEDURE append_begin SQL SECURITY INVOKER",
];
const ASSERT_LOG: &[&str] =
    &["DROP PROCEDURE IF EXISTS assert_log", include_str!("../sql/003_assert_log.sql")];

const LOG: Part = Part {
    migrations: "migrations",
    steps: &[
        &[include_str!("../sql/001_tables.sql")],
        APPEND_BEGIN,
        // Includes the procedure of the previous step, which may be missing in a dump.
        &[
            "DROP PROCEDURE IF EXISTS append_begin",
            include_str!("../sql/002_append.sql"),
            "ALTER PROCEDURE append_begin SQL SECURITY INVOKER",
            "DROP PROCEDURE IF EXISTS assert_log",
            include_str!("../sql/003_assert_log.sql"),
        ],
        &[include_str!("../sql/004_owner.sql")],
    ],
    procedures: &[("append_begin", APPEND_BEGIN), ("assert_log", ASSERT_LOG)],
};

/// The state beside a log, which may be in another database.
const STATE: Part = Part {
    migrations: "state_migrations",
    steps: &[
        &[include_str!("../sql/state/001_tables.sql")],
        &[include_str!("../sql/state/002_ladders.sql")],
        &[include_str!("../sql/state/003_leases.sql")],
    ],
    procedures: &[],
};

/// Creates the tables of the log with this address and of the state beside it, or updates them, with the
/// indexes that a log of an earlier version does not have. Returns the number of missing steps. The log may
/// be used meanwhile.
///
/// # Errors
/// `Invalid` if the address is not valid or the tables are newer than this version of Annals; `Unavailable`
/// if the server is not reached or refuses.
pub async fn migrate(url: &str) -> Result<usize> {
    let address: Address = url.parse()?;
    let mut schema = Schema::connect(&address, &Options::default()).await?;
    Ok(schema.run(&LOG).await.map_err(Unmade::into_error)?
        + schema.run(&STATE).await.map_err(Unmade::into_error)?
        + schema.index_predecessors().await.map_err(Unmade::into_error)?)
}

/// Creates or updates the tables of the state with this address, if steps are missing.
pub(crate) async fn open_state(address: &Address, options: &Options) -> Result<()> {
    let mut schema = Schema::connect(address, options).await?;
    if !schema.missing(&STATE).await?.is_nothing() {
        schema.run(&STATE).await.map_err(Unmade::into_error)?;
    }
    Ok(())
}

/// The identity of the log, and the most bytes of a packet; creates or updates the tables of the log, if
/// steps are missing.
pub(crate) async fn open(address: &Address, options: &Options) -> Result<(StoreId, usize, Opened)> {
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
        match schema.run(&LOG).await {
            // Reads need no procedures.
            Err(Unmade { may_not: true, error }) if missing.steps == 0 => {
                let error = error.chain();
                tracing::warn!(
                    error,
                    "procedures of the log are missing, so nothing can be appended: run `annals migrate`"
                );
            }
            done => drop(done.map_err(Unmade::into_error)?),
        }
    }
    let id = schema.ask(async |connection| {
        warn(connection).await?;
        let row = connection.fetch_one("SELECT store_id FROM log").await?;
        row::id(&row, 0)
    });
    let id = StoreId::from_bytes(id.await?);
    let packet = schema.line.connection().packet;
    Ok((id, packet, Opened(schema)))
}

/// The connection with which a log was opened.
pub(crate) struct Opened(Schema);

impl Opened {
    /// Checks, after another connection was opened and used, that this one still has its own session.
    ///
    /// # Errors
    /// If a proxy has assigned it another session.
    pub(crate) async fn check_same_log(mut self) -> Result<()> {
        let session = self.0.line.connection().session.clone();
        let found = self.0.ask(async |connection| {
            connection.fetch_one("SELECT @annals_session").await?.try_get::<Option<String>, _>(0)
        });
        match found.await? == Some(session) {
            true => Ok(()),
            false => Err(failed(stopped(Stopped::Pooled))),
        }
    }
}

/// Logs a warning for each setting of the server that weakens the guarantees.
async fn warn(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let sql = "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@log_bin AS SIGNED),
        CAST(@@sync_binlog AS SIGNED), CAST(@@innodb_doublewrite AS CHAR)";
    let row = connection.fetch_one(sql).await?;
    if row.try_get::<i64, _>(0)? != 1 {
        tracing::warn!(
            "innodb_flush_log_at_trx_commit is not 1: acknowledged events may be lost if the machine fails"
        );
    }
    if row.try_get::<i64, _>(1)? != 1 || row.try_get::<i64, _>(2)? != 1 {
        tracing::info!(
            "log_bin is off or sync_binlog is not 1: events may be read shortly before they are durable"
        );
    }
    if ["0", "OFF"].contains(&row.try_get::<String, _>(3)?.as_str()) {
        tracing::warn!("innodb_doublewrite is off: pages may be torn if the machine fails");
    }
    Ok(())
}

/// Why tables were not created.
struct Unmade {
    error: Error,
    /// The user lacks the privilege, or the server is read-only.
    may_not: bool,
}

impl Unmade {
    fn into_error(self) -> Error {
        self.error
    }
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Self {
        Self { error, may_not: false }
    }
}

/// The missing objects of a part.
struct Missing {
    steps: usize,
    procedures: Vec<&'static [&'static str]>,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        self.steps == 0 && self.procedures.is_empty()
    }
}

/// A connection to a database, for migrations.
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
        Ok(Self { line, name: address.database.clone(), silence: options.silence() })
    }

    /// Executes a query within the time limit.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T> {
        let limit = self.silence;
        self.within(limit, question).await.map_err(Unmade::into_error)
    }

    async fn within<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Unmade> {
        let done = self.line.answered(limit, Step::Read, async |connection| work(connection).await);
        done.await
            .map_err(|error| Unmade { may_not: MAY_NOT.contains(&number(&error)), error: failed(error) })
    }

    /// Finds the missing objects of this part.
    async fn missing(&mut self, part: &'static Part) -> Result<Missing> {
        let (done, found) = self.ask(async |connection| there(connection, part).await).await?;
        if done > part.steps.len() {
            let problem = format!(
                "has tables of step {done}, this version of Annals knows {}: use a newer one",
                part.steps.len()
            );
            return Err(Error::from(Invalid::new("store", problem)));
        }
        // A missing step creates its own procedures.
        let mut missing = Missing { steps: part.steps.len() - done, procedures: Vec::new() };
        for (name, makes) in part.procedures {
            if missing.steps == 0 && !found.iter().any(|there| there == name) {
                missing.procedures.push(makes);
            }
        }
        Ok(missing)
    }

    /// Creates the index of predecessors if it is missing; returns the number of steps. Appends continue
    /// meanwhile.
    async fn index_predecessors(&mut self) -> Result<usize, Unmade> {
        let name = self.lock().await?;
        let made = self.within(INDEX_MAX, index_predecessors).await?;
        self.unlock(&name).await?;
        Ok(usize::from(made))
    }

    /// Locks the migration of this database until the connection ends; returns the name of the lock.
    async fn lock(&mut self) -> Result<String, Unmade> {
        // The name of a lock has at most 64 characters.
        let name = [Value::Json(self.name.clone())];
        let name = statement::text("CONCAT('annals ', LEFT(SHA2($1, 256), 40))", &name);
        let lock = format!("SELECT GET_LOCK({name}, 60)");
        let locked = self.within(TABLES_MAX, async move |connection| {
            let answer = rows(connection, lock).await?;
            answer.first().ok_or(sqlx::Error::RowNotFound)?.try_get::<Option<i64>, _>(0)
        });
        match locked.await? {
            Some(1) => {}
            Some(_) => {
                let problem = "another process has been migrating for a minute";
                return Err(Error::Unavailable(problem.into()).into());
            }
            None => return Err(failed(stopped(Stopped::NoLock)).into()),
        }
        Ok(name)
    }

    async fn unlock(&mut self, name: &str) -> Result<()> {
        let release = AssertSqlSafe(format!("DO RELEASE_LOCK({name})"));
        self.ask(async |connection| connection.execute(release).await).await.map(drop)
    }

    /// Creates the missing objects of this part; returns their number.
    async fn run(&mut self, part: &'static Part) -> Result<usize, Unmade> {
        let name = self.lock().await?;
        // After an error, the lock ends with the connection.
        let missing = self.missing(part).await?;
        let count = missing.steps + missing.procedures.len();
        self.within(TABLES_MAX, async move |connection| make(connection, part, &missing).await).await?;
        self.unlock(&name).await?;
        Ok(count)
    }
}

/// Creates the missing objects of this part.
async fn make(connection: &mut MySqlConnection, part: &Part, missing: &Missing) -> Result<(), sqlx::Error> {
    let Part { migrations, steps, .. } = part;
    let begin = format!(
        "CREATE TABLE IF NOT EXISTS {migrations} (
        step INTEGER NOT NULL PRIMARY KEY, done_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE = InnoDB"
    );
    if missing.steps > 0 {
        connection.execute(AssertSqlSafe(begin)).await?;
    }
    for makes in &missing.procedures {
        for sql in *makes {
            connection.execute(sqlx::raw_sql(*sql)).await?;
        }
    }
    for (index, step) in steps.iter().enumerate().skip(steps.len() - missing.steps) {
        for sql in *step {
            connection.execute(sqlx::raw_sql(*sql)).await?;
        }
        if *migrations == LOG.migrations && index == 0 {
            // Before the step is recorded: a log without the index is from an earlier version.
            index_predecessors(connection).await?;
            let identity = "INSERT IGNORE INTO log (store_id, recorded_at) VALUES ($1, $2)";
            let id = Value::Bytes(StoreId::generate().as_bytes().to_vec());
            let values = [id, Value::Number(Timestamp::MIN.as_micros())];
            rows(connection, statement::text(identity, &values)).await?;
        }
        let mark = format!("INSERT IGNORE INTO {migrations} (step) VALUES ({})", index + 1);
        connection.execute(AssertSqlSafe(mark)).await?;
    }
    Ok(())
}

/// Creates the index of predecessors if it is missing; returns whether it was.
async fn index_predecessors(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    let mut missing = false;
    for (there, make) in PREDECESSORS {
        if connection.fetch_one(there).await?.try_get::<i64, _>(0)? == 0 {
            connection.execute(make).await?;
            missing = true;
        }
    }
    Ok(missing)
}

/// The number of completed steps, and the existing procedures.
async fn there(connection: &mut MySqlConnection, part: &Part) -> Result<(usize, Vec<String>), sqlx::Error> {
    let migrations = part.migrations;
    let there = format!(
        "SELECT COUNT(*) FROM information_schema.tables
        WHERE table_schema = DATABASE() AND table_name = '{migrations}'"
    );
    if connection.fetch_one(AssertSqlSafe(there)).await?.try_get::<i64, _>(0)? == 0 {
        return Ok((0, Vec::new()));
    }
    let newest = format!("SELECT CAST(COALESCE(MAX(step), 0) AS SIGNED) FROM {migrations}");
    let newest = connection.fetch_one(AssertSqlSafe(newest)).await?.try_get::<i64, _>(0)?;
    let sql = "SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()";
    let found = connection.fetch_all(sql).await?;
    let found: Result<Vec<String>, _> = found.iter().map(|row| row.try_get(0)).collect();
    Ok((usize::try_from(newest).unwrap_or(0), found?))
}
