//! Writing: one text a group, in one round trip, or, when something has to be read under the lock first, one transaction.

use std::time::Instant as Moment;

use annals_core::{EventId, IdempotencyKey, Position, StreamId, Timestamp, Version};
use annals_sql::{Asked, Database, Facts, Failure, Staged, Tail};
use async_trait::async_trait;
use serde_json::{Value as Json, json};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::error::{Step, failure, number};
use crate::options::Address;
use crate::read::Statement;
use crate::{Options, group, read, row, session};

/// A key, an id or a version is there already, or a stream is at another version.
const NOT_AS_ASSUMED: [u16; 2] = [1062, 1644];

/// The connection that writes.
pub(crate) struct Writer {
    address: Address,
    options: Options,
    connection: Option<(MySqlConnection, Moment)>,
}

impl Writer {
    pub(crate) fn new(address: Address, options: Options) -> Self {
        Self { address, options, connection: None }
    }

    /// Takes the connection out, or makes a new one. It is put back when all has gone well.
    pub(crate) async fn take(&mut self) -> Result<MySqlConnection, Failure> {
        if let Some((mut connection, used)) = self.connection.take()
            && (used.elapsed() < session::IDLE || connection.ping().await.is_ok())
        {
            return Ok(connection);
        }
        let connecting = session::connect(&self.address, &self.options).await;
        connecting.map_err(|error| failure(error, Step::Read))
    }

    pub(crate) fn put_back(&mut self, connection: MySqlConnection) {
        self.connection = Some((connection, Moment::now()));
    }

    /// Takes the connection out on which a transaction is open.
    pub(crate) fn locked(&mut self) -> Result<MySqlConnection, Failure> {
        let open = self.connection.take().map(|(connection, _)| connection);
        open.ok_or_else(|| Failure::unavailable("the log is not locked"))
    }

    /// The same, where it is.
    pub(crate) fn open(&mut self) -> Option<&mut MySqlConnection> {
        self.connection.as_mut().map(|(connection, _)| connection)
    }

    /// The database that is the log's.
    pub(crate) fn home(&self) -> &str {
        &self.address.database
    }
}

#[async_trait]
impl Database for Writer {
    async fn write(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure> {
        let mut connection = self.take().await?;
        let tail = append(&mut connection, staged, true).await;
        let tail = tail.map_err(|error| failure(error, Step::Commit))?;
        self.put_back(connection);
        Ok(tail)
    }

    async fn lock(&mut self, asked: &Asked<'_>) -> Result<Facts, Failure> {
        let mut connection = self.take().await?;
        let facts = lock(&mut connection, asked).await.map_err(|error| failure(error, Step::Read))?;
        self.put_back(connection);
        Ok(facts)
    }

    async fn commit(&mut self, staged: &Staged<'_>) -> Result<Tail, Failure> {
        let mut connection = self.locked()?;
        if let Some(tail) = staged.nothing() {
            connection.execute("ROLLBACK").await.map_err(|error| failure(error, Step::Read))?;
            self.put_back(connection);
            return Ok(tail);
        }
        let written = append(&mut connection, staged, false).await;
        let written = written.map_err(|error| failure(error, Step::Read))?;
        let tail = written.ok_or_else(changed)?;
        connection.execute("COMMIT").await.map_err(|error| failure(error, Step::Commit))?;
        self.put_back(connection);
        Ok(tail)
    }
}

/// What was read under the lock is not so when it is written.
pub(crate) fn changed() -> Failure {
    Failure::unavailable("the tables were changed by somebody who does not lock the log")
}

async fn lock(connection: &mut MySqlConnection, asked: &Asked<'_>) -> Result<Facts, sqlx::Error> {
    connection.execute("START TRANSACTION").await?;
    let row = sqlx::query("SELECT position FROM log FOR UPDATE").fetch_one(&mut *connection).await?;
    let head = Position::new(read::number(row.try_get(0)?));
    let mut facts = Facts { head, ..Facts::default() };
    let streams = Json::from_iter(asked.streams.iter().map(|stream| stream.as_str())).to_string();
    let rows = sqlx::query(include_str!("../sql/streams.sql")).bind(&streams);
    for row in rows.fetch_all(&mut *connection).await? {
        let (stream, version) = read::place(&row)?;
        facts.versions.insert(stream, version);
    }
    if !asked.keys.is_empty() {
        let keys = Json::from_iter(asked.keys.iter().map(|key| key.as_str())).to_string();
        let rows = sqlx::query(include_str!("../sql/keys.sql")).bind(&keys);
        for row in rows.fetch_all(&mut *connection).await? {
            let key = IdempotencyKey::new(row::text(&row, 0)?);
            let key = key.map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))?;
            facts.keys.insert(key, Position::new(read::number(row.try_get(1)?)));
        }
    }
    ids(connection, asked, &mut facts).await?;
    for &(query, after) in &asked.matches {
        let statement = Statement::first_match(query, after.next());
        let row = statement.query().fetch_optional(&mut *connection).await?;
        let first = row.map(|row| row.try_get(0)).transpose()?;
        facts.matches.push((query.clone(), after, first.map(|first| Position::new(read::number(first)))));
    }
    Ok(facts)
}

