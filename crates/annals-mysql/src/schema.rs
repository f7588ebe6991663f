//! Migrations: the tables of a log are made, and brought to what this version of Annals knows.
//!
//! - M1  Two processes that migrate at once do it one after the other, under a lock of the server (`GET_LOCK`); the
//!       second finds nothing left to do.
//! - M2  The database cannot take back what made a table, so each step can be done again if it was done half.
//! - M3  Tables that are newer than this version are refused, and left as they are.

use annals_core::{Error, Invalid, Result, StoreId, Timestamp};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::error::failed;
use crate::options::Address;
use crate::{Options, row, session};

/// Tables that belong together, and where it is noted how far they are.
struct Part {
    /// The table of the steps that were done.
    migrations: &'static str,
    /// What each step does, from 1 on. A step that was released does not change.
    steps: &'static [&'static [&'static str]],
}

const LOG: Part = Part {
    migrations: "migrations",
    steps: &[
        &[include_str!("../sql/001_tables.sql")],
        &["DROP PROCEDURE IF EXISTS append_begin", include_str!("../sql/002_append.sql")],
        &[include_str!("../sql/004_owner.sql")],
    ],
};

/// The state beside a log, which may lie elsewhere.
const STATE: Part = Part {
    migrations: "state_migrations",
    steps: &[&[include_str!("../sql/state/001_tables.sql")], &[include_str!("../sql/state/002_ladders.sql")]],
};

/// Makes the tables of the log with this address and of the state beside it, or brings them up to date. Returns how many
/// steps were missing.
///
/// # Errors
/// `Invalid` if the address is none or the tables are newer than this version of Annals; `Unavailable` if the server is
/// not reached or refuses.
pub async fn migrate(url: &str) -> Result<usize> {
    let address: Address = url.parse()?;
    let mut connection = session::connect(&address, &Options::default()).await.map_err(failed)?;
    let mut missing = run(&mut connection, &address.database, &LOG).await?;
    missing += run(&mut connection, &address.database, &STATE).await?;
    connection.close().await.map_err(failed)?;
    Ok(missing)
}

/// Makes the tables of the state with this address, or brings them up to date, if need be.
pub(crate) async fn open_state(address: &Address, options: &Options) -> Result<()> {
    let mut connection = session::connect(address, options).await.map_err(failed)?;
    if steps_done(&mut connection, &STATE).await? < STATE.steps.len() {
        run(&mut connection, &address.database, &STATE).await?;
    }
    connection.close().await.map_err(failed)
}

/// The identity of the log, and how many bytes a packet may have; makes its tables, or brings them up to date, if need
/// be.
pub(crate) async fn open(address: &Address, options: &Options) -> Result<(StoreId, usize)> {
    let mut connection = session::connect(address, options).await.map_err(failed)?;
    if steps_done(&mut connection, &LOG).await? < LOG.steps.len() {
        run(&mut connection, &address.database, &LOG).await?;
    }
    warn(&mut connection).await?;
    let sql = "SELECT store_id, CAST(@@max_allowed_packet AS SIGNED) FROM log";
    let row = sqlx::query(sql).fetch_one(&mut connection).await.map_err(failed)?;
    let id = row::id(&row, 0).map_err(failed)?;
    let packet: i64 = row.try_get(1).map_err(failed)?;
    connection.close().await.map_err(failed)?;
    Ok((StoreId::from_bytes(id), usize::try_from(packet).unwrap_or(usize::MAX)))
}

/// Says what the server is set to that takes from the guarantees.
async fn warn(connection: &mut MySqlConnection) -> Result<()> {
    let sql = "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@log_bin AS SIGNED),
        CAST(@@sync_binlog AS SIGNED)";
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(failed)?;
    let setting = |column: usize| row.try_get::<i64, _>(column).map_err(failed);
    if setting(0)? != 1 {
        tracing::warn!(
            "innodb_flush_log_at_trx_commit is not 1: acknowledged events may be lost with the machine"
        );
    }
    if setting(1)? != 1 || setting(2)? != 1 {
        tracing::info!(
            "without log_bin and sync_binlog=1 events may be read some moments before they are durable"
        );
    }
    Ok(())
}

async fn run(connection: &mut MySqlConnection, database: &str, part: &Part) -> Result<usize> {
    // The name of a lock has at most 64 characters.
    let locked = sqlx::query("SELECT GET_LOCK(CONCAT('annals ', LEFT(SHA2(?, 256), 40)), 60)").bind(database);
    let locked = locked.fetch_one(&mut *connection).await.map_err(failed)?;
    if locked.try_get::<Option<i64>, _>(0).map_err(failed)? != Some(1) {
        return Err(Error::Unavailable("another process has been migrating for a minute".into()));
    }
    let done = migrate_locked(connection, part).await;
    connection.execute("DO RELEASE_ALL_LOCKS()").await.map_err(failed)?;
    done
}

async fn migrate_locked(connection: &mut MySqlConnection, part: &Part) -> Result<usize> {
    let Part { migrations, steps } = part;
    let done = steps_done(connection, part).await?;
    let begin = format!(
        "CREATE TABLE IF NOT EXISTS {migrations} (
        step INTEGER NOT NULL PRIMARY KEY, done_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE = InnoDB"
    );
    connection.execute(AssertSqlSafe(begin)).await.map_err(failed)?;
    for (index, step) in steps.iter().enumerate().skip(done) {
        for sql in *step {
            connection.execute(sqlx::raw_sql(*sql)).await.map_err(failed)?;
        }
        if *migrations == LOG.migrations && index == 0 {
            let identity = sqlx::query("INSERT IGNORE INTO log (store_id, recorded_at) VALUES (?, ?)");
            let identity =
                identity.bind(&StoreId::generate().as_bytes()[..]).bind(Timestamp::MIN.as_micros());
            identity.execute(&mut *connection).await.map_err(failed)?;
        }
        let mark = format!("INSERT IGNORE INTO {migrations} (step) VALUES (?)");
        let mark = sqlx::query(AssertSqlSafe(mark)).bind(index as i32 + 1);
        mark.execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(steps.len() - done)
}

/// How many steps were done.
async fn steps_done(connection: &mut MySqlConnection, part: &Part) -> Result<usize> {
    let Part { migrations, steps } = part;
    let there = "SELECT COUNT(*) FROM information_schema.tables
        WHERE table_schema = DATABASE() AND table_name = ?";
    let there = sqlx::query(there).bind(migrations).fetch_one(&mut *connection).await.map_err(failed)?;
    if there.try_get::<i64, _>(0).map_err(failed)? == 0 {
        return Ok(0);
    }
    let newest = format!("SELECT CAST(COALESCE(MAX(step), 0) AS SIGNED) FROM {migrations}");
    let newest = sqlx::query(AssertSqlSafe(newest));
    let newest = newest.fetch_one(&mut *connection).await.map_err(failed)?;
    let done = newest.try_get::<i64, _>(0).map_err(failed)? as usize;
    if done > steps.len() {
        let problem = format!(
            "has tables of step {done}, this version of Annals knows {}: use a newer one",
            steps.len()
        );
        return Err(Error::from(Invalid::new("store", problem)));
    }
    Ok(done)
}
