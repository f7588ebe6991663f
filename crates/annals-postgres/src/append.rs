//! Writing: one statement a group, or, when something has to be read under the lock first, one transaction.

use annals_core::{Direction, EventId, IdempotencyKey, Position, Query, StreamId, Version};
use annals_sql::{
    Asked, Database, Facts, Failure, Hints, Matching, Session, Staged, Step, Stored, Tail, own_to_json,
    tags_to_json,
};
use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Postgres, Row};
use tokio::sync::watch;
use uuid::Uuid;

use crate::error::{failure, moved};
use crate::options::Address;
use crate::row::Instant;
use crate::state::Held;
use crate::{Options, read, session};

/// Begins a transaction, and locks the log until its end.
pub(crate) const LOCK: &str = "BEGIN; SELECT pg_advisory_xact_lock('log'::regclass::oid::integer, 1)";
const APPEND: &str = include_str!("../sql/append.sql");

/// How the log is reached, for the writer.
pub(crate) struct Link {
    pub(crate) address: Address,
    pub(crate) options: Options,
    /// The head that this process has written, for those who tell others.
    pub(crate) written: watch::Sender<Position>,
}

#[async_trait]
impl Database for Link {
    type Connection = PgConnection;
    type Error = sqlx::Error;

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        session::connect(&self.address, &self.options).await
    }

    async fn answers(&self, connection: &mut PgConnection) -> bool {
        connection.ping().await.is_ok()
    }

    async fn append(
        &self,
        connection: &mut PgConnection,
        staged: &Staged<'_>,
        whole: bool,
    ) -> Result<Option<Tail>, sqlx::Error> {
        // Outside of a transaction a statement is one.
        let tail = append(connection, staged).await?;
        if tail.is_none() && !whole {
            self.roll_back(connection).await?;
        }
        Ok(tail)
    }

    async fn begin(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.execute("BEGIN").await.map(drop)
    }

    async fn lock(&self, connection: &mut PgConnection, asked: &Asked<'_>) -> Result<Facts, sqlx::Error> {
        match lock(connection, asked).await? {
            (_, true) if !self.options.moving => Err(moved()),
            (facts, _) => Ok(facts),
        }
    }

    fn session<'a>(&self, connection: &'a mut PgConnection) -> Box<dyn Session + 'a> {
        Box::new(Held::Open(connection))
    }

    async fn commit(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.execute("COMMIT").await.map(drop)
    }

    async fn roll_back(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.execute("ROLLBACK").await.map(drop)
    }

    fn failure(error: sqlx::Error, step: Step) -> Failure {
        failure(error, step)
    }

    fn written(&self, head: Position) {
        self.written.send_replace(head);
    }
}

/// What must be known of the log, and whether it has moved.
async fn lock(connection: &mut PgConnection, asked: &Asked<'_>) -> Result<(Facts, bool), sqlx::Error> {
    connection.execute(LOCK).await?;
    let end = "SELECT coalesce((SELECT max(position) FROM events), 0), moved FROM log";
    let end = sqlx::query(end).fetch_one(&mut *connection).await?;
    let (head, has_moved) = (Position::new(read::number(end.try_get(0)?)), end.try_get(1)?);
    let mut facts = Facts { head, ..Facts::default() };
    let streams: Vec<&str> = asked.streams.iter().map(|stream| stream.as_str()).collect();
    let rows = sqlx::query(include_str!("../sql/streams.sql")).bind(&streams);
    for row in rows.fetch_all(&mut *connection).await? {
        let version = Version::new(read::number(row.try_get(1)?));
        facts.versions.insert(name(row.try_get(0)?, StreamId::new)?, version);
    }
    if !asked.keys.is_empty() {
        let keys: Vec<&str> = asked.keys.iter().map(|key| key.as_str()).collect();
        let rows =
            sqlx::query("SELECT idempotency_key, position FROM events WHERE idempotency_key = ANY($1)");
        for row in rows.bind(&keys).fetch_all(&mut *connection).await? {
            let position = Position::new(read::number(row.try_get(1)?));
            facts.keys.insert(name(row.try_get(0)?, IdempotencyKey::new)?, position);
        }
    }
    ids(connection, asked, &mut facts).await?;
    for &(query, after) in &asked.matches {
        let first = first_match(connection, query, after).await?;
        facts.matches.push((query.clone(), after, first));
    }
    Ok((facts, has_moved))
}

/// Which ids are used, and what stands where an append with them may stand already.
async fn ids(connection: &mut PgConnection, asked: &Asked<'_>, facts: &mut Facts) -> Result<(), sqlx::Error> {
    let streams: Vec<&str> = asked.ids.iter().map(|(stream, _)| stream.as_str()).collect();
    let ids: Vec<Uuid> = asked.ids.iter().map(|(_, id)| Uuid::from_bytes(*id.as_bytes())).collect();
    let rows = sqlx::query(include_str!("../sql/ids.sql")).bind(&streams).bind(&ids);
    for row in rows.fetch_all(&mut *connection).await? {
        let stream = name(row.try_get(0)?, StreamId::new)?;
        let id = EventId::from_bytes(row.try_get::<Uuid, _>(1)?.into_bytes());
        let position = Position::new(read::number(row.try_get(2)?));
        facts.ids.entry(stream).or_default().insert(id, position);
    }
    for (first, last) in asked.ranges(facts) {
        let rows = sqlx::query(include_str!("../sql/places.sql")).bind(column(first)).bind(column(last));
        for row in rows.fetch_all(&mut *connection).await? {
            let position = Position::new(read::number(row.try_get(0)?));
            let stream = name(row.try_get(1)?, StreamId::new)?;
            let version = Version::new(read::number(row.try_get(2)?));
            let id = EventId::from_bytes(row.try_get::<Uuid, _>(3)?.into_bytes());
            facts.places.insert(position, (stream, version, id));
        }
    }
    Ok(())
}

