//! Writes a group of appends: in one statement, or in one transaction if facts must be read under the lock
//! first.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventId, IdempotencyKey, Position, StreamId, Version, Witness};
use annals_sql::{
    Asked, Borrowed, Database, Facts, Failure, Held, How, Lineage, Staged, Step, Stopped, Stored, Tail,
    own_to_json, tags_to_json,
};
use annals_state::Session;
use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{AssertSqlSafe, Executor, Postgres, Row};
use tokio::sync::watch;
use uuid::Uuid;

use crate::error::{failure, stopped};
use crate::matching::Matching;
use crate::options::Options;
use crate::read::{self, column};
use crate::row::Instant;
use crate::session::{Connected, Connector};

/// Begins a transaction and locks the log until it ends.
pub(crate) const LOCK: &str = "BEGIN; SELECT pg_advisory_xact_lock('log'::regclass::oid::integer, 1)";
const APPEND: &str = include_str!("../sql/append.sql");

/// Access to the log for the writer.
pub(crate) struct Link {
    pub(crate) connector: Arc<Connector>,
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) options: Options,
    /// The head after the last commit of this process, for notifying other processes.
    pub(crate) written: watch::Sender<Position>,
}

#[async_trait]
impl Database for Link {
    type Driver = Connector;
    type Connection = Connected;
    type Error = sqlx::Error;

    fn driver(&self) -> &Arc<Connector> {
        &self.connector
    }

    fn lineage(&self) -> &Arc<Lineage> {
        &self.lineage
    }

    fn silence(&self) -> Duration {
        self.options.silence()
    }

    async fn append(
        &self,
        connection: &mut Connected,
        staged: &Staged<'_>,
        how: How,
    ) -> Result<Option<Tail>, sqlx::Error> {
        // Outside a transaction, a statement is its own transaction.
        let session = connection.session.clone();
        let statement = bind(staged).bind(Uuid::from_bytes(*self.lineage.id().as_bytes()));
        let known = staged.known;
        let statement = statement.bind(column(known.position)).bind(Uuid::from_bytes(*known.id.as_bytes()));
        let tail = match statement.bind(session).fetch_optional(&mut **connection).await {
            // A key, an id or a version exists already.
            Err(sqlx::Error::Database(refused)) if refused.is_unique_violation() && how != How::Locked => {
                None
            }
            row => row?.as_ref().map(tail).transpose()?,
        };
        if tail.is_none() && how != How::Whole {
            self.roll_back(connection).await?;
        }
        Ok(tail)
    }

    async fn begin(&self, connection: &mut Connected) -> Result<(), sqlx::Error> {
        connection.execute("BEGIN").await.map(drop)
    }

    async fn lock(&self, connection: &mut Connected, asked: &Asked<'_>) -> Result<Facts, sqlx::Error> {
        connection.execute(LOCK).await?;
        let sql = "SELECT coalesce((SELECT max(position) FROM events), 0), moved FROM assert_log($1, $2, $3, $4), log";
        let Witness { position, id } = asked.known;
        let end = sqlx::query(sql)
            .bind(Uuid::from_bytes(*self.lineage.id().as_bytes()))
            .bind(column(position))
            .bind(Uuid::from_bytes(*id.as_bytes()))
            .bind(connection.session.clone());
        let end = end.fetch_one(&mut **connection).await?;
        if end.try_get(1)? && !self.options.moving {
            return Err(stopped(Stopped::Moved));
        }
        facts(connection, asked, Position::new(read::number(end.try_get(0)?))).await
    }

    fn session<'a>(&self, connection: &'a mut Connected) -> Box<dyn Session + 'a> {
        Box::new(Held::<Connector>::Open(Borrowed::new(connection, self.options.silence())))
    }

    async fn commit(&self, connection: &mut Connected) -> Result<(), sqlx::Error> {
        connection.execute("COMMIT").await.map(drop)
    }

    async fn roll_back(&self, connection: &mut Connected) -> Result<(), sqlx::Error> {
        connection.execute("ROLLBACK").await.map(drop)
    }

    fn failure(error: sqlx::Error, step: Step) -> Failure {
        failure(error, step)
    }

    fn written(&self, head: Position) {
        self.written.send_replace(head);
    }
}

/// Reads the facts under the lock; the log ends at `head`.
async fn facts(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    head: Position,
) -> Result<Facts, sqlx::Error> {
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
    let to_look_up = facts.note_matches(asked);
    if let Some(Matching { sql, arms }) = Matching::first(&to_look_up) {
        for row in sqlx::query(AssertSqlSafe(sql)).bind(arms).fetch_all(connection).await? {
            let number = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            facts.matched(number, Position::new(read::number(row.try_get(1)?)));
        }
    }
    Ok(facts)
}

/// Reads which ids are used, and the events at the positions where a duplicate append may be.
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
    let (first, last): (Vec<_>, Vec<_>) = asked.ranges(facts).into_iter().unzip();
    if first.is_empty() {
        return Ok(());
    }
    let columns = |positions: Vec<Position>| positions.into_iter().map(column).collect::<Vec<_>>();
    let rows = sqlx::query(include_str!("../sql/places.sql")).bind(columns(first)).bind(columns(last));
    for row in rows.fetch_all(&mut *connection).await? {
        let position = Position::new(read::number(row.try_get(0)?));
        let stream = name(row.try_get(1)?, StreamId::new)?;
        let version = Version::new(read::number(row.try_get(2)?));
        let id = EventId::from_bytes(row.try_get::<Uuid, _>(3)?.into_bytes());
        facts.places.insert(position, (stream, version, id));
    }
    Ok(())
}

fn name<T>(
    text: String,
    read: impl FnOnce(String) -> Result<T, annals_core::Invalid>,
) -> Result<T, sqlx::Error> {
    read(text).map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))
}

/// The end of the log before the group.
fn tail(row: &sqlx::postgres::PgRow) -> Result<Tail, sqlx::Error> {
    let versions: Vec<i64> = row.try_get(2)?;
    Ok(Tail {
        position: Position::new(read::number(row.try_get(0)?)),
        recorded_at: row.try_get::<Instant, _>(1)?.0,
        versions: versions.into_iter().map(|version| Version::new(read::number(version))).collect(),
    })
}

/// The statement with the rows of a group as arrays, one per column.
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

/// A column, or `None` if all of its values are NULL, which saves its bytes.
fn unless_empty<T>(column: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    Some(column).filter(|column| column.iter().any(Option::is_some))
}

/// The media type; `None` for JSON.
fn content_type(content_type: &annals_core::ContentType) -> Option<&str> {
    (*content_type != annals_core::ContentType::Json).then(|| content_type.as_str())
}
