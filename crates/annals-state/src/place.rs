//! The schema of a projection: its rows, and the checkpoint up to which they are complete. In MariaDB and
//! MySQL it is a database.
//!
//! ```text
//! annals$revenue_v1     serves queries during the backfill of the next one, and as long as any process has that version
//! annals$revenue_v2     the projection's tables, `annals_checkpoint`, `annals_holders`
//! ```
//!
//! - Y1  The part before `$` is the schema of the state, so that no two logs share a schema.
//! - Y2  The row of `annals_checkpoint` is written last. A schema without it is unfinished: it is dropped and
//!       created again. One with only other tables is not a projection's, and is refused.
//! - Y3  A process that creates, opens or drops one holds its lock. A process that uses it has a row in
//!       `annals_holders`, and renews it. It counts as a user until it deletes the row, or has not renewed it
//!       for [`AWAY_MAX`] and does not hold the lock of its own name (`leases`): a connection may be lost,
//!       and a machine may be suspended.
//! - Y4  Times are those of the database. A time in the future counts as now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{Error, Invalid, Position, Result, Witness};

use crate::bound::Bound;
use crate::database::Transaction;
use crate::leases::{instance_lock, prefix, try_lock, unlock};
use crate::words::quoted;
use crate::{
    Dialect, Fault, Lease, Row, Session, SqlError, SqlState, Value, id_of, position_of, state_failed,
    volatile,
};

/// How long another process may take to create the same schema.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often this is checked.
const LOOK: Duration = Duration::from_millis(20);
/// A process that has not renewed its row for this long does not use the schema any longer.
pub const AWAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The schema of one version of a projection. A clone is the same.
#[derive(Clone)]
pub struct ViewPlace {
    database: SqlState,
    schema: Arc<str>,
    projection: Arc<str>,
    version: u32,
}

impl ViewPlace {
    /// Ends this lease: a write under it was refused, because the token in the database is another one.
    pub fn refused(&self, lease: &Lease) {
        self.database.leases().refused(lease);
    }

    /// The schema of this version of a projection.
    ///
    /// # Errors
    /// If its name is too long for the database.
    pub fn of(database: &SqlState, projection: &str, version: u32) -> Result<Self, Invalid> {
        let schema = format!("{}{version}", before_version(database, projection));
        let most = if database.dialect() == Dialect::MySql { 64 } else { 63 };
        if schema.len() > most {
            let problem = format!(
                "`{projection}` is too long: its schema would be `{schema}`, which may have {most} letters"
            );
            return Err(Invalid::new("projection", problem));
        }
        Ok(Self { database: database.clone(), schema: schema.into(), projection: projection.into(), version })
    }

    /// The database that contains it.
    pub fn database(&self) -> &SqlState {
        &self.database
    }

    /// Its name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The version of the projection.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The name of the schema of the state in a statement. If the log's appends take projections with them,
    /// it is the log's too.
    pub fn home(&self) -> String {
        quoted(self.database.home())
    }

    /// The position up to which all events are in the rows, and the event there.
    pub async fn checkpoint(&self) -> Result<(Position, Option<Witness>), Fault> {
        let sql = self.named("SELECT position, event_id FROM {place}.annals_checkpoint");
        let answer = self.database.read(&sql, &[]).await?;
        let Some(row) = answer.rows.first() else {
            return Err(Fault::unavailable("the rows are being rebuilt"));
        };
        position_of(row)
    }

    /// Records that this process still uses the rows.
    pub async fn renew(&self, instance: &str) -> Result<(), Fault> {
        let sql = self.named(hold(self.database.dialect()));
        self.database.write(&sql, &[Value::Text(instance.to_owned())]).await.map(drop)
    }

    /// Records that this process no longer uses the rows.
    pub async fn release(&self, instance: &str) -> Result<(), Fault> {
        let sql = self.named(RELEASE);
        self.database.write(&sql, &[Value::Text(instance.to_owned())]).await.map(drop)
    }

    /// Runs a query of the user.
    pub async fn select(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        let dialect = self.database.dialect();
        if let Some(problem) = dialect.refuses(sql, crate::Allowed::Read) {
            return Err(SqlError::Statement(problem.into()));
        }
        // A connection that was lost while idle is replaced, without an error.
        let answer = match self.select_once(sql, values).await {
            Err(Fault::Unavailable(_)) => self.select_once(sql, values).await,
            answer => answer,
        };
        Ok(crate::row::read(answer?))
    }

