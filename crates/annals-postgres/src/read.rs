//! Reads: each is one statement, so its result is one moment of the log.
//!
//! Each result also identifies its log (`sql/whole.sql`), which is checked before the result is used.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    EventId, IdempotencyKey, LogPage, LogRead, Position, RecordedEvent, Result, StoreId, StreamId,
    StreamInfo, StreamList, StreamPage, StreamRead, Version, Witness,
};
use annals_sql::{
    Found, Lineage, PAGE_BYTES, Pool, Predecessors, Role, Step, Stopped, log_page, log_span, order,
    stream_page, stream_span,
};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row};
use uuid::Uuid;

use crate::error::{code, failed, is_last, stopped};
use crate::matching::Matching;
use crate::row;
use crate::session::{Connected, Connector};

/// The end of the log.
pub(crate) const HEAD: &str = "SELECT coalesce(max(position), 0) FROM events";

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Reads a log.
pub(crate) struct Reader {
    pub(crate) pool: Pool<Connector>,
    pub(crate) lineage: Arc<Lineage>,
    /// The time limit of a statement.
    pub(crate) silence: Duration,
    /// Whether the server must be a standby.
    pub(crate) replica: bool,
    pub(crate) predecessors: Predecessors,
}

/// The number of valid indexes of predecessors.
const PREDECESSORS: &str = "SELECT count(*) FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS c ON c.oid = x.indexrelid \
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
     WHERE n.nspname = current_schema() AND c.relname = 'events_by_predecessor' AND x.indisvalid";

/// The columns that every read returns about the log.
fn whole(end: &str) -> String {
    include_str!("../sql/whole.sql").replace("{end}", end)
}

/// The event at the position in this value.
fn event_at(value: &str) -> String {
    format!("SELECT s.event_id FROM events AS s WHERE s.position = {value}")
}

