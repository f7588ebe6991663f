//! Reads: each is one statement, so what it answers is one moment of the log.

use annals_core::{
    Direction, IdempotencyKey, LogPage, LogRead, Position, Result, StreamId, StreamInfo, StreamList,
    StreamPage, StreamRead, Version,
};
use annals_sql::{Hints, Matching, PAGE_BYTES, log_page, log_span, order, stream_page, stream_span};
use sqlx::postgres::{PgArguments, PgExecutor, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row};

use crate::error::failed;
use crate::row;

/// The end of the log.
const HEAD: &str = "SELECT coalesce(max(position), 0) FROM events";
const READ: &str = include_str!("../sql/read.sql");

/// The statement for a page of these events.
fn page(end: &str, events: &str, by: &str, direction: Direction) -> String {
    READ.replace("{end}", end)
        .replace("{events}", events)
        .replace("{order}", by)
        .replace("{direction}", order(direction))
}

/// The statement for a page of the log.
fn log_statement(read: &LogRead) -> (String, Vec<String>) {
    let Matching { sql, values } = Matching::of(&read.query, read.direction, 5, Hints::None);
    // Without a query the positions are no choice.
    let events = match values.is_empty() {
        true => "events WHERE position BETWEEN $1 AND $2".to_owned(),
        false => format!("({sql}) AS meant JOIN events USING (position)"),
    };
    (page(HEAD, &events, "position", read.direction), values)
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;

pub(crate) fn bind(mut statement: Statement<'_>, values: Vec<String>) -> Statement<'_> {
    for value in values {
        statement = statement.bind(value);
    }
    statement
}

pub(crate) async fn log(pool: &PgPool, read: &LogRead) -> Result<LogPage> {
    let (first, last, limit) = log_span(read);
    let (sql, values) = log_statement(read);
    let statement = sqlx::query(AssertSqlSafe(sql)).bind(first).bind(last).bind(limit).bind(PAGE_BYTES);
    let rows = bind(statement, values).fetch_all(pool).await.map_err(failed)?;
    let head = until(&rows)?;
    let (events, whole) = events(&rows, limit)?;
    Ok(log_page(read, events, whole, Position::new(head)))
}

pub(crate) async fn stream(pool: &PgPool, read: &StreamRead) -> Result<StreamPage> {
    let (first, last, limit) = stream_span(read);
    let end = "SELECT coalesce(max(entity_version), 0) FROM events WHERE entity_id = $5";
    let events_of = "events WHERE entity_id = $5 AND entity_version BETWEEN $1 AND $2";
    let sql = page(end, events_of, "entity_version", read.direction);
    let statement = sqlx::query(AssertSqlSafe(sql)).bind(first).bind(last).bind(limit).bind(PAGE_BYTES);
    let rows = statement.bind(read.stream.as_str()).fetch_all(pool).await.map_err(failed)?;
    let version = until(&rows)?;
    let (events, whole) = events(&rows, limit)?;
    Ok(stream_page(read, events, whole, Version::new(version)))
}

/// How far the whole goes, which the first column of every row says.
fn until(rows: &[PgRow]) -> Result<u64> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
    Ok(number(row.try_get(0).map_err(failed)?))
}

/// The events of a page, and whether no more are meant.
fn events(rows: &[PgRow], limit: i64) -> Result<(Vec<annals_core::RecordedEvent>, bool)> {
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        events.extend(row::event(row)?);
    }
    let cut = match rows.last() {
        Some(last) if !events.is_empty() => events.len() as i64 >= limit || row::bytes(last)? >= PAGE_BYTES,
        _ => false,
    };
    Ok((events, !cut))
}

pub(crate) async fn streams(pool: &PgPool, list: &StreamList) -> Result<Vec<StreamInfo>> {
    let statement = sqlx::query(match list.category {
        None => include_str!("../sql/list.sql"),
        Some(_) => include_str!("../sql/list_category.sql"),
    });
    let after = list.after.as_ref().map_or("", StreamId::as_str);
    let limit = i64::try_from(list.limit.max(1)).unwrap_or(i64::MAX);
    let mut statement = statement.bind(after).bind(limit);
    if let Some(category) = &list.category {
        statement = statement.bind(category.as_str());
    }
    let rows = statement.fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| stream_info(row).map_err(failed)).collect()
}

fn stream_info(row: &PgRow) -> Result<StreamInfo, sqlx::Error> {
    let stream = StreamId::new(row.try_get::<String, _>(0)?);
    Ok(StreamInfo {
        stream: stream.map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))?,
        version: Version::new(number(row.try_get(1)?)),
        position: Position::new(number(row.try_get(2)?)),
    })
}

/// Position of the first event of the append that had this key.
pub(crate) async fn keyed(pool: &PgPool, key: &IdempotencyKey) -> Result<Option<Position>> {
    let sql = "SELECT position FROM events WHERE idempotency_key = $1";
    let row = sqlx::query(sql).bind(key.as_str()).fetch_optional(pool).await.map_err(failed)?;
    row.map(|row| Ok(Position::new(number(row.try_get(0).map_err(failed)?)))).transpose()
}

pub(crate) async fn head(executor: impl PgExecutor<'_>) -> Result<Position, sqlx::Error> {
    let row = sqlx::query(HEAD).fetch_one(executor).await?;
    Ok(Position::new(number(row.try_get(0)?)))
}

/// A number of a column that is never below 0.
pub(crate) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}
