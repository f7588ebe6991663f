//! A connection: how it is made, what it is set to, whatever the server, the database or the role is set to, and how what it
//! does is ended.
//!
//! - S1  Every connection is set and checked before it is used. It has a name of its own, a setting of the session, by which
//!       it is noticed if a pooler gives its server to somebody else between two transactions.
//! - S2  One of the state that leads to the state of another log than the one that was opened is refused. Which log a
//!       connection leads to, each of its statements checks.
//!
//! `docs/sql-stores.md` lists the settings and what is done about each.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_core::StoreId;
use annals_sql::{Cancels, Driver, Pool, Step, Stopped};
use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use uuid::Uuid;

use crate::Options;
use crate::error::stopped;
use crate::options::Address;
use crate::prepared::Prepared;

/// A connection that nobody used for this long is closed.
const KEPT: Duration = Duration::from_secs(600);

/// Settings that only a superuser may change, and what they must be.
const MUST_BE: [(&str, &str); 3] = [
    ("session_replication_role", "origin"),
    ("zero_damaged_pages", "off"),
    ("ignore_checksum_failure", "off"),
];

/// How connections of one kind are made.
pub(crate) struct Door {
    pub(crate) address: Address,
    options: Options,
    set: String,
    state_of: Option<StateOf>,
    cancels: Arc<Cancels<Self>>,
}

/// The log whose state a connection must lead to, once it is known which. A log itself is checked by each statement.
pub(crate) type StateOf = Arc<OnceLock<StoreId>>;

/// A connection with what is known of it.
pub(crate) struct Connected {
    sql: PgConnection,
    id: Id,
    /// What the setting `annals.session` is in its session, and in no other.
    pub(crate) session: String,
    /// Statements that were queued and are prepared.
    pub(crate) prepared: Prepared,
}

/// A session, among all of all servers: numbers of processes are given again.
#[derive(Clone)]
pub(crate) struct Id {
    process: i32,
    /// When it began.
    began: String,
}

impl Deref for Connected {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.sql
    }
}

impl DerefMut for Connected {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.sql
    }
}

impl Door {
    /// Connections with these settings.
    pub(crate) fn new(address: &Address, options: &Options, set: String, state_of: Option<StateOf>) -> Self {
        Self { address: address.clone(), options: options.clone(), set, state_of, cancels: Arc::default() }
    }

    /// Connections that read a log.
    pub(crate) fn reading(address: &Address, options: &Options) -> Self {
        Self::new(address, options, settings(address, options), None)
    }

    /// Connections that write a log.
    pub(crate) fn writing(address: &Address, options: &Options) -> Self {
        let moving = if options.moving { "; SET annals.moving TO 'on'" } else { "" };
        Self::new(address, options, settings(address, options) + moving, None)
    }

    /// Connections that make tables, which may take its time.
    pub(crate) fn migrating(address: &Address, options: &Options) -> Self {
        let set = "; SET lock_timeout TO '60s'; SET statement_timeout TO 0; \
                   SET idle_in_transaction_session_timeout TO '60s'";
        Self::new(address, options, settings(address, options) + set, None)
    }

    /// A pool of these connections.
    pub(crate) fn pool(self) -> Pool<Self> {
        let (most, patience) = (self.options.connections_max, self.options.patience);
        Pool::new(self, most, patience, KEPT)
    }