/// Which ids are used, and what stands where an append with them may stand already.
async fn ids(
    connection: &mut MySqlConnection,
    asked: &Asked<'_>,
    facts: &mut Facts,
) -> Result<(), sqlx::Error> {
    let wanted = asked.ids.iter().map(|(stream, id)| json!([stream.as_str(), hex(*id)]));
    let wanted = Json::from_iter(wanted).to_string();
    let rows = sqlx::query(include_str!("../sql/ids.sql")).bind(&wanted);
    for row in rows.fetch_all(&mut *connection).await? {
        let stream = stream(row::text(&row, 0)?)?;
        let position = Position::new(read::number(row.try_get(2)?));
        facts.ids.entry(stream).or_default().insert(EventId::from_bytes(row::id(&row, 1)?), position);
    }
    for (first, last) in asked.ranges(facts) {
        let column = |position: Position| i64::try_from(position.get()).unwrap_or(i64::MAX);
        let rows = sqlx::query(include_str!("../sql/places.sql")).bind(column(first)).bind(column(last));
        for row in rows.fetch_all(&mut *connection).await? {
            let position = Position::new(read::number(row.try_get(0)?));
            let version = Version::new(read::number(row.try_get(2)?));
            let place = (stream(row::text(&row, 1)?)?, version, EventId::from_bytes(row::id(&row, 3)?));
            facts.places.insert(position, place);
        }
    }
    Ok(())
}

fn stream(name: String) -> Result<StreamId, sqlx::Error> {
    StreamId::new(name).map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))
}

fn hex(id: EventId) -> String {
    id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a group, if what it assumes is so; as a transaction of its own, if `whole`. If it is not so, the transaction is
/// rolled back.
pub(crate) async fn append(
    connection: &mut MySqlConnection,
    staged: &Staged<'_>,
    whole: bool,
) -> Result<Option<Tail>, sqlx::Error> {
    let text = AssertSqlSafe(group::text(staged, whole));
    match connection.fetch_all(sqlx::raw_sql(text)).await {
        Ok(rows) => rows.first().map(tail).transpose(),
        Err(error) if NOT_AS_ASSUMED.contains(&number(&error)) => {
            connection.execute("ROLLBACK").await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn tail(row: &MySqlRow) -> Result<Tail, sqlx::Error> {
    let versions: String = row.try_get(2)?;
    let versions: Result<_, _> = versions.split_whitespace().map(str::parse).collect();
    Ok(Tail {
        position: Position::new(read::number(row.try_get(0)?)),
        recorded_at: Timestamp::from_micros(row.try_get(1)?),
        versions: versions.map_err(|error: annals_core::Invalid| sqlx::Error::Decode(Box::new(error)))?,
    })
}
