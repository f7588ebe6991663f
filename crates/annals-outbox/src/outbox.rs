//! An outbox: its tables, and how a service writes to it.
//!
//! - W1  A message is written in the transaction of the caller: no other connection is used.
//! - W2  The writer of a message locks the row of its aggregate until the transaction ends, before the
//!       message gets its sequence and position. So among the messages of one aggregate both are in the order
//!       of commits, and when one can be seen, so can all before it.
//! - W3  A message that is not acceptable is refused before anything is sent to the database.

use annals_core::Invalid;

use crate::database::{Access, Row, Session, Transaction, Value};
use crate::dialect::Dialect;
use crate::{Error, NewMessage, Pool, Result};

/// An outbox: some tables in the database of a service. A clone is cheap and of the same outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(crate) pool: Pool,
    pub(crate) name: String,
}

/// The format of the tables, which is stored in `outbox_publisher`.
const FORMAT: i64 = 1;

/// Longest name of an outbox, in bytes: it is a part of the names of tables and indexes, which databases
/// limit.
const NAME_BYTES_MAX: usize = 40;

impl Outbox {
    /// Returns the outbox named `outbox` in this database.
    pub fn new(pool: impl Into<Pool>) -> Self {
        Self { pool: pool.into(), name: "outbox".to_owned() }
    }