    /// These connections, and those of the other one, are ended by one connection.
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
        let session = Uuid::new_v4().simple().to_string();
        let store = match self.state_of() {
            Some(_) => "(SELECT store_id FROM state)",
            None => "NULL::uuid",
        };
        // A role that acts as another (`ALTER ROLE .. SET role`) sees its own session as the role that has logged in.
        let set = format!(
            "{}; SET annals.session TO '{session}'; SET ROLE NONE; \
             SELECT pid, backend_start::text FROM pg_stat_get_activity(pg_backend_pid()); RESET ROLE; \
             SELECT {store}, {}",
            self.set,
            MUST_BE.map(|(name, _)| format!("current_setting('{name}')")).join(", ")
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(set)).fetch_all(&mut sql).await?;
        let [.., of_session, of_server] = &rows[..] else { return Err(sqlx::Error::RowNotFound) };
        self.check(of_server)?;
        let id = Id { process: of_session.try_get(0)?, began: of_session.try_get(1)? };
        Ok(Connected { sql, id, session, prepared: Prepared::default() })
    }

    fn check(&self, row: &PgRow) -> Result<(), sqlx::Error> {
        for (column, (name, wanted)) in (1..).zip(MUST_BE) {
            let value: String = row.try_get(column)?;
            if value != wanted {
                let problem =
                    format!("`{name}` is `{value}` for this role or database: set it to `{wanted}`");
                return Err(stopped(Stopped::Setting(problem)));
            }
        }
        let Some(expected) = self.state_of() else { return Ok(()) };
        let found: Option<Uuid> = row.try_get(0)?;
        let found = StoreId::from_bytes(found.ok_or(sqlx::Error::RowNotFound)?.into_bytes());
        match found == expected {
            true => Ok(()),
            false => Err(stopped(Stopped::OtherLog { expected, found })),
        }
    }
}

#[async_trait]
impl Driver for Door {
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
        connection.id.clone()
    }

    fn cancels(&self) -> &Cancels<Self> {
        &self.cancels
    }

    /// A commit that waits for a standby is not ended: it would become visible without being there. Neither is a session that
    /// does nothing: a pooler may have given it to somebody else.
    async fn cancel(&self, other: &mut Connected, sessions: &[(Id, Step)]) -> Result<(), sqlx::Error> {
        for (id, step) in sessions {
            let condition = match step {
                Step::Read => "wait_event IS DISTINCT FROM 'SyncRep'",
                Step::Commit => "wait_event_type = 'Lock'",
            };
            let sql = format!(
                "SET ROLE NONE; SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE pid = {} AND backend_start = '{}' AND application_name = 'annals' \
                 AND state IS DISTINCT FROM 'idle' AND {condition}",
                id.process, id.began
            );
            other.execute(AssertSqlSafe(sql)).await?;
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

/// What the store relies on, whatever the server or the role is set to.
fn settings(address: &Address, options: &Options) -> String {
    let silence = options.silence().as_millis();
    // A commit that is cancelled while it waits for a standby counts as done; `statement_timeout` is none of that, for
    // PostgreSQL disarms it before it commits. A lower one is kept. The lock of the log is given up when its holder has
    // gone silent.
    // Every question is answered from an index, and planned for its own values: a type that is rare is not looked for as
    // one that is frequent.
    format!(
        "{}; SET plan_cache_mode TO force_custom_plan; \
         SET enable_seqscan TO off; SET enable_bitmapscan TO off; SET enable_hashjoin TO off; \
         SET enable_mergejoin TO off; SET enable_indexscan TO on; SET enable_indexonlyscan TO on; \
         SET enable_nestloop TO on; SET jit TO off; \
         SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
         SELECT set_config('statement_timeout', '{silence}', false) \
             WHERE current_setting('statement_timeout') = '0' \
             OR current_setting('statement_timeout')::interval > interval '{silence} milliseconds'; \
         SET idle_in_transaction_session_timeout TO {}",
        common(address, options),
        options.patience.as_millis()
    )
}

/// What both the log and the state rely on.
pub(crate) fn common(address: &Address, options: &Options) -> String {
    format!(
        "SET search_path TO \"{}\", pg_temp; \
         SET default_transaction_isolation TO 'read committed'; SET default_transaction_read_only TO off; \
         SET default_transaction_deferrable TO off; SET row_security TO off; \
         SET standard_conforming_strings TO on; SET transform_null_equals TO off; SET array_nulls TO on; \
         SET bytea_output TO hex; SET IntervalStyle TO postgres; SET DateStyle TO 'ISO, YMD'; SET TimeZone TO 'UTC'; \
         SET lc_monetary TO 'C'; SET lc_numeric TO 'C'; SET lc_time TO 'C'; \
         SET default_table_access_method TO heap; \
         SET lock_timeout TO {}",
        address.schema,
        options.patience.as_millis()
    )
}
