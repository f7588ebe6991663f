//! Connections: how they are opened, configured independently of the settings of the server, database and
//! role, and ended.
//!
//! - S1  Every connection is configured and checked before it is used. It has a name of its own, in a setting
//!       of the session, so that it is detected if a pooler assigns its server connection to another client
//!       between two transactions.
//! - S2  A connection to the state of another log than the opened one is refused. Each statement on a log
//!       checks which log it is.
//!
//! `docs/sql-stores.md` lists the settings and how each is handled.

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

/// A connection that is idle for this long is closed.
const KEPT: Duration = Duration::from_secs(600);

/// Settings that only a superuser may change, with the required values.
const MUST_BE: [(&str, &str); 3] = [
    ("session_replication_role", "origin"),
    ("zero_damaged_pages", "off"),
    ("ignore_checksum_failure", "off"),
];

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
    sql: PgConnection,
    id: Id,
    /// The value of the setting `annals.session` in its session, and in no other.
    pub(crate) session: String,
    /// Queued statements that are prepared.
    pub(crate) prepared: Prepared,
}

/// A session, unique among all sessions of all servers: process numbers are reused.
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

impl Connector {
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

    /// Connections for migrations, which may take long.
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
        let session = Uuid::new_v4().simple().to_string();
        let store = match self.state_of() {
            Some(_) => "(SELECT store_id FROM state)",
            None => "NULL::uuid",
        };
        // A role that acts as another (`ALTER ROLE .. SET role`) sees its own session only as the role that
        // logged in.
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
        connection.id.clone()
    }

    fn cancels(&self) -> &Cancels<Self> {
        &self.cancels
    }

    /// A commit that waits for a standby is not ended: it would become visible without being on the standby.
    /// An idle session is not ended either: a pooler may have assigned it to another client.
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

/// The settings that a log requires, set independently of the server and the role.
fn settings(address: &Address, options: &Options) -> String {
    let silence = options.silence().as_millis();
    // A commit that is cancelled while it waits for a standby counts as done; `statement_timeout` cannot
    // cause that, because PostgreSQL disarms it before it commits. A lower one is kept. The server ends a
    // session that stays idle in a transaction with the lock of the log.
    //
    // Every query is answered from an index, and planned for its own values: a rare type is not planned like
    // a frequent one.
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

/// The settings that both the log and the state require.
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