    async fn select_once(&self, sql: &str, values: &[Value]) -> Result<crate::Answer, Fault> {
        let mut session = self.database.sessions().reader().await?;
        session.enter(&self.schema).await?;
        let dialect = self.database.dialect();
        let answer = crate::execute(&mut *session, dialect, &self.schema, sql, values).await;
        if !matches!(answer, Err(Fault::Unavailable(_))) {
            session.done();
        }
        answer
    }

    /// Begins a transaction on the rows, locks the checkpoint and returns its position, all in one round
    /// trip. `None` if the rows are being made again.
    pub async fn begin_locked(&self) -> Result<(Transaction, Option<Position>), Fault> {
        let lock = "SELECT position FROM annals_checkpoint FOR UPDATE";
        let (transaction, position) = self.database.begin_in(&self.schema, lock).await?;
        let position = position.map(|position| position_of(&[Value::Integer(position)])).transpose()?;
        Ok((transaction, position.map(|(position, _)| position)))
    }

    /// Begins a transaction on the rows.
    pub async fn begin(&self) -> Result<Transaction, Fault> {
        let mut transaction = self.database.begin().await?;
        transaction.session().enter(&self.schema).await?;
        Ok(transaction)
    }

    /// Locks the schema, to create, open or drop it.
    pub async fn work(&self) -> Result<SchemaLock> {
        let mut session = self.database.sessions().alone().await?;
        let (dialect, begun) = (self.database.dialect(), Instant::now());
        let prefix = prefix(self.database.sessions(), self.database.store());
        while !try_lock(&mut *session, &prefix, dialect, &format!("place {}", self.schema)).await? {
            if begun.elapsed() > PATIENCE {
                return Err(Error::Unavailable(
                    format!("others have been making `{}` for a minute", self.schema).into(),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(SchemaLock { place: self.clone(), prefix, session })
    }

    /// The schemas of older versions, oldest first.
    pub async fn older(&self) -> Result<Vec<Self>, Fault> {
        let sql = "SELECT schema_name FROM information_schema.schemata ORDER BY schema_name";
        let answer = self.database.read(sql, &[]).await?;
        let prefix = before_version(&self.database, &self.projection);
        let version = |row: &Vec<Value>| match row.first() {
            Some(Value::Text(name)) => name.strip_prefix(&prefix)?.parse::<u32>().ok(),
            _ => None,
        };
        let mut versions: Vec<u32> = answer.rows.iter().filter_map(version).collect();
        versions.retain(|version| *version < self.version);
        versions.sort_unstable();
        let places = versions
            .into_iter()
            .filter_map(|version| Self::of(&self.database, &self.projection, version).ok());
        Ok(places.collect())
    }

    fn named(&self, sql: &str) -> String {
        sql.replace("{place}", &quoted(&self.schema))
    }
}

const RELEASE: &str = "DELETE FROM {place}.annals_holders WHERE instance = ?1";

/// The statement by which a process records that it uses the rows.
fn hold(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MySql => {
            "INSERT INTO {place}.annals_holders (instance, seen_at) VALUES (?1, CURRENT_TIMESTAMP)
             ON DUPLICATE KEY UPDATE seen_at = CURRENT_TIMESTAMP"
        }
        _ => {
            "INSERT INTO {place}.annals_holders (instance, seen_at) VALUES (?1, now())
             ON CONFLICT (instance) DO UPDATE SET seen_at = now()"
        }
    }
}

/// The name of a projection's schemas, up to the version. Names that differ only in special characters share
/// it; the row of `annals_checkpoint` has the whole name.
fn before_version(database: &SqlState, projection: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let projection: String = projection.chars().map(plain).collect();
    format!("{}${projection}_v", database.home())
}

/// A schema that this process has locked.
pub struct SchemaLock {
    place: ViewPlace,
    prefix: String,
    session: Box<dyn Session>,
}

impl SchemaLock {
    fn dialect(&self) -> Dialect {
        self.place.database.dialect()
    }

    async fn run(&mut self, sql: &str, values: &[Value]) -> Result<crate::Answer, Fault> {
        let (dialect, sql) = (self.dialect(), self.place.named(sql));
        crate::run(&mut *self.session, dialect, &sql, values).await
    }

    /// Reads the checkpoint of the schema; `None` if the schema is missing or unfinished.
    ///
    /// # Errors
    /// `Invalid` if it is not a schema of this projection.
    pub async fn bound(&mut self) -> Result<Option<Bound>> {
        let tables = self.tables().await?;
        if tables.is_empty() {
            return Ok(None);
        }
        let schema = self.place.schema.clone();
        if !tables.iter().any(|table| table == "annals_checkpoint") {
            let problem =
                format!("finds other tables than a projection's in `{schema}`, where its rows would lie");
            return Err(Invalid::new("projection", problem).into());
        }
        let sql =
            "SELECT position, event_id, store_id, definition, projection FROM {place}.annals_checkpoint";
        let answer = self.run(sql, &[]).await?;
        let Some([position, event, store, Value::Text(definition), Value::Text(projection)]) =
            answer.rows.first().map(Vec::as_slice)
        else {
            return Ok(None);
        };
        if **projection != *self.place.projection {
            let problem = format!(
                "`{}` would have its rows in `{schema}`, which has those of `{projection}`: call it otherwise",
                self.place.projection
            );
            return Err(Invalid::new("projection", problem).into());
        }
        // Rows with an invalid checkpoint count as unfinished: they are made again.
        let Ok((position, witness)) = position_of(&[position.clone(), event.clone()]) else {
            return Ok(None);
        };
        let store = id_of(store).unwrap_or_default();
        Ok(Some(Bound { store, schema: definition.clone(), position, witness }))
    }

    async fn tables(&mut self) -> Result<Vec<String>, Fault> {
        let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = ?1";
        let schema = Value::Text(self.place.schema.to_string());
        let answer = self.run(sql, &[schema]).await?;
        let name = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(name)) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        Ok(answer.rows.into_iter().filter_map(name).collect())
    }

    /// Returns another process that uses the rows: one that holds the lock of its name, or renewed its row
    /// within this time. Deletes the rows of processes that are gone.
    pub async fn user(&mut self, own: &str, within: Duration) -> Result<Option<String>, Fault> {
        let age = match self.dialect() {
            Dialect::MySql => "TIMESTAMPDIFF(SECOND, seen_at, CURRENT_TIMESTAMP)",
            _ => "extract(epoch FROM now() - seen_at)::bigint",
        };
        let answer = self.run(&format!("SELECT instance, {age} FROM {{place}}.annals_holders"), &[]).await?;
        let mut user = None;
        for row in answer.rows {
            let mut cells = row.into_iter();
            let Some(Value::Text(instance)) = cells.next() else { continue };
            if instance == own {
                continue;
            }
            let seconds = match cells.next() {
                Some(Value::Integer(seconds)) => seconds,
                _ => -1,
            };
            if seconds < 0 {
                self.hold(&instance).await?;
            }
            let away = Duration::from_secs(seconds.max(0).unsigned_abs());
            let (dialect, lock) = (self.dialect(), instance_lock(&instance));
            if !try_lock(&mut *self.session, &self.prefix, dialect, &lock).await? {
                user = Some(format!("process {instance}, which is running"));
                continue;
            }
            unlock(&mut *self.session, &self.prefix, dialect, &lock).await?;
            if away >= AWAY_MAX {
                self.release(&instance).await?;
            } else if away < within {
                user.get_or_insert(format!("process {instance}, seen {} s ago", away.as_secs()));
            }
        }
        Ok(user)
    }

    /// Records that this process uses the rows.
    pub async fn hold(&mut self, instance: &str) -> Result<(), Fault> {
        let sql = hold(self.dialect());
        self.run(sql, &[Value::Text(instance.to_owned())]).await.map(drop)
    }

    /// Records that this process no longer uses the rows.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn release(&mut self, instance: &str) -> Result<(), Fault> {
        self.run(RELEASE, &[Value::Text(instance.to_owned())]).await.map(drop)
    }

    /// Brings tables of an older version of Annals up to date.
    pub async fn upgrade(&mut self) -> Result<(), Fault> {
        let seen = "SELECT COUNT(*) FROM information_schema.columns
            WHERE table_schema = ?1 AND table_name = 'annals_holders' AND column_name = 'seen_at'";
        let add_seen = match self.dialect() {
            Dialect::MySql => "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
            _ => "timestamptz NOT NULL DEFAULT now()",
        };
        let add_seen = format!("ALTER TABLE {{place}}.annals_holders ADD COLUMN seen_at {add_seen}");
        let key = "SELECT COUNT(*) FROM information_schema.table_constraints WHERE table_schema = ?1
            AND table_name = 'annals_checkpoint' AND constraint_type = 'PRIMARY KEY'";
        let add_key = "ALTER TABLE {place}.annals_checkpoint ADD PRIMARY KEY (projection)".to_owned();
        for (is_done, step) in [(seen, add_seen), (key, add_key)] {
            let schema = Value::Text(self.place.schema.to_string());
            if self.run(is_done, &[schema]).await?.rows.first().is_some_and(|row| row[0] == Value::Integer(0))
            {
                self.session.script(&self.place.named(&step)).await?;
            }
        }
        Ok(())
    }

    /// Creates the tables again, without rows.
    ///
    /// # Errors
    /// `Invalid` if one of them would not take part in transactions, or not survive a crash.
    pub async fn make(&mut self, definition: &str) -> Result<()> {
        let transactional = self.dialect() != Dialect::MySql;
        if transactional {
            self.session.script("BEGIN").await.map_err(state_failed)?;
        }
        match self.try_make(definition).await {
            Ok(()) if transactional => self.session.script("COMMIT").await.map_err(state_failed),
            Ok(()) => Ok(()),
            // The connection may be in any state; it ends with this.
            Err(error) if transactional => Err(error),
            Err(error) => {
                self.remove().await.map_err(state_failed)?;
                Err(error)
            }
        }
    }

    /// Checks that the tables of the projection take part in transactions and survive a crash, as its
    /// checkpoint does.
    ///
    /// # Errors
    /// `Invalid`, with the name of one that does not.
    pub async fn refuse_volatile(&mut self, definition: &str) -> Result<()> {
        let dialect = self.dialect();
        let schema = Value::Text(self.place.schema.to_string());
        let answer = self.run(volatile::tables(dialect), &[schema]).await.map_err(state_failed)?;
        let text = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            other => format!("{other:?}"),
        };
        let found = answer.rows.first().map(|row| (text(&row[0]), text(&row[1])));
        match found
            .or_else(|| volatile::temporary(dialect, definition).map(|name| (name, "temporary".to_owned())))
        {
            Some((table, kind)) => {
                let problem = format!(
                    "has the table `{table}`, which is {kind}: its rows would not be written and kept together with the \
                     checkpoint; make it an ordinary one{}",
                    if dialect == Dialect::MySql { " (ENGINE = InnoDB)" } else { "" }
                );
                Err(Invalid::new("projection", problem).into())
            }
            None => Ok(()),
        }
    }