async fn first_match(
    connection: &mut PgConnection,
    query: &Query,
    after: Position,
) -> Result<Option<Position>, sqlx::Error> {
    let Matching { sql, values } = Matching::of(query, Direction::Forward, 4, Hints::None);
    let statement = sqlx::query(AssertSqlSafe(sql)).bind(column(after.next())).bind(i64::MAX).bind(1_i64);
    let row = read::bind(statement, values).fetch_optional(connection).await?;
    row.map(|row| Ok(Position::new(read::number(row.try_get(0)?)))).transpose()
}

fn column(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

fn name<T>(
    text: String,
    read: impl FnOnce(String) -> Result<T, annals_core::Invalid>,
) -> Result<T, sqlx::Error> {
    read(text).map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))
}

/// Writes a group, if what it assumes is so. If it is not so, the transaction can only be rolled back.
async fn append(connection: &mut PgConnection, staged: &Staged<'_>) -> Result<Option<Tail>, sqlx::Error> {
    let row = match bind(staged).fetch_optional(connection).await {
        // A key, an id or a version is there already.
        Err(sqlx::Error::Database(refused)) if refused.is_unique_violation() => return Ok(None),
        row => row?,
    };
    row.map(|row| {
        let versions: Vec<i64> = row.try_get(2)?;
        Ok(Tail {
            position: Position::new(read::number(row.try_get(0)?)),
            recorded_at: row.try_get::<Instant, _>(1)?.0,
            versions: versions.into_iter().map(|version| Version::new(read::number(version))).collect(),
        })
    })
    .transpose()
}

/// The statement with the rows of a group, column by column.
fn bind<'a>(staged: &'a Staged<'_>) -> sqlx::query::Query<'a, Postgres, PgArguments> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    macro_rules! streams {
        ($stream:ident => $column:expr) => {
            staged.streams.iter().map(|$stream| $column).collect::<Vec<_>>()
        };
    }
    macro_rules! events {
        ($event:ident => $column:expr) => {
            staged.events.iter().map(|$event| $column).collect::<Vec<_>>()
        };
    }
    macro_rules! optional {
        ($event:ident => $column:expr) => {
            unless_empty(events!($event => $column))
        };
    }
    let stored: Vec<_> = staged.events.iter().map(|event| Stored::of(&event.write.event.data)).collect();
    let kinds: Vec<_> = staged.streams.iter().map(|stream| stream.id.category()).collect();
    sqlx::query(APPEND)
        .bind(streams!(stream => stream.id.as_str()))
        .bind(streams!(stream => stream.assumed.map(|version| count(version.get()))))
        .bind(events!(event => count(event.stream as u64 + 1)))
        .bind(events!(event => event.write.stream.as_str()))
        .bind(events!(event => kinds[event.stream].as_str().to_owned()))
        .bind(events!(event => count(event.version)))
        .bind(events!(event => count(event.append)))
        .bind(events!(event => Uuid::from_bytes(*event.write.event.id.as_bytes())))
        .bind(events!(event => event.write.event.event_type.as_str()))
        .bind(events!(event => i32::from(event.write.event.schema_version)))
        .bind(optional!(event => content_type(&event.write.event.content_type)))
        .bind(stored.iter().map(|data| data.text()).collect::<Vec<_>>())
        .bind(unless_empty(stored.iter().map(|data| data.binary()).collect()))
        .bind(optional!(event => tags_to_json(&event.write.event.tags)))
        .bind(optional!(event => event.write.event.metadata.predecessor.as_deref()))
        .bind(optional!(event => event.write.event.metadata.process.as_deref()))
        .bind(optional!(event => event.write.event.metadata.initiator.as_deref()))
        .bind(optional!(event => event.write.event.metadata.trace.as_deref()))
        .bind(optional!(event => own_to_json(&event.write.event.metadata.own)))
        .bind(optional!(event => event.write.event.occurred_at.map(Instant)))
        .bind(events!(event => Instant(event.recorded_at)))
        .bind(optional!(event => event.key.map(IdempotencyKey::as_str)))
        .bind(unless_empty(streams!(stream => stream.newest.map(|id| Uuid::from_bytes(*id.as_bytes())))))
}

/// A column, unless there is nothing in it: then it costs nothing.
fn unless_empty<T>(column: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    Some(column).filter(|column| column.iter().any(Option::is_some))
}

/// The media type; JSON needs none.
fn content_type(content_type: &annals_core::ContentType) -> Option<&str> {
    (*content_type != annals_core::ContentType::Json).then(|| content_type.as_str())
}
