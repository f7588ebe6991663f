//! Connections: how they are opened, configured independently of the settings of the server and user, and
//! ended.
//!
//! - S1  Every connection is configured and checked before it is used. It has a name of its own, in a
//!       variable of the session, so that it is detected if a proxy assigns its server connection to another
//!       client between two transactions.
//! - S2  A connection to the state of another log than the opened one is refused. Each statement on a log
//!       checks which log it is.
//!
//! `docs/sql-stores.md` lists the settings and how each is handled.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_core::{EventId, StoreId};
use annals_sql::{Cancels, Driver, Pool, Step, Stopped};
use async_trait::async_trait;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};

use crate::error::stopped;
use crate::options::Address;
use crate::{Options, row};

/// A connection that is idle for this long is closed.
const KEPT: Duration = Duration::from_secs(600);

/// Quotes, concatenation and backslashes as in the standard, PostgreSQL and SQLite; values that do not fit
/// are refused, not truncated.
pub(crate) const SQL_MODE: &str = "SESSION sql_mode = \
    'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'";

/// Opens connections of one kind.
pub(crate) struct Connector {
    pub(crate) address: Address,
    options: Options,
    set: String,
    state_of: Option<StateOf>,
    cancels: Arc<Cancels<Self>>,
}

/// The log whose state a connection must lead to, once it is known. Statements on a log check the log
/// themselves.
pub(crate) type StateOf = Arc<OnceLock<StoreId>>;

/// A connection with its session.
pub(crate) struct Connected {
    sql: MySqlConnection,
    number: u64,
    /// The value of the variable `@annals_session` in its session, and in no other. The session holds the
    /// lock of this name, through which a server reports the number of the session.
    pub(crate) session: String,
    /// Most bytes of a packet to the server.
    pub(crate) packet: usize,
    /// Statements that the server has prepared on this connection, and whether they may be part of a text
    /// (`queue`).
    pub(crate) checked: HashMap<String, bool>,
}

/// A session, unique among all sessions of all servers: a restarted or another server uses the same numbers.
pub(crate) struct Id {
    number: u64,
    session: String,
}

impl Deref for Connected {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        &self.sql
    }
}

impl DerefMut for Connected {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.sql
    }
}

impl Connector {
    /// Connections with these settings.
    pub(crate) fn new(address: &Address, options: &Options, set: String, state_of: Option<StateOf>) -> Self {
        Self { address: address.clone(), options: options.clone(), set, state_of, cancels: Arc::default() }
    }

    /// Connections that read a log.
    pub(crate) fn reading(address: &Address, options: &Options) -> Self {
        // A lower limit of the server is kept.
        let silence = options.silence().as_secs().max(1);
        let millis = silence * 1_000;
        let limit = format!(
            " /*M! , SESSION max_statement_time = \
                 IF(@@max_statement_time = 0, {silence}, LEAST(@@max_statement_time, {silence})) */\
             /*!80000 , SESSION max_execution_time = CAST(\
                 IF(@@max_execution_time = 0, {millis}, LEAST(@@max_execution_time, {millis})) AS UNSIGNED) */"
        );
        Self::new(address, options, settings(options) + &limit, None)
    }

    /// Connections that write a log. The server closes one that stays idle with the lock of the log.
    pub(crate) fn writing(address: &Address, options: &Options) -> Self {
        let silent = seconds(options) * 2;
        let moving = if options.moving { "; SET @annals_moving = TRUE" } else { "" };
        let set = format!("{}; SET SESSION wait_timeout = {silent}{moving}", settings(options));
        Self::new(address, options, set, None)
    }

    /// Connections for migrations.
    pub(crate) fn migrating(address: &Address, options: &Options) -> Self {
        Self::new(address, options, settings(options), None)
    }

    /// A pool of these connections.
    pub(crate) fn pool(self) -> Pool<Self> {
        let (most, patience) = (self.options.connections_max, self.options.patience);
        Pool::new(self, most, patience, KEPT)
    }

    /// One shared connection ends the sessions of both kinds.
    #[must_use]
    pub(crate) fn ended_with(mut self, other: &Self) -> Self {
        self.cancels = other.cancels.clone();
        self
    }

    fn state_of(&self) -> Option<StoreId> {
        self.state_of.as_ref()?.get().copied()
    }

    async fn make(&self) -> Result<Connected, sqlx::Error> {
        let mut sql = self.address.connect.connect().await?;
        let session = EventId::generate().to_string();
        let store = match self.state_of() {
            Some(_) => "(SELECT store_id FROM state)",
            None => "NULL",
        };
        let set = format!(
            "{}; SET @annals_session = '{session}'; \
             SELECT CAST(CONNECTION_ID() AS SIGNED), CAST(@@max_allowed_packet AS SIGNED), \
             CAST(@@sql_log_bin AS SIGNED), {store}, GET_LOCK(@annals_session, 0)",
            self.set
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(set)).fetch_all(&mut sql).await?;
        let row = rows.last().ok_or(sqlx::Error::RowNotFound)?;
        self.check(row)?;
        let number: i64 = row.try_get(0)?;
        let packet: i64 = row.try_get(1)?;
        Ok(Connected {
            sql,
            number: number.unsigned_abs(),
            session,
            packet: usize::try_from(packet).unwrap_or(usize::MAX),
            checked: HashMap::new(),
        })
    }