    async fn try_make(&mut self, definition: &str) -> Result<()> {
        self.make_tables().await.map_err(state_failed)?;
        if !definition.trim().is_empty() {
            self.session.script(definition).await.map_err(|fault| match fault {
                Fault::Refused(cause) => SqlError::Schema(cause).into(),
                fault => state_failed(fault),
            })?;
        }
        self.refuse_volatile(definition).await?;
        self.note(definition).await.map_err(state_failed)
    }

    /// Drops the former tables, and creates new ones.
    async fn make_tables(&mut self) -> Result<(), Fault> {
        if !self.tables().await?.is_empty() {
            self.remove().await?;
        }
        let schema = self.place.schema.clone();
        let there = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?1";
        let there = self.run(there, &[Value::Text(schema.to_string())]).await?;
        if there.rows.first().is_none_or(|row| row[0] == Value::Integer(0)) {
            let create = self.create().await?;
            self.session.script(&create).await?;
        }
        self.session.enter(&schema).await?;
        let own = match self.dialect() {
            Dialect::MySql => include_str!("../sql/place_mysql.sql"),
            _ => include_str!("../sql/place_postgres.sql"),
        };
        self.session.script(own).await
    }

    /// Writes the row of `annals_checkpoint`, which makes the schema valid.
    async fn note(&mut self, definition: &str) -> Result<(), Fault> {
        let sql = "INSERT INTO {place}.annals_checkpoint (projection, store_id, definition, position) VALUES (?1, ?2, ?3, 0)";
        let values = [
            Value::Text(self.place.projection.to_string()),
            Value::Blob(self.place.database.store().as_bytes().to_vec()),
            Value::Text(definition.to_owned()),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// The statement that creates the schema. Text is compared byte by byte, as in SQLite and PostgreSQL.
    async fn create(&mut self) -> Result<String, Fault> {
        if self.dialect() != Dialect::MySql {
            return Ok(self.place.named("CREATE SCHEMA {place}"));
        }
        let sql = "SELECT collation_name FROM information_schema.collations
            WHERE collation_name IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')";
        let collation = match self.run(sql, &[]).await?.rows.into_iter().flatten().next() {
            Some(Value::Text(name)) => name,
            _ => "utf8mb4_bin".to_owned(),
        };
        Ok(self.place.named(&format!("CREATE DATABASE {{place}} CHARACTER SET utf8mb4 COLLATE {collation}")))
    }

    /// Drops the schema and everything in it.
    pub async fn remove(&mut self) -> Result<(), Fault> {
        let sql = match self.dialect() {
            Dialect::MySql => "DROP DATABASE IF EXISTS {place}",
            _ => "DROP SCHEMA IF EXISTS {place} CASCADE",
        };
        self.session.script(&self.place.named(sql)).await
    }
}