    /// Returns the outbox with this name, so that a database may have several. Its table has this name, and
    /// the names of its other tables begin with it.
    ///
    /// # Errors
    /// `Invalid` unless the name is of a to z, 0 to 9 and `_`, begins with a letter, and has at most 40
    /// characters.
    pub fn named(pool: impl Into<Pool>, name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase())
            || name.len() > NAME_BYTES_MAX
            || !name.chars().all(plain)
        {
            let problem = format!(
                "`{name}` must be 1 to {NAME_BYTES_MAX} of a to z, 0 to 9 and _, the first of them a letter"
            );
            return Err(Invalid::new("name", problem).into());
        }
        Ok(Self { pool: pool.into(), name: name.to_owned() })
    }

    /// Creates the tables, if they do not exist. Several processes may do it at once.
    ///
    /// The SQL is in `sql/` of this crate, for teams with migrations of their own.
    ///
    /// # Errors
    /// `NewerTables` if the tables are of a later version; `Database`.
    pub async fn migrate(&self) -> Result<()> {
        match self.check().await {
            Err(Error::NoTables(_)) => {}
            checked => return checked,
        }
        let mut transaction = self.begin(Access::Lock).await?;
        let script = match self.pool.dialect() {
            Dialect::Postgres => {
                // `CREATE TABLE IF NOT EXISTS` fails when two sessions run it at once.
                let lock =
                    "SELECT pg_advisory_xact_lock(hashtextextended('annals outbox ' || $1, 0))".to_owned();
                self.run(&mut transaction, lock, &[Value::Text(&self.name)]).await?;
                include_str!("../sql/postgres.sql")
            }
            Dialect::MySql => include_str!("../sql/mysql.sql"),
            Dialect::Sqlite => include_str!("../sql/sqlite.sql"),
        };
        let script = script.replace("outbox", &self.name);
        transaction.script(script).await.map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        self.check().await
    }

    /// Writes a message in the transaction of this connection: `outbox.write(&mut *transaction, &message)`.
    /// It is published if the transaction is committed.
    ///
    /// Other transactions that write for the same aggregate wait until this one ends. All transactions that
    /// write for several aggregates should do so in the same order, or the database may end one as a
    /// deadlock.
    ///
    /// # Errors
    /// `Invalid` if the message is not acceptable, in which case nothing was sent; `NoTables`, `Database`.
    pub async fn write<'c>(&self, connection: impl Into<Session<'c>>, message: &NewMessage) -> Result<()> {
        message.validate()?;
        let mut session = connection.into();
        let dialect = session.dialect();
        let id = message.id.to_string();
        let text = std::str::from_utf8(&message.data).ok();
        let headers = serde_json::to_string(&message.headers).expect("text can be written as JSON");
        let is_json = message.content_type == annals_core::ContentType::Json;
        let aggregate = [Value::Text(&message.aggregate_type), Value::Text(&message.aggregate_id)];
        let row = [
            Value::Text(&id),
            Value::Text(&message.event_type),
            Value::MaybeText((!is_json).then(|| message.content_type.as_str())),
            Value::MaybeText(text.filter(|_| is_json)),
            Value::MaybeBytes((!is_json).then_some(&message.data)),
            Value::MaybeText((!message.headers.is_empty()).then_some(&headers)),
        ];
        let failed = |error: sqlx::Error| match &error {
            sqlx::Error::Database(refused) if refused.is_unique_violation() => {
                Invalid::new("id", format!("{id} is in the outbox already")).into()
            }
            _ => self.failed(error),
        };
        if dialect == Dialect::Postgres {
            let values = [&aggregate[..], &row].concat();
            session.execute(self.spell(dialect, WRITE_AT_ONCE), &values).await.map_err(failed)?;
            return Ok(());
        }
        let next = if dialect == Dialect::MySql { NEXT_ON_MYSQL } else { NEXT_ON_SQLITE };
        session.execute(self.spell(dialect, next), &aggregate).await.map_err(failed)?;
        let values = [&row[..], &aggregate].concat();
        session.execute(self.spell(dialect, WRITE), &values).await.map_err(failed)?;
        Ok(())
    }

    /// Checks that the tables exist and have the format of this version.
    pub(crate) async fn check(&self) -> Result<()> {
        let rows = self.fetch("SELECT format FROM outbox_publisher", &[]).await?;
        let row = rows.first().ok_or_else(|| Error::NoTables(self.name.clone()))?;
        match row.int(0).map_err(Error::Database)? {
            FORMAT => Ok(()),
            other => Err(Error::NewerTables(other)),
        }
    }

    pub(crate) fn spell(&self, dialect: Dialect, statement: &str) -> String {
        dialect.spell(&self.name, statement)
    }

    pub(crate) fn failed(&self, error: sqlx::Error) -> Error {
        Error::of(error, &self.name)
    }

    pub(crate) async fn begin(&self, access: Access) -> Result<Transaction> {
        self.pool.begin(access).await.map_err(|error| self.failed(error))
    }

    /// Executes a statement in a transaction of its own. Returns the number of rows that it changed.
    pub(crate) async fn execute(&self, statement: &str, values: &[Value<'_>]) -> Result<u64> {
        let mut transaction = self.begin(Access::Write).await?;
        let changed = self.run(&mut transaction, self.spell(self.pool.dialect(), statement), values).await?;
        self.commit(transaction).await?;
        Ok(changed)
    }

    /// Executes a query in a transaction of its own.
    pub(crate) async fn fetch(&self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let mut transaction = self.begin(Access::Read).await?;
        let rows = self.ask(&mut transaction, statement, values).await?;
        self.commit(transaction).await?;
        Ok(rows)
    }

    pub(crate) async fn ask(
        &self,
        transaction: &mut Transaction,
        statement: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>> {
        let sql = self.spell(self.pool.dialect(), statement);
        transaction.fetch(sql, values).await.map_err(|error| self.failed(error))
    }

    pub(crate) async fn run(
        &self,
        transaction: &mut Transaction,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<u64> {
        transaction.execute(sql, values).await.map_err(|error| self.failed(error))
    }

    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<()> {
        transaction.commit().await.map_err(|error| self.failed(error))
    }
}

/// Locks the aggregate, takes its next sequence, and writes, in one round trip.
const WRITE_AT_ONCE: &str = "
    WITH next AS (
        INSERT INTO outbox_aggregates AS a (aggregate_type, aggregate_id, sequence) VALUES (?, ?, 1)
        ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET sequence = a.sequence + 1
        RETURNING aggregate_type, aggregate_id, sequence, held
    )
    INSERT INTO outbox (id, event_type, content_type, event_data, event_binary, headers,
        aggregate_type, aggregate_id, sequence, held)
    SELECT @id, ?, ?, ?, ?, ?, aggregate_type, aggregate_id, sequence, held FROM next";

const NEXT_ON_MYSQL: &str = "
    INSERT INTO outbox_aggregates (aggregate_type, aggregate_id, sequence) VALUES (?, ?, 1)
    ON DUPLICATE KEY UPDATE sequence = sequence + 1";

const NEXT_ON_SQLITE: &str = "
    INSERT INTO outbox_aggregates (aggregate_type, aggregate_id, sequence) VALUES (?, ?, 1)
    ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET sequence = sequence + 1";

/// Writes with the current sequence of the aggregate, which is locked.
const WRITE: &str = "
    INSERT INTO outbox (id, event_type, content_type, event_data, event_binary, headers,
        aggregate_type, aggregate_id, sequence, held)
    SELECT ?, ?, ?, ?, ?, ?, aggregate_type, aggregate_id, sequence, held
    FROM outbox_aggregates WHERE aggregate_type = ? AND aggregate_id = ?";