    fn check(&self, row: &MySqlRow) -> Result<(), sqlx::Error> {
        if row.try_get::<i64, _>(2)? != 1 {
            let problem =
                "`sql_log_bin` is 0 for this user (by `init_connect`?): replicas would miss what is written";
            return Err(stopped(Stopped::Setting(problem.to_owned())));
        }
        check_lock(row.try_get(4)?)?;
        let Some(expected) = self.state_of() else { return Ok(()) };
        let found = StoreId::from_bytes(row::maybe_id(row, 3)?.ok_or(sqlx::Error::RowNotFound)?);
        match found == expected {
            true => Ok(()),
            false => Err(stopped(Stopped::OtherLog { expected, found })),
        }
    }
}

/// Checks the result of `GET_LOCK` with the name of a session: without the lock, the statements of the
/// session could not be ended.
fn check_lock(answer: Option<i64>) -> Result<(), sqlx::Error> {
    match answer {
        Some(1) => Ok(()),
        _ => Err(stopped(Stopped::NoLock)),
    }
}

#[async_trait]
impl Driver for Connector {
    type Connection = Connected;
    type Error = sqlx::Error;
    type Id = Id;

    async fn connect(&self) -> Result<Connected, sqlx::Error> {
        let made = tokio::time::timeout(self.options.patience, self.make()).await;
        made.unwrap_or_else(|_| Err(stopped(Stopped::Busy)))
    }

    async fn answers(&self, connection: &mut Connected) -> bool {
        connection.ping().await.is_ok()
    }

    fn id(connection: &Connected) -> Id {
        Id { number: connection.number, session: connection.session.clone() }
    }

    fn cancels(&self) -> &Cancels<Self> {
        &self.cancels
    }

    /// A commit that waits for a replica is not ended: it would become visible without being on the replica.
    async fn cancel(&self, other: &mut Connected, sessions: &[(Id, Step)]) -> Result<(), sqlx::Error> {
        for (Id { number, session }, step) in sessions {
            // A session that has ended has no lock, and a running server does not reuse its number.
            let ended = format!(
                "SELECT COUNT(*) FROM information_schema.processlist \
                 WHERE id = {number} AND id = IS_USED_LOCK('{session}') AND ({} OR NOT \
                 (COALESCE(state, '') LIKE '%ommit%' OR COALESCE(state, '') LIKE '%semi-sync%' \
                 OR COALESCE(info, '') LIKE 'COMMIT%'))",
                *step == Step::Read
            );
            if other.fetch_one(AssertSqlSafe(ended)).await?.try_get::<i64, _>(0)? > 0 {
                let killed = other.execute(AssertSqlSafe(format!("KILL {number}"))).await;
                // The session may have ended by itself.
                if !matches!(&killed, Err(sqlx::Error::Database(_))) {
                    killed?;
                }
            }
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        self.options.patience
    }

    fn stopped(reason: Stopped) -> sqlx::Error {
        stopped(reason)
    }
}

/// The settings that the log and the state require, set independently of the server and the user.
pub(crate) fn settings(options: &Options) -> String {
    const ALL: u64 = u64::MAX;
    let patience = seconds(options);
    // Setting `max_join_size` also sets `sql_big_selects`, which is therefore set after it. Names are sorted
    // by their full length: `max_sort_length` includes some bytes for the length. Settings of one kind of
    // server are in comments that only it executes; they are parts of a statement, because MySQL refuses an
    // empty one.
    format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION TRANSACTION READ WRITE; \
         SET SESSION autocommit = 1, SESSION completion_type = 0, SESSION sql_select_limit = {ALL}, \
         SESSION max_join_size = {ALL}, SESSION sql_big_selects = 1, SESSION sql_safe_updates = 0, \
         SESSION sql_auto_is_null = 0, SESSION foreign_key_checks = 1, SESSION unique_checks = 1, \
         SESSION default_storage_engine = InnoDB, SESSION default_tmp_storage_engine = InnoDB, \
         SESSION time_zone = '+00:00', SESSION div_precision_increment = 4, SESSION default_week_format = 0, \
         SESSION lc_time_names = 'en_US', SESSION max_sort_length = 8192, \
         SESSION innodb_lock_wait_timeout = {patience}, SESSION lock_wait_timeout = {patience}, \
         SESSION group_concat_max_len = 67108864, \
         {SQL_MODE} \
         /*M! , SESSION check_constraint_checks = 1, SESSION innodb_strict_mode = 1 */\
         /*M!100804 , SESSION explicit_defaults_for_timestamp = 1, SESSION old_mode = 'UTF8_IS_UTF8MB3' */"
    )
}

fn seconds(options: &Options) -> u64 {
    options.patience.as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_the_lock_of_its_name_is_not_used() {
        assert!(check_lock(Some(1)).is_ok());
        for answer in [None, Some(0)] {
            let refused = crate::error::failed(check_lock(answer).unwrap_err());
            assert!(refused.chain().contains("GET_LOCK"), "{}", refused.chain());
        }
    }
}
