//! Reads: each is one statement, so its result is one moment of the log.
//!
//! Each result also identifies its log (`sql/whole.sql`), which is checked before the result is used.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Direction, EventId, IdempotencyKey, LogPage, LogRead, Position, RecordedEvent, Result, StoreId, StreamId,
    StreamInfo, StreamList, StreamPage, StreamRead, Version, Witness,
};
use annals_sql::{
    Found, Lineage, PAGE_BYTES, Pool, Predecessors, Role, Step, Stopped, damaged, log_page, log_span, order,
    stream_page, stream_span,
};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::error::{self, ENDED, failed, stopped};
use crate::session::{Connected, Connector};
use crate::statement::{self, Value};
use crate::{matching, row};

/// The approximate bytes of an event in a page.
const SIZE: &str = "event_bytes + 256 + COALESCE(LENGTH(metadata), 0) AS size";
/// The end of the log.
const HEAD: &str = "SELECT position FROM log";

/// Reads a log.
pub(crate) struct Reader {
    pub(crate) pool: Pool<Connector>,
    pub(crate) lineage: Arc<Lineage>,
    /// The time limit of a statement.
    pub(crate) silence: Duration,
    /// Whether the server must be read-only, as a replica is.
    pub(crate) replica: bool,
    pub(crate) predecessors: Predecessors,
}

/// The number of indexes of predecessors.
const PREDECESSORS: &str = "SELECT COUNT(*) FROM information_schema.statistics \
     WHERE table_schema = DATABASE() AND table_name = 'events' AND index_name = 'events_by_predecessor'";

/// The columns that every read returns about the log.
fn whole(end: &str) -> String {
    include_str!("../sql/whole.sql").replace("{end}", end)
}

/// The statement for a page of these events.
fn page(end: &str, events: &str, direction: Direction, held: &str) -> String {
    include_str!("../sql/read.sql")
        .replace("{whole}", &whole(end))
        .replace("{held}", held)
        .replace("{events}", events)
        .replace("{direction}", order(direction))
}

/// The statement for a page of the log, and for the event at `$6` if `with_event` is set.
fn log_statement(read: &LogRead, with_event: bool) -> String {
    let order = order(read.direction);
    // Without a query, the range of positions is the only condition.
    let events = match matching::page(&read.query, read.direction) {
        None => format!(
            "SELECT position, {SIZE} FROM events WHERE position BETWEEN $2 AND $3 ORDER BY position {order} LIMIT $4"
        ),
        Some(positions) => format!(
            "SELECT e.position, {SIZE} FROM ({positions}) AS meant JOIN events AS e ON e.position = meant.position"
        ),
    };
    let held =
        if with_event { "SELECT s.event_id FROM events AS s WHERE s.position = $6" } else { "SELECT NULL" };
    page(HEAD, &events, read.direction, held)
}

impl Reader {
    pub(crate) async fn log(&self, read: &LogRead) -> Result<LogPage> {
        Ok(self.log_and_event(read, None).await?.0)
    }

    /// A page; `None` if the log does not have the event `seen`.
    pub(crate) async fn log_after(&self, read: &LogRead, seen: Witness) -> Result<Option<LogPage>> {
        let (page, held) = self.log_and_event(read, Some(seen.position)).await?;
        Ok(self.lineage.has(seen, held).then_some(page))
    }

