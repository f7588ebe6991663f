//! State in a database that any number of processes share.
//!
//! It is bound to one log. State of another is refused and left as it is: processes that have the wrong address would
//! otherwise throw away each other's, and subscribers would be told everything again.

use std::sync::Arc;

use annals_core::{EventId, Invalid, Position, Result, StoreId, Witness};
use annals_sql::{Answer, Dialect, Fault, Inlines, Session, Sessions, Value};

use super::guard::Guard;
use super::state_failed;

/// State in a database. A clone is the same.
#[derive(Clone)]
pub(crate) struct StateDatabase(Arc<Parts>);

struct Parts {
    sessions: Arc<dyn Sessions>,
    inlines: Option<Inlines>,
    guard: Guard,
    store: StoreId,
}

impl StateDatabase {
    pub async fn open(sessions: Arc<dyn Sessions>, inlines: Option<Inlines>, store: StoreId) -> Result<Self> {
        sessions.migrate().await?;
        let guard = Guard::start(sessions.clone(), store);
        let database = Self(Arc::new(Parts { sessions, inlines, guard, store }));
        if database.bound_to().await.map_err(state_failed)?.is_none() {
            let id = Value::Blob(store.as_bytes().to_vec());
            let insert = database.insert_unless_there("{state}.state (store_id) VALUES (?1)", "alone");
            database.write(&insert, &[id]).await.map_err(state_failed)?;
        }
        match database.bound_to().await.map_err(state_failed)? {
            Some(id) if id == *store.as_bytes() => {
                database.sessions().bind(store);
                Ok(database)
            }
            other => {
                let other = other.map_or_else(String::new, |id| StoreId::from_bytes(id).to_string());
                let home = database.home();
                let problem = format!(
                    "`{home}` has the state of the log {other}, not of {store}; name another schema for this one's, or drop it"
                );
                Err(Invalid::new("state", problem).into())
            }
        }
    }

    async fn bound_to(&self) -> Result<Option<[u8; 16]>, Fault> {
        let answer = self.read("SELECT store_id FROM {state}.state", &[]).await?;
        Ok(answer.rows.first().and_then(|row| id_of(&row[0])))
    }

    pub fn dialect(&self) -> Dialect {
        self.0.sessions.dialect()
    }

    /// The schema of the tables.
    pub fn home(&self) -> &str {
        self.0.sessions.home()
    }

    pub fn sessions(&self) -> &dyn Sessions {
        &*self.0.sessions
    }

    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// The projections that the log's appends take with them, if this is the log's own database.
    pub fn inlines(&self) -> Option<&Inlines> {
        self.0.inlines.as_ref()
    }

    pub fn store(&self) -> StoreId {
        self.0.store
    }

    /// An insert that does nothing if a row with the same key is there, of which this is a column.
    pub fn insert_unless_there(&self, what: &str, key: &str) -> String {
        match self.dialect() {
            // `INSERT IGNORE` would also cut what is too long.
            Dialect::MySql => format!("INSERT INTO {what} ON DUPLICATE KEY UPDATE {key} = {key}"),
            _ => format!("INSERT INTO {what} ON CONFLICT DO NOTHING"),
        }
    }

    /// Reads by one statement, in which `{state}` is the schema of the tables.
    pub async fn read(&self, sql: &str, values: &[Value]) -> Result<Answer, Fault> {
        // A connection that was lost while nobody used it is not worth an error.
        match self.read_once(sql, values).await {
            Err(Fault::Unavailable(_)) => self.read_once(sql, values).await,
            answer => answer,
        }
    }

    async fn read_once(&self, sql: &str, values: &[Value]) -> Result<Answer, Fault> {
        let mut session = self.0.sessions.reader().await?;
        let answer = annals_sql::run(&mut *session, self.dialect(), &self.named(sql), values).await;
        if !matches!(answer, Err(Fault::Unavailable(_))) {
            session.done();
        }
        answer
    }

    /// Writes by one statement, which is a transaction.
    pub async fn write(&self, sql: &str, values: &[Value]) -> Result<Answer, Fault> {
        let mut transaction = self.begin().await?;
        let answer = transaction.run(sql, values).await?;
        transaction.commit().await?;
        Ok(answer)
    }

    /// Begins a transaction that writes.
    pub async fn begin(&self) -> Result<Transaction, Fault> {
        let mut session = self.0.sessions.writer().await?;
        session.script("BEGIN").await?;
        Ok(Transaction { session, database: self.clone() })
    }

    pub(super) fn named(&self, sql: &str) -> String {
        sql.replace("{state}", &quoted(self.home()))
    }
}

/// A transaction. Dropped, it is rolled back.
pub(crate) struct Transaction {
    session: Box<dyn Session>,
    database: StateDatabase,
}

impl Transaction {
    pub async fn run(&mut self, sql: &str, values: &[Value]) -> Result<Answer, Fault> {
        let sql = self.database.named(sql);
        annals_sql::run(&mut *self.session, self.database.dialect(), &sql, values).await
    }

    pub fn session(&mut self) -> &mut (dyn Session + 'static) {
        &mut *self.session
    }

    pub async fn commit(mut self) -> Result<(), Fault> {
        self.session.script("COMMIT").await?;
        self.session.done();
        Ok(())
    }

    pub async fn rollback(mut self) {
        if self.session.script("ROLLBACK").await.is_ok() {
            self.session.done();
        }
    }
}

/// The name of a schema in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An id in a column: PostgreSQL has a type for them.
pub(crate) fn id_of(value: &Value) -> Option<[u8; 16]> {
    match value {
        Value::Blob(bytes) => bytes.as_slice().try_into().ok(),
        Value::Text(text) => text.parse().ok().map(|id: EventId| *id.as_bytes()),
        _ => None,
    }
}

/// A checkpoint in two columns: the position, and the id of the event there if it is at one.
///
/// # Errors
/// If they hold something else.
pub(crate) fn position_of(row: &[Value]) -> Result<(Position, Option<Witness>), Fault> {
    let unreadable = |column: &str, problem: &str| Fault::Column {
        column: format!("`{column}` of annals_checkpoint"),
        problem: problem.to_owned(),
    };
    let position = match row.first() {
        Some(Value::Integer(position)) => u64::try_from(*position).ok().map(Position::new),
        _ => None,
    };
    let position = position.ok_or_else(|| unreadable("position", "is no position"))?;
    let witness = match row.get(1) {
        None | Some(Value::Null) => None,
        Some(id) => {
            let id = id_of(id).ok_or_else(|| unreadable("event_id", "is no id of an event"))?;
            Some(Witness { position, id: EventId::from_bytes(id) })
        }
    };
    Ok((position, witness))
}
