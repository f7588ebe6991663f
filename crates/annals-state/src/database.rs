//! State in a database that any number of processes share.
//!
//! It is bound to one log. State of another log is refused and not changed: otherwise processes with a wrong
//! address would delete each other's state, and subscribers would get all events again.

mod checkpoints;
mod leases;
mod snapshots;

use std::sync::Arc;

use annals_core::{EventId, Invalid, Position, Result, StoreId, Witness};

use crate::words::{insert_unless_there, quoted};
use crate::{Answer, Dialect, Fault, Leases, Session, Sessions, StateStore, Value, state_failed};

/// State in a database. A clone is another handle to it.
#[derive(Clone)]
pub struct SqlState(Arc<Parts>);

struct Parts {
    sessions: Arc<dyn Sessions>,
    leases: Leases,
    store: StoreId,
}

impl SqlState {
    /// Opens the state of this log: creates the tables if necessary, and starts the task of its leases.
    ///
    /// # Errors
    /// `Invalid` if another log's state is there; `Unavailable` if the database cannot be reached.
    pub async fn open(sessions: Arc<dyn Sessions>, store: StoreId) -> Result<Self> {
        sessions.migrate().await?;
        let leases = Leases::start(sessions.clone(), store);
        let database = Self(Arc::new(Parts { sessions, leases, store }));
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

    /// The SQL dialect of the database.
    pub fn dialect(&self) -> Dialect {
        self.0.sessions.dialect()
    }

    /// The schema of the tables.
    pub fn home(&self) -> &str {
        self.0.sessions.home()
    }

    /// Connections to the database.
    pub fn sessions(&self) -> &dyn Sessions {
        &*self.0.sessions
    }

    /// The leases of this process.
    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// The log to which the state belongs.
    pub fn store(&self) -> StoreId {
        self.0.store
    }

    /// An insert that leaves a row with the same key as it is; `key` is a column of that key.
    pub(crate) fn insert_unless_there(&self, what: &str, key: &str) -> String {
        insert_unless_there(self.dialect(), what, key)
    }

    /// Reads by one statement, in which `{state}` is the schema of the tables.
    pub async fn read(&self, sql: &str, values: &[Value]) -> Result<Answer, Fault> {
        // A connection that was lost while idle is replaced, without an error.
        match self.read_once(sql, values).await {
            Err(Fault::Unavailable(_)) => self.read_once(sql, values).await,
            answer => answer,
        }
    }

    async fn read_once(&self, sql: &str, values: &[Value]) -> Result<Answer, Fault> {
        let mut session = self.0.sessions.reader().await?;
        let answer = crate::run(&mut *session, self.dialect(), &self.named(sql), values).await;
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

    /// Begins a transaction that writes in this schema, with a query there: the whole number in the first
    /// column of its first row.
    pub async fn begin_in(&self, place: &str, query: &str) -> Result<(Transaction, Option<i64>), Fault> {
        let mut session = self.0.sessions.writer().await?;
        let number = session.begin(place, query).await?;
        Ok((Transaction { session, database: self.clone() }, number))
    }

    /// A statement with the schema of the tables for `{state}`.
    pub fn named(&self, sql: &str) -> String {
        sql.replace("{state}", &quoted(self.home()))
    }
}

/// A transaction. Dropped, it is rolled back.
pub struct Transaction {
    session: Box<dyn Session>,
    database: SqlState,
}

impl Transaction {
    /// Runs a statement, in which `{state}` is the schema of the tables.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run(&mut self, sql: &str, values: &[Value]) -> Result<Answer, Fault> {
        let sql = self.database.named(sql);
        crate::run(&mut *self.session, self.database.dialect(), &sql, values).await
    }

    /// The connection, on which the transaction is open.
    pub fn session(&mut self) -> &mut (dyn Session + 'static) {
        &mut *self.session
    }

    /// Commits.
    ///
    /// # Errors
    /// Errors of the database. If the connection is lost, the transaction may be committed or not.
    pub async fn commit(mut self) -> Result<(), Fault> {
        self.session.script("COMMIT").await?;
        self.session.done();
        Ok(())
    }

    /// Rolls back.
    pub async fn rollback(mut self) {
        if self.session.script("ROLLBACK").await.is_ok() {
            self.session.done();
        }
    }
}

/// An id in a column: PostgreSQL has a type for them.
pub fn id_of(value: &Value) -> Option<[u8; 16]> {
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
pub fn position_of(row: &[Value]) -> Result<(Position, Option<Witness>), Fault> {
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

impl StateStore for SqlState {
    fn log(&self) -> StoreId {
        self.0.store
    }
}