    /// A page, and the event at a position, of one moment.
    async fn log_and_event(
        &self,
        read: &LogRead,
        at: Option<Position>,
    ) -> Result<(LogPage, Option<EventId>)> {
        let (first, last, limit) = log_span(read);
        let mut numbers = [first, last, limit, PAGE_BYTES].map(Value::Number).to_vec();
        numbers.extend(at.map(|at| Value::Number(column(at))));
        let rows = self.rows(&log_statement(read, at.is_some()), &numbers).await.map_err(failed)?;
        let head = Position::new(until(&rows)?);
        let role = self.role(&rows).map_err(failed)?;
        role.has("position", read.from.get(), read.direction, head.get())
            .map_err(|behind| failed(stopped(behind)))?;
        self.lineage.reached(head);
        let held = rows.first().map_or(Ok(None), |row| row::maybe_id(row, "held")).map_err(failed)?;
        let (mut events, whole) = self.events(&rows, limit)?;
        match read.direction {
            Direction::Forward => events.sort_unstable_by_key(|event| event.position()),
            Direction::Backward => events.sort_unstable_by_key(|event| std::cmp::Reverse(event.position())),
        }
        Ok((log_page(read, events, whole, head)?, held.map(EventId::from_bytes)))
    }

    pub(crate) async fn stream(&self, read: &StreamRead) -> Result<StreamPage> {
        let (first, last, limit) = stream_span(read);
        let end = "COALESCE((SELECT entity_version FROM entities WHERE entity_id = $6), 0)";
        let order = order(read.direction);
        let events_of = format!(
            "SELECT position, {SIZE} FROM events WHERE entity_id = $6 AND entity_version BETWEEN $2 AND $3 \
             ORDER BY entity_version {order} LIMIT $4"
        );
        let mut values = [first, last, limit, PAGE_BYTES].map(Value::Number).to_vec();
        values.push(Value::name(read.stream.as_str()));
        let rows = self
            .rows(&page(end, &events_of, read.direction, "SELECT NULL"), &values)
            .await
            .map_err(failed)?;
        let version = Version::new(until(&rows)?);
        let role = self.role(&rows).map_err(failed)?;
        let what = format!("the stream `{}` up to version", read.stream);
        role.has(&what, read.from.get(), read.direction, version.get())
            .map_err(|behind| failed(stopped(behind)))?;
        let (mut events, whole) = self.events(&rows, limit)?;
        match read.direction {
            Direction::Forward => events.sort_unstable_by_key(|event| event.version()),
            Direction::Backward => events.sort_unstable_by_key(|event| std::cmp::Reverse(event.version())),
        }
        stream_page(read, events, whole, version)
    }

    pub(crate) async fn streams(&self, list: &StreamList) -> Result<Vec<StreamInfo>> {
        let after = list.after.as_ref().map_or("", StreamId::as_str);
        let limit = i64::try_from(list.limit.max(1)).unwrap_or(i64::MAX);
        let mut values = vec![Value::name(after), Value::Number(limit)];
        let sql = match &list.category {
            None => include_str!("../sql/list.sql"),
            Some(category) => {
                values.push(Value::name(category.as_str()));
                include_str!("../sql/list_category.sql")
            }
        };
        let rows = self.rows(&sql.replace("{whole}", &whole("0")), &values).await.map_err(failed)?;
        rows.iter().filter_map(|row| stream_info(row).map_err(failed).transpose()).collect()
    }

    /// Position of the first event of the append with this key.
    pub(crate) async fn keyed(&self, key: &IdempotencyKey) -> Result<Option<Position>> {
        let sql = whole("SELECT position FROM events WHERE idempotency_key = $2");
        let rows = self.rows(&sql, &[Value::name(key.as_str())]).await.map_err(failed)?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
        let position: Option<i64> = row.try_get("until").map_err(failed)?;
        Ok(position.map(|position| Position::new(number(position))))
    }

    /// Returns an error if a predecessor is named and the log has no index of them.
    pub(crate) async fn check_predecessors(&self, named: bool) -> Result<()> {
        let look = async || {
            let rows = self.rows(&whole(PREDECESSORS), &[]).await.map_err(failed)?;
            Ok(until(&rows)? > 0)
        };
        self.predecessors.check(named, look, || failed(stopped(Stopped::NoPredecessors))).await
    }

    pub(crate) async fn head(&self) -> Result<Position> {
        let rows = self.rows(&whole(HEAD), &[]).await.map_err(failed)?;
        Ok(Position::new(until(&rows)?))
    }

