//! Migrations: the tables of a log are made, and brought to what this version of Annals knows.
//!
//! - M1  Of several processes that migrate at once, one does it and the others wait, under a lock of the server
//!       (`GET_LOCK`); they find nothing left to do.
//! - M2  The database cannot take back what made a table, so each step can be done again if it was done half.
//! - M3  Tables that are newer than this version are refused, and left as they are.
//! - M4  Procedures that a dump has left out are made again. They run with the rights of their caller, so that they do not
//!       depend on a user who may not be on the server on which a dump is restored.
//! - M5  An index over all events is made with a new log, and otherwise only by [`migrate`], beside the appends that go on
//!       meanwhile (`LOCK = NONE`): no log waits for it when it is opened. The database takes back what was made half.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, Invalid, Result, StoreId, Timestamp};
use annals_sql::{Line, Step, Stopped};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::error::{failed, number, stopped};
use crate::options::Address;
use crate::session::Door;
use crate::statement::{self, Value, rows};
use crate::{Options, row};

/// A server that has not answered for this long while tables are made, or while another process makes them, is given up.
const TABLES_MAX: Duration = Duration::from_secs(120);
/// An index over all events may take long to be made: this only ends what has hung.
const INDEX_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The index of predecessors. The column of the predecessors is text, which is compared without blanks at its end and cannot
/// be indexed whole; the index is of its bytes, which take no room in the table.
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
/// The user may not make procedures, or the server only reads.
const MAY_NOT: [u16; 7] = [1044, 1142, 1227, 1290, 1370, 1792, 1836];

/// Tables that belong together, and where it is noted how far they are.
struct Part {
    /// The table of the steps that were done.
    migrations: &'static str,
    /// What each step does, from 1 on. A step that was released does not change.
    steps: &'static [&'static [&'static str]],
    /// Procedures, and what makes each.
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
        // With the procedure of the step before, which a dump may have left out.
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

/// The state beside a log, which may lie elsewhere.
const STATE: Part = Part {
    migrations: "state_migrations",
    steps: &[
        &[include_str!("../sql/state/001_tables.sql")],
        &[include_str!("../sql/state/002_ladders.sql")],
        &[include_str!("../sql/state/003_leases.sql")],
    ],
    procedures: &[],
};

/// Makes the tables of the log with this address and of the state beside it, or brings them up to date, with the indexes that
/// a log of an earlier version does not have. Returns how many steps were missing. Others may use the log meanwhile.
///
/// # Errors
/// `Invalid` if the address is none or the tables are newer than this version of Annals; `Unavailable` if the server is
/// not reached or refuses.
pub async fn migrate(url: &str) -> Result<usize> {
    let address: Address = url.parse()?;
    let mut schema = Schema::connect(&address, &Options::default()).await?;
    Ok(schema.run(&LOG).await.map_err(Unmade::into_error)?
        + schema.run(&STATE).await.map_err(Unmade::into_error)?
        + schema.index_predecessors().await.map_err(Unmade::into_error)?)
}

/// Makes the tables of the state with this address, or brings them up to date, if need be.
pub(crate) async fn open_state(address: &Address, options: &Options) -> Result<()> {
    let mut schema = Schema::connect(address, options).await?;
    if !schema.missing(&STATE).await?.is_nothing() {
        schema.run(&STATE).await.map_err(Unmade::into_error)?;
    }
    Ok(())
}

/// The identity of the log, and how many bytes a packet may have; makes its tables, or brings them up to date, if need
/// be.
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
            // Reading needs no procedures.
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

/// The connection over which a log was opened.
pub(crate) struct Opened(Schema);

impl Opened {
    /// Checks, after another connection was made and used, that this one still has its own session.
    ///
    /// # Errors
    /// If a proxy has given it another.
    pub(crate) async fn still_the_same(mut self) -> Result<()> {
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

/// Says what the server is set to that takes from the guarantees.
async fn warn(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let sql = "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@log_bin AS SIGNED),
        CAST(@@sync_binlog AS SIGNED), CAST(@@innodb_doublewrite AS CHAR)";
    let row = connection.fetch_one(sql).await?;
    if row.try_get::<i64, _>(0)? != 1 {
        tracing::warn!(
            "innodb_flush_log_at_trx_commit is not 1: acknowledged events may be lost with the machine"
        );
    }
    if row.try_get::<i64, _>(1)? != 1 || row.try_get::<i64, _>(2)? != 1 {
        tracing::info!(
            "without log_bin and sync_binlog=1 events may be read some moments before they are durable"
        );
    }
    if ["0", "OFF"].contains(&row.try_get::<String, _>(3)?.as_str()) {
        tracing::warn!("innodb_doublewrite is off: a machine that stops may leave pages half written");
    }
    Ok(())
}

/// Why tables were not made.
struct Unmade {
    error: Error,
    /// The user may not do it here.
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

/// What is missing of a part.
struct Missing {
    steps: usize,
    procedures: Vec<&'static [&'static str]>,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        self.steps == 0 && self.procedures.is_empty()
    }
}

/// A database in which tables are made.
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
        Ok(Self { line, name: address.database.clone(), silence: options.silence() })
    }

    /// What a question is answered with, in time.
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

    /// What is missing of this part.
    async fn missing(&mut self, part: &'static Part) -> Result<Missing> {
        let (done, found) = self.ask(async |connection| there(connection, part).await).await?;
        if done > part.steps.len() {
            let problem = format!(
                "has tables of step {done}, this version of Annals knows {}: use a newer one",
                part.steps.len()
            );
            return Err(Error::from(Invalid::new("store", problem)));
        }
        // What a step that is missing makes is not missing beside it.
        let mut missing = Missing { steps: part.steps.len() - done, procedures: Vec::new() };
        for (name, makes) in part.procedures {
            if missing.steps == 0 && !found.iter().any(|there| there == name) {
                missing.procedures.push(makes);
            }
        }
        Ok(missing)
    }

    /// Makes the index of predecessors, if it is missing; returns how many steps that took. Appends go on meanwhile.
    async fn index_predecessors(&mut self) -> Result<usize, Unmade> {
        let name = self.lock().await?;
        let made = self.within(INDEX_MAX, index_predecessors).await?;
        self.unlock(&name).await?;
        Ok(usize::from(made))
    }

    /// Locks the migration of this database against others, until the connection ends; returns the name of the lock.
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

    /// Makes what is missing of this part; returns how much that was.
    async fn run(&mut self, part: &'static Part) -> Result<usize, Unmade> {
        let name = self.lock().await?;
        // The lock ends with the connection if anything fails.
        let missing = self.missing(part).await?;
        let count = missing.steps + missing.procedures.len();
        self.within(TABLES_MAX, async move |connection| make(connection, part, &missing).await).await?;
        self.unlock(&name).await?;
        Ok(count)
    }
}

/// Makes what is missing of this part.
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
            // Before the mark of the step: a log without it is one of an earlier version.
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

/// Makes the index of predecessors, if it is missing; whether it was.
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

/// How many steps were done, and the procedures that are there.
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
