//! Migrations: the tables of a log are made, and brought to what this version of Annals knows.
//!
//! - M1  Two processes that migrate at once do it one after the other, under an advisory lock; the second finds
//!       nothing left to do.
//! - M2  All missing steps are one transaction.
//! - M3  Tables that are newer than this version are refused, and left as they are.

use annals_core::{Error, Invalid, Result, StoreId};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use uuid::Uuid;

use crate::error::failed;
use crate::options::Address;
use crate::{Options, session};

/// Tables that belong together, and where it is noted how far they are.
struct Part {
    /// The table of the steps that were done.
    migrations: &'static str,
    /// What each step does, from 1 on. A step that was released does not change.
    steps: &'static [&'static str],
}

const LOG: Part = Part {
    migrations: "migrations",
    steps: &[
        include_str!("../sql/001_tables.sql"),
        include_str!("../sql/002_append.sql"),
        include_str!("../sql/004_owner.sql"),
        include_str!("../sql/005_newest.sql"),
    ],
};

/// The state beside a log, which may lie elsewhere.
const STATE: Part = Part {
    migrations: "state_migrations",
    steps: &[include_str!("../sql/state/001_tables.sql"), include_str!("../sql/state/002_ladders.sql")],
};

/// Makes the tables of the log with this address and of the state beside it, or brings them up to date. Returns how many
/// steps were missing.
///
/// # Errors
/// `Invalid` if the address is none, if the database is not in UTF-8, or if the tables are newer than this version of
/// Annals; `Unavailable` if PostgreSQL is not reached or refuses.
pub async fn migrate(url: &str) -> Result<usize> {
    let address: Address = url.parse()?;
    let mut connection = session::connect(&address, &Options::default()).await.map_err(failed)?;
    let mut missing = run(&mut connection, &address.schema, &LOG).await?;
    missing += run(&mut connection, &address.schema, &STATE).await?;
    connection.close().await.map_err(failed)?;
    Ok(missing)
}

/// Makes the tables of the state with this address, or brings them up to date, if need be.
pub(crate) async fn open_state(address: &Address, options: &Options) -> Result<()> {
    let mut connection = session::connect(address, options).await.map_err(failed)?;
    if steps_done(&mut connection, &address.schema, &STATE).await? < STATE.steps.len() {
        run(&mut connection, &address.schema, &STATE).await?;
    }
    connection.close().await.map_err(failed)
}

/// The identity of the log; makes its tables, or brings them up to date, if need be.
///
/// By a connection of its own: a pool would try for long to reach a server that is not there.
pub(crate) async fn open(address: &Address, options: &Options) -> Result<StoreId> {
    let mut connection = session::connect(address, options).await.map_err(failed)?;
    if steps_done(&mut connection, &address.schema, &LOG).await? < LOG.steps.len() {
        run(&mut connection, &address.schema, &LOG).await?;
    }
    let row = sqlx::query("SELECT store_id FROM log").fetch_one(&mut connection).await.map_err(failed)?;
    let id: Uuid = row.try_get(0).map_err(failed)?;
    connection.close().await.map_err(failed)?;
    Ok(StoreId::from_bytes(id.into_bytes()))
}

async fn run(connection: &mut PgConnection, schema: &str, part: &Part) -> Result<usize> {
    let Part { migrations, steps } = part;
    let row = sqlx::query("SHOW server_encoding").fetch_one(&mut *connection).await.map_err(failed)?;
    let encoding: String = row.try_get(0).map_err(failed)?;
    if encoding != "UTF8" {
        let problem = format!("is a database in {encoding}; create one with ENCODING 'UTF8'");
        return Err(Invalid::new("store", problem).into());
    }
    let mut transaction = connection.begin().await.map_err(failed)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('annals migrate ' || $1, 0))");
    lock.bind(schema).execute(&mut *transaction).await.map_err(failed)?;
    let done = steps_done(&mut transaction, schema, part).await?;
    if done == 0 {
        // A role that may make tables in a schema that is there need not be allowed to make one.
        let there = sqlx::query("SELECT to_regnamespace($1) IS NOT NULL").bind(format!("\"{schema}\""));
        let there = there.fetch_one(&mut *transaction).await.map_err(failed)?;
        let create = if there.try_get::<bool, _>(0).map_err(failed)? {
            String::new()
        } else {
            format!("CREATE SCHEMA \"{schema}\"; ")
        };
        let begin = format!(
            "{create}CREATE TABLE {migrations} (step integer PRIMARY KEY, done_at timestamptz NOT NULL DEFAULT now())"
        );
        transaction.execute(AssertSqlSafe(begin)).await.map_err(failed)?;
    }
    for (index, step) in steps.iter().enumerate().skip(done) {
        transaction.execute(*step).await.map_err(failed)?;
        let mark = format!("INSERT INTO {migrations} (step) VALUES ($1)");
        let mark = sqlx::query(AssertSqlSafe(mark)).bind(index as i32 + 1);
        mark.execute(&mut *transaction).await.map_err(failed)?;
    }
    if *migrations == LOG.migrations {
        let identity = sqlx::query("INSERT INTO log (store_id) VALUES ($1) ON CONFLICT DO NOTHING");
        let id = Uuid::from_bytes(*StoreId::generate().as_bytes());
        identity.bind(id).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(steps.len() - done)
}

/// How many steps were done.
async fn steps_done(connection: &mut PgConnection, schema: &str, part: &Part) -> Result<usize> {
    let Part { migrations, steps } = part;
    let there = sqlx::query("SELECT to_regclass($1) IS NOT NULL").bind(format!("\"{schema}\".{migrations}"));
    let there = there.fetch_one(&mut *connection).await.map_err(failed)?;
    if !there.try_get::<bool, _>(0).map_err(failed)? {
        return Ok(0);
    }
    let newest = sqlx::query(AssertSqlSafe(format!("SELECT coalesce(max(step), 0) FROM {migrations}")));
    let newest = newest.fetch_one(&mut *connection).await.map_err(failed)?;
    let done = newest.try_get::<i32, _>(0).map_err(failed)? as usize;
    if done > steps.len() {
        let problem = format!(
            "has tables of step {done}, this version of Annals knows {}: use a newer one",
            steps.len()
        );
        return Err(Error::from(Invalid::new("store", problem)));
    }
    Ok(done)
}