    /// Executes a statement whose `$1` is the position of the event that the log must still have, and whose
    /// other values are `values`. The call may be dropped at any point.
    async fn rows(&self, sql: &str, values: &[Value]) -> Result<Vec<MySqlRow>, sqlx::Error> {
        let mut lent = self.pool.lend().await?;
        let asked = self.lineage.newest();
        let mut all = vec![Value::Number(column(asked.position))];
        all.extend_from_slice(values);
        let text = statement::text(sql, &all);
        let line = lent.line();
        let ask = async |connection: &mut Connected| statement::rows(connection, text).await;
        let rows = line.answered(self.silence, Step::Read, ask).await;
        let is_open = match &rows {
            Ok(rows) => self.check(rows, asked, &line.connection().session).map(|()| true)?,
            Err(error) => matches!(error, sqlx::Error::Database(_)) && !ENDED.contains(&error::number(error)),
        };
        if is_open {
            lent.done();
        }
        rows
    }

    /// The role of the server that responded.
    fn role(&self, rows: &[MySqlRow]) -> Result<Role, sqlx::Error> {
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Role::of(row.try_get::<i64, _>("follows")? != 0, self.replica).map_err(stopped)
    }

    /// Compares the log that responded with the expected one.
    fn check(&self, rows: &[MySqlRow], asked: Witness, session: &str) -> Result<(), sqlx::Error> {
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let of_session: Option<String> = row.try_get("session")?;
        if of_session.as_deref() != Some(session) {
            return Err(stopped(Stopped::Pooled));
        }
        let role = self.role(rows)?;
        let store = row::maybe_id(row, "store")?.ok_or(sqlx::Error::RowNotFound)?;
        let event = row::maybe_id(row, "seen")?.map(EventId::from_bytes);
        let found = Found { store: StoreId::from_bytes(store), event, role };
        self.lineage.check(asked, found).map_err(stopped)
    }

    /// The events of a page, unordered, and whether it has all matching events.
    fn events(&self, rows: &[MySqlRow], limit: i64) -> Result<(Vec<RecordedEvent>, bool)> {
        let mut events = Vec::with_capacity(rows.len());
        let (mut bytes, mut meant) = (0, 0);
        for row in rows {
            if let Some(event) = row::event(row)? {
                events.push(event);
                bytes = row::bytes(row)?.max(bytes);
            }
            meant = row::meant(row)?.max(meant);
        }
        let found = events.len() as i64;
        if bytes < PAGE_BYTES && found < meant {
            let problem = format!("the database found {meant} events and returned {found} of them");
            return Err(damaged(None, problem));
        }
        self.lineage.saw_all(&events);
        Ok((events, found < limit && bytes < PAGE_BYTES))
    }
}

/// The end of the read, which every row contains.
fn until(rows: &[MySqlRow]) -> Result<u64> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
    Ok(number(row.try_get("until").map_err(failed)?))
}

/// A stream of a list; `None` for the row of an empty list.
fn stream_info(row: &MySqlRow) -> Result<Option<StreamInfo>, sqlx::Error> {
    let Some(stream) = row::maybe_text(row, "entity_id")? else { return Ok(None) };
    Ok(Some(StreamInfo {
        stream: StreamId::new(stream).map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))?,
        version: Version::new(number(row.try_get("entity_version")?)),
        position: Position::new(number(row.try_get("position")?)),
    }))
}

/// The stream and the version in the first two columns.
pub(crate) fn place(row: &MySqlRow) -> Result<(StreamId, Version), sqlx::Error> {
    let stream = StreamId::new(row::text(row, 0)?);
    let stream = stream.map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))?;
    Ok((stream, Version::new(number(row.try_get(1)?))))
}

/// A number from a column that is never negative.
pub(crate) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A position as a column value.
pub(crate) fn column(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}