/// The statement for a page of these events.
fn page(end: &str, events: &str, by: &str, direction: &str, held: &str) -> String {
    include_str!("../sql/read.sql")
        .replace("{whole}", &whole(end))
        .replace("{held}", held)
        .replace("{events}", events)
        .replace("{order}", by)
        .replace("{direction}", direction)
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
        let matching = Matching::page(&read.query, read.direction);
        let events = match &matching {
            // Without a query, the range of positions is the only condition.
            None => "events WHERE position BETWEEN $2 AND $3".to_owned(),
            Some(Matching { sql, .. }) => format!("({sql}) AS meant JOIN events USING (position)"),
        };
        let held = match (at, &matching) {
            (None, _) => "NULL::uuid".to_owned(),
            (Some(_), None) => event_at("$6"),
            (Some(_), Some(_)) => event_at("$7"),
        };
        let sql = page(HEAD, &events, "position", order(read.direction), &held);
        let rows = self.rows(sql, |statement| {
            let mut statement = statement.bind(first).bind(last).bind(limit).bind(PAGE_BYTES);
            if let Some(matching) = &matching {
                statement = statement.bind(&matching.arms);
            }
            match at {
                Some(at) => statement.bind(column(at)),
                None => statement,
            }
        });
        let rows = rows.await.map_err(failed)?;
        let head = Position::new(until(&rows)?);
        let role = self.role(&rows).map_err(failed)?;
        role.has("position", read.from.get(), read.direction, head.get())
            .map_err(|behind| failed(stopped(behind)))?;
        self.lineage.reached(head);
        let held = rows.first().map_or(Ok(None), |row| row.try_get::<Option<Uuid>, _>("held"));
        let held = held.map_err(failed)?.map(|id| EventId::from_bytes(id.into_bytes()));
        let (events, whole) = self.events(&rows, limit)?;
        Ok((log_page(read, events, whole, head)?, held))
    }

    pub(crate) async fn stream(&self, read: &StreamRead) -> Result<StreamPage> {
        let (first, last, limit) = stream_span(read);
        let end = "SELECT coalesce(max(entity_version), 0) FROM events WHERE entity_id = $6";
        let events_of = "events WHERE entity_id = $6 AND entity_version BETWEEN $2 AND $3";
        let sql = page(end, events_of, "entity_version", order(read.direction), "NULL::uuid");
        let rows = self.rows(sql, |statement| {
            statement.bind(first).bind(last).bind(limit).bind(PAGE_BYTES).bind(read.stream.as_str())
        });
        let rows = rows.await.map_err(failed)?;
        let version = Version::new(until(&rows)?);
        let role = self.role(&rows).map_err(failed)?;
        let what = format!("the stream `{}` up to version", read.stream);
        role.has(&what, read.from.get(), read.direction, version.get())
            .map_err(|behind| failed(stopped(behind)))?;
        let (events, whole) = self.events(&rows, limit)?;
        stream_page(read, events, whole, version)
    }

    pub(crate) async fn streams(&self, list: &StreamList) -> Result<Vec<StreamInfo>> {
        let sql = match list.category {
            None => include_str!("../sql/list.sql"),
            Some(_) => include_str!("../sql/list_category.sql"),
        };
        let after = list.after.as_ref().map_or("", StreamId::as_str);
        let limit = i64::try_from(list.limit.max(1)).unwrap_or(i64::MAX);
        let rows = self.rows(sql.replace("{whole}", &whole("0::bigint")), |statement| {
            let statement = statement.bind(after).bind(limit);
            match &list.category {
                Some(category) => statement.bind(category.as_str()),
                None => statement,
            }
        });
        let rows = rows.await.map_err(failed)?;
        rows.iter().filter_map(|row| stream_info(row).map_err(failed).transpose()).collect()
    }

    /// Position of the first event of the append with this key.
    pub(crate) async fn keyed(&self, key: &IdempotencyKey) -> Result<Option<Position>> {
        let sql = whole("SELECT position FROM events WHERE idempotency_key = $2");
        let rows = self.rows(sql, |statement| statement.bind(key.as_str())).await.map_err(failed)?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
        let position: Option<i64> = row.try_get("until").map_err(failed)?;
        Ok(position.map(|position| Position::new(number(position))))
    }

    /// Returns an error if a predecessor is named and the log has no index of them.
    pub(crate) async fn check_predecessors(&self, named: bool) -> Result<()> {
        let look = async || {
            let rows = self.rows(whole(PREDECESSORS), |statement| statement).await.map_err(failed)?;
            Ok(until(&rows)? > 0)
        };
        self.predecessors.check(named, look, || failed(stopped(Stopped::NoPredecessors))).await
    }

    pub(crate) async fn head(&self) -> Result<Position> {
        let rows = self.rows(whole(HEAD), |statement| statement).await.map_err(failed)?;
        Ok(Position::new(until(&rows)?))
    }

    /// Executes a statement whose `$1` is the position of the event that the log must still have. The call
    /// may be dropped at any point.
    async fn rows<'q>(
        &self,
        sql: String,
        bind: impl FnOnce(Statement<'q>) -> Statement<'q>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut lent = self.pool.lend().await?;
        let asked = self.lineage.newest();
        let statement = bind(sqlx::query(AssertSqlSafe(sql)).bind(column(asked.position)));
        let line = lent.line();
        let ask = async |connection: &mut Connected| statement.fetch_all(&mut **connection).await;
        let rows = line.answered(self.silence, Step::Read, ask).await;
        // After these errors, the statements prepared on the connection may refer to other tables.
        let is_open = match &rows {
            Ok(rows) => self.check(rows, asked, &line.connection().session).map(|()| true)?,
            Err(error @ sqlx::Error::Database(_)) => {
                !is_last(error) && !["0A000", "26000", "42P05"].contains(&code(error))
            }
            Err(_) => false,
        };
        if is_open {
            lent.done();
        }
        rows
    }

    /// The role of the server that responded.
    fn role(&self, rows: &[PgRow]) -> Result<Role, sqlx::Error> {
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Role::of(row.try_get("follows")?, self.replica).map_err(stopped)
    }

    /// Compares the log that responded with the expected one.
    fn check(&self, rows: &[PgRow], asked: Witness, session: &str) -> Result<(), sqlx::Error> {
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let of_session: Option<String> = row.try_get("session")?;
        if of_session.as_deref() != Some(session) {
            return Err(stopped(Stopped::Pooled));
        }
        let role = self.role(rows)?;
        let event: Option<Uuid> = row.try_get("seen")?;
        let found = Found {
            store: StoreId::from_bytes(row.try_get::<Uuid, _>("store")?.into_bytes()),
            event: event.map(|id| EventId::from_bytes(id.into_bytes())),
            role,
        };
        self.lineage.check(asked, found).map_err(stopped)
    }

    /// The events of a page, and whether it has all matching events.
    fn events(&self, rows: &[PgRow], limit: i64) -> Result<(Vec<RecordedEvent>, bool)> {
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            events.extend(row::event(row)?);
        }
        self.lineage.saw_all(&events);
        let cut = match rows.last() {
            Some(last) if !events.is_empty() => {
                events.len() as i64 >= limit || row::bytes(last)? >= PAGE_BYTES
            }
            _ => false,
        };
        Ok((events, !cut))
    }
}

/// The end of the read, which every row contains.
fn until(rows: &[PgRow]) -> Result<u64> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
    Ok(number(row.try_get("until").map_err(failed)?))
}

/// A stream of a list; `None` for the row of an empty list.
fn stream_info(row: &PgRow) -> Result<Option<StreamInfo>, sqlx::Error> {
    let Some(stream) = row.try_get::<Option<String>, _>("entity_id")? else { return Ok(None) };
    Ok(Some(StreamInfo {
        stream: StreamId::new(stream).map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))?,
        version: Version::new(number(row.try_get("entity_version")?)),
        position: Position::new(number(row.try_get("position")?)),
    }))
}

/// A number from a column that is never negative.
pub(crate) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A position as a column value.
pub(crate) fn column(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}
