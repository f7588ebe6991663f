//! Writes a group of appends: as one text in one round trip, or in one transaction if facts must be read
//! under the lock first.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventId, IdempotencyKey, Position, StreamId, Timestamp, Version, Witness};
use annals_sql::{
    Asked, Borrowed, Database, Facts, Failure, Held, How, Lineage, Staged, Step, Stopped, Tail,
};
use annals_state::Session;
use async_trait::async_trait;
use serde_json::{Value as Json, json};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::error::{failure, number, stopped};
use crate::options::Options;
use crate::session::{Connected, Connector};
use crate::statement::{self, Value, rows};
use crate::{group, matching, read, row, state};

/// A key, an id or a version exists already, or a stream is at another version.
const NOT_AS_ASSUMED: [u16; 2] = [1062, 1644];
/// The bytes that the protocol adds to a text.
const PACKET_HEAD: usize = 64;

/// Access to the log for the writer.
pub(crate) struct Link {
    pub(crate) connector: Arc<Connector>,
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) options: Options,
}

impl Link {
    /// The statement that checks, under its lock, that the log is the expected one.
    fn assertion(&self, session: &str, known: Witness) -> String {
        let values = [
            Value::Bytes(self.lineage.id().as_bytes().to_vec()),
            Value::Number(read::column(known.position)),
            Value::Bytes(known.id.as_bytes().to_vec()),
            Value::name(session),
        ];
        statement::text("CALL assert_log($1, $2, $3, $4)", &values)
    }
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
        let text = group::text(staged, &self.assertion(&connection.session, staged.known), how);
        // The server would close the connection in the middle, and the outcome of the append would be
        // unknown.
        let (bytes, bytes_max) = (text.len() + PACKET_HEAD, connection.packet);
        if bytes > bytes_max {
            return Err(stopped(Stopped::TooLarge { bytes, bytes_max }));
        }
        match rows(connection, text).await {
            Ok(rows) => rows.first().map(tail).transpose(),
            Err(error) if NOT_AS_ASSUMED.contains(&number(&error)) && how != How::Locked => {
                self.roll_back(connection).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, connection: &mut Connected) -> Result<(), sqlx::Error> {
        connection.execute("START TRANSACTION").await.map(drop)
    }

    async fn lock(&self, connection: &mut Connected, asked: &Asked<'_>) -> Result<Facts, sqlx::Error> {
        let assertion = self.assertion(&connection.session, asked.known);
        let text = format!("START TRANSACTION; {assertion}; SELECT position, moved FROM log FOR UPDATE");
        let log = rows(connection, text).await?;
        let log = log.last().ok_or(sqlx::Error::RowNotFound)?;
        if log.try_get(1)? && !self.options.moving {
            return Err(stopped(Stopped::Moved));
        }
        let head = Position::new(read::number(log.try_get(0)?));
        let packet = connection.packet;
        facts(connection, asked, head, packet / 2).await
    }

    fn session<'a>(&self, connection: &'a mut Connected) -> Box<dyn Session + 'a> {
        Box::new(Held::<Connector>::Open(Borrowed::new(connection, self.options.silence())))
    }

    async fn commit(&self, connection: &mut Connected) -> Result<(), sqlx::Error> {
        let sql = format!("{}; COMMIT", state::enter(&self.connector.address.database));
        connection.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    async fn roll_back(&self, connection: &mut Connected) -> Result<(), sqlx::Error> {
        let sql = format!("ROLLBACK; {}", state::enter(&self.connector.address.database));
        connection.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    fn failure(error: sqlx::Error, step: Step) -> Failure {
        failure(error, step)
    }
}

/// Reads the facts under the lock; the log ends at `head`. A text has at most `text_max` bytes, unless a
/// single query needs more.
async fn facts(
    connection: &mut MySqlConnection,
    asked: &Asked<'_>,
    head: Position,
    text_max: usize,
) -> Result<Facts, sqlx::Error> {
    let mut facts = Facts { head, ..Facts::default() };
    let about = |sql: &str, json: Json| statement::text(sql, &[Value::Json(json.to_string())]);
    let streams = Json::from_iter(asked.streams.iter().map(|stream| stream.as_str()));
    for row in rows(connection, about(include_str!("../sql/streams.sql"), streams)).await? {
        let (stream, version) = read::place(&row)?;
        facts.versions.insert(stream, version);
    }
    if !asked.keys.is_empty() {
        let keys = Json::from_iter(asked.keys.iter().map(|key| key.as_str()));
        for row in rows(connection, about(include_str!("../sql/keys.sql"), keys)).await? {
            let key = IdempotencyKey::new(row::text(&row, 0)?);
            let key = key.map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))?;
            facts.keys.insert(key, Position::new(read::number(row.try_get(1)?)));
        }
    }
    let wanted = asked.ids.iter().map(|(stream, id)| json!([stream.as_str(), hex(*id)]));
    for row in rows(connection, about(include_str!("../sql/ids.sql"), Json::from_iter(wanted))).await? {
        let stream = stream(row::text(&row, 0)?)?;
        let position = Position::new(read::number(row.try_get(2)?));
        facts.ids.entry(stream).or_default().insert(EventId::from_bytes(row::id(&row, 1)?), position);
    }
    let ranges = asked.ranges(&facts).into_iter();
    let ranges: Vec<_> =
        ranges.map(|(first, last)| json!([read::column(first), read::column(last)])).collect();
    if !ranges.is_empty() {
        for row in rows(connection, about(include_str!("../sql/places.sql"), ranges.into())).await? {
            let position = Position::new(read::number(row.try_get(0)?));
            let version = Version::new(read::number(row.try_get(2)?));
            let place = (stream(row::text(&row, 1)?)?, version, EventId::from_bytes(row::id(&row, 3)?));
            facts.places.insert(position, place);
        }
    }
    for text in matching::first_of_all(&facts.note_matches(asked), text_max) {
        for row in rows(connection, text).await? {
            let number = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            facts.matched(number, Position::new(read::number(row.try_get(1)?)));
        }
    }
    Ok(facts)
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
