//! Reads: each is one statement, so what it answers is one moment of the log.

use annals_core::{
    Direction, IdempotencyKey, LogPage, LogRead, Position, RecordedEvent, Result, StreamId, StreamInfo,
    StreamList, StreamPage, StreamRead, Version,
};
use annals_sql::{
    Hints, Matching, PAGE_BYTES, Session as _, log_page, log_span, order, stream_page, stream_span,
};
use sqlx::mysql::{MySqlArguments, MySqlPool, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, Row};

use crate::error::failed;
use crate::row;
use crate::state::Held;

const READ: &str = include_str!("../sql/read.sql");
/// What an event takes in a page beside its data, roughly.
const SIZE: &str = "event_bytes + 256 + COALESCE(LENGTH(metadata), 0) AS size";

/// A statement whose places are `?`, and what is bound to them in their order.
pub(crate) struct Statement {
    sql: String,
    values: Vec<Value>,
}

#[derive(Clone)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
}

impl Statement {
    /// From a text with `$1`, `$2`, ... and their values.
    pub(crate) fn numbered(text: &str, values: &[Value]) -> Self {
        let mut statement = Self { sql: String::with_capacity(text.len()), values: Vec::new() };
        let mut pieces = text.split('$');
        statement.sql.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let place: usize = piece[..digits].parse().expect("a place is a number");
            statement.values.push(values[place - 1].clone());
            statement.sql.push('?');
            statement.sql.push_str(&piece[digits..]);
        }
        statement
    }

    /// The first position from this one on that a query means.
    pub(crate) fn first_match(query: &annals_core::Query, from: Position) -> Self {
        let Matching { sql, values } = Matching::of(query, Direction::Forward, 4, Hints::Force);
        let from = i64::try_from(from.get()).unwrap_or(i64::MAX);
        Self::numbered(&sql, &with([from, i64::MAX, 1], values))
    }

    pub(crate) fn query(&self) -> Query<'_, MySql, MySqlArguments> {
        let mut query = sqlx::query(AssertSqlSafe(self.sql.clone()));
        for value in &self.values {
            query = match value {
                Value::Number(number) => query.bind(number),
                // Names lie as bytes.
                Value::Text(text) => query.bind(text.as_bytes()),
            };
        }
        query
    }
}

fn with<const N: usize>(numbers: [i64; N], texts: Vec<String>) -> Vec<Value> {
    numbers.into_iter().map(Value::Number).chain(texts.into_iter().map(Value::Text)).collect()
}

/// The statement for a page of these events.
fn page(end: &str, events: &str, direction: Direction, values: &[Value]) -> Statement {
    let text =
        READ.replace("{end}", end).replace("{events}", events).replace("{direction}", order(direction));
    Statement::numbered(&text, values)
}

/// The statement for a page of the log.
pub(crate) fn log_statement(read: &LogRead) -> Statement {
    let (first, last, limit) = log_span(read);
    let order = order(read.direction);
    let Matching { sql, values } = Matching::of(&read.query, read.direction, 5, Hints::Force);
    // Without a query the positions are no choice.
    let events = if values.is_empty() {
        format!(
            "SELECT position, {SIZE} FROM events WHERE position BETWEEN $1 AND $2 ORDER BY position {order} LIMIT $3"
        )
    } else {
        format!(
            "SELECT e.position, {SIZE} FROM ({sql}) AS meant JOIN events AS e ON e.position = meant.position"
        )
    };
    let values = with([first, last, limit, PAGE_BYTES], values);
    page("SELECT position AS until FROM log", &events, read.direction, &values)
}

pub(crate) async fn log(pool: &MySqlPool, read: &LogRead) -> Result<LogPage> {
    let rows = rows(pool, log_statement(read).query()).await.map_err(failed)?;
    let head = until(&rows)?;
    let (mut events, whole) = events(&rows, log_span(read).2)?;
    match read.direction {
        Direction::Forward => events.sort_unstable_by_key(|event| event.position),
        Direction::Backward => events.sort_unstable_by_key(|event| std::cmp::Reverse(event.position)),
    }
    Ok(log_page(read, events, whole, Position::new(head)))
}

