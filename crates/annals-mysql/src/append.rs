//! Writing: one text a group, in one round trip, or, when something has to be read under the lock first, one transaction.

use annals_core::{EventId, IdempotencyKey, Position, StreamId, Timestamp, Version};
use annals_sql::{Asked, Database, Facts, Failure, Session, Staged, Step, Tail};
use async_trait::async_trait;
use serde_json::{Value as Json, json};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::error::{failure, moved, number};
use crate::options::Address;
use crate::read::Statement;
use crate::state::Held;
use crate::{Options, group, read, row, session, state};

/// A key, an id or a version is there already, or a stream is at another version.
const NOT_AS_ASSUMED: [u16; 2] = [1062, 1644];

/// How the log is reached, for the writer.
pub(crate) struct Link {
    pub(crate) address: Address,
    pub(crate) options: Options,
}

#[async_trait]
impl Database for Link {
    type Connection = MySqlConnection;
    type Error = sqlx::Error;

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        session::connect(&self.address, &self.options).await
    }

    async fn answers(&self, connection: &mut MySqlConnection) -> bool {
        connection.ping().await.is_ok()
    }

    async fn append(
        &self,
        connection: &mut MySqlConnection,
        staged: &Staged<'_>,
        whole: bool,
    ) -> Result<Option<Tail>, sqlx::Error> {
        let text = AssertSqlSafe(group::text(staged, whole));
        match connection.fetch_all(sqlx::raw_sql(text)).await {
            Ok(rows) => rows.first().map(tail).transpose(),
            Err(error) if NOT_AS_ASSUMED.contains(&number(&error)) => {
                self.roll_back(connection).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        connection.execute("START TRANSACTION").await.map(drop)
    }

    async fn lock(&self, connection: &mut MySqlConnection, asked: &Asked<'_>) -> Result<Facts, sqlx::Error> {
        match lock(connection, asked).await? {
            (_, true) if !self.options.moving => Err(moved()),
            (facts, _) => Ok(facts),
        }
    }

    fn session<'a>(&self, connection: &'a mut MySqlConnection) -> Box<dyn Session + 'a> {
        Box::new(Held::Open(connection))
    }

    async fn commit(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        let sql = format!("{}; COMMIT", state::enter(&self.address.database));
        connection.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    async fn roll_back(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        let sql = format!("ROLLBACK; {}", state::enter(&self.address.database));
        connection.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    fn failure(error: sqlx::Error, step: Step) -> Failure {
        failure(error, step)
    }
}

/// What must be known of the log, and whether it has moved.
async fn lock(connection: &mut MySqlConnection, asked: &Asked<'_>) -> Result<(Facts, bool), sqlx::Error> {
    connection.execute("START TRANSACTION").await?;
    let row = sqlx::query("SELECT position, moved FROM log FOR UPDATE").fetch_one(&mut *connection).await?;
    let (head, has_moved) = (Position::new(read::number(row.try_get(0)?)), row.try_get(1)?);
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
    Ok((facts, has_moved))
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

fn tail(row: &MySqlRow) -> Result<Tail, sqlx::Error> {
    let versions: String = row.try_get(2)?;
    let versions: Result<_, _> = versions.split_whitespace().map(str::parse).collect();
    Ok(Tail {
        position: Position::new(read::number(row.try_get(0)?)),
        recorded_at: Timestamp::from_micros(row.try_get(1)?),
        versions: versions.map_err(|error: annals_core::Invalid| sqlx::Error::Decode(Box::new(error)))?,
    })
}