pub(crate) async fn stream(pool: &MySqlPool, read: &StreamRead) -> Result<StreamPage> {
    let (first, last, limit) = stream_span(read);
    let end = "SELECT COALESCE((SELECT entity_version FROM entities WHERE entity_id = $5), 0) AS until";
    let order = order(read.direction);
    let events_of = format!(
        "SELECT position, {SIZE} FROM events WHERE entity_id = $5 AND entity_version BETWEEN $1 AND $2 \
         ORDER BY entity_version {order} LIMIT $3"
    );
    let values = with([first, last, limit, PAGE_BYTES], vec![read.stream.to_string()]);
    let statement = page(end, &events_of, read.direction, &values);
    let rows = rows(pool, statement.query()).await.map_err(failed)?;
    let version = until(&rows)?;
    let (mut events, whole) = events(&rows, limit)?;
    match read.direction {
        Direction::Forward => events.sort_unstable_by_key(|event| event.version),
        Direction::Backward => events.sort_unstable_by_key(|event| std::cmp::Reverse(event.version)),
    }
    Ok(stream_page(read, events, whole, Version::new(version)))
}

/// How far the whole goes, which the first column of every row says.
fn until(rows: &[MySqlRow]) -> Result<u64> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
    Ok(number(row.try_get(0).map_err(failed)?))
}

/// The events of a page, in no order, and whether no more are meant.
fn events(rows: &[MySqlRow], limit: i64) -> Result<(Vec<RecordedEvent>, bool)> {
    let mut events = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for row in rows {
        if let Some(event) = row::event(row)? {
            events.push(event);
            bytes = row::bytes(row)?.max(bytes);
        }
    }
    let cut = events.len() as i64 >= limit || bytes >= PAGE_BYTES;
    Ok((events, !cut))
}

pub(crate) async fn streams(pool: &MySqlPool, list: &StreamList) -> Result<Vec<StreamInfo>> {
    let after = list.after.as_ref().map_or("", StreamId::as_str);
    let limit = i64::try_from(list.limit.max(1)).unwrap_or(i64::MAX);
    let statement = match &list.category {
        None => sqlx::query(include_str!("../sql/list.sql")).bind(after.as_bytes()),
        Some(category) => sqlx::query(include_str!("../sql/list_category.sql"))
            .bind(after.as_bytes())
            .bind(category.as_str().as_bytes().to_vec()),
    };
    let rows = rows(pool, statement.bind(limit)).await.map_err(failed)?;
    rows.iter().map(|row| stream_info(row).map_err(failed)).collect()
}

fn stream_info(row: &MySqlRow) -> Result<StreamInfo, sqlx::Error> {
    let (stream, version) = place(row)?;
    Ok(StreamInfo { stream, version, position: Position::new(number(row.try_get(2)?)) })
}

/// Position of the first event of the append that had this key.
pub(crate) async fn keyed(pool: &MySqlPool, key: &IdempotencyKey) -> Result<Option<Position>> {
    let sql = "SELECT position FROM events WHERE idempotency_key = ?";
    let found = rows(pool, sqlx::query(sql).bind(key.as_str().as_bytes())).await.map_err(failed)?;
    found.first().map(|row| Ok(Position::new(number(row.try_get(0).map_err(failed)?)))).transpose()
}

/// A stream and a version, in the first two columns.
pub(crate) fn place(row: &MySqlRow) -> Result<(StreamId, Version), sqlx::Error> {
    let stream = StreamId::new(row::text(row, 0)?);
    let stream = stream.map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))?;
    Ok((stream, Version::new(number(row.try_get(1)?))))
}

pub(crate) async fn head(pool: &MySqlPool) -> Result<Position, sqlx::Error> {
    let rows = rows(pool, sqlx::query("SELECT position FROM log")).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Position::new(number(row.try_get(0)?)))
}

/// What a statement answers. Whoever asks may go away in the middle.
async fn rows(
    pool: &MySqlPool,
    statement: Query<'_, MySql, MySqlArguments>,
) -> Result<Vec<MySqlRow>, sqlx::Error> {
    let mut lent = Held::lent(pool.acquire().await?);
    let rows = statement.fetch_all(lent.connection()).await;
    if matches!(rows, Ok(_) | Err(sqlx::Error::Database(_))) {
        lent.done();
    }
    rows
}

/// A number of a column that is never below 0.
pub(crate) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}
