//! The statements of a publisher.
//!
//! - T1  A message is chosen only if no earlier message of its aggregate is pending and unchosen: in the
//!       order of positions, without aggregates that are held, that wait for another attempt, or that are
//!       being published.
//! - T2  A failure is recorded only if the message is not processed, so a publisher that was suspended and
//!       resumes records no failure of a message that another has published meanwhile.
//! - T3  An aggregate is held and released under the lock of its row, so every message that is written
//!       concurrently is held or not held as its aggregate is.
//! - T4  A row that cannot be read is a message that is refused: its aggregate waits for it, and no other. If
//!       the name of the aggregate itself cannot be read, as on SQLite, where a column takes any value, the
//!       message is an aggregate of its own: every statement names it by its position, and it becomes a dead
//!       letter at once.
//! - T5  A time too far in the future was written by a clock that was ahead, and is ignored: see `lease` and
//!       [`Outbox::choose`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use annals_core::{Bytes, ContentType, EventId, Timestamp};

use crate::database::{Access, Row, Transaction, Value};
use crate::message::{Aggregate, Message};
use crate::{Error, Outbox, Result};

/// Most bytes of data that are read at once; a larger message is read alone.
const BYTES_MAX: i64 = 16 << 20;
/// Lengths of the lists in statements: few, so that the statements stay prepared.
const LISTS: [usize; 4] = [1, 16, 128, 1_024];
/// Most bytes of an error that are stored.
const ERROR_BYTES_MAX: usize = 2_000;

/// A message that was published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) position: i64,
    /// Whether it had failed before.
    pub(crate) failed: bool,
}

impl Outbox {
    /// Returns the next messages, oldest first, without those of `active` aggregates, of which there are at
    /// most `room`. A next attempt later than `wait_max` from now was written by a clock that was ahead, and
    /// is due now.
    pub(crate) async fn choose<'a>(
        &self,
        active: impl Iterator<Item = &'a Aggregate>,
        room: usize,
        limit: usize,
        wait_max: Duration,
    ) -> Result<Vec<Message>> {
        let mut sql =
            "SELECT o.position, COALESCE(OCTET_LENGTH(o.event_data), OCTET_LENGTH(o.event_binary), 0),
                CASE WHEN f.position = o.position THEN f.attempts ELSE 0 END
            FROM outbox o @pending LEFT JOIN outbox_failures f
                ON f.aggregate_type = o.aggregate_type AND f.aggregate_id = o.aggregate_id
            WHERE o.processed = FALSE AND o.held = FALSE
                AND (f.next_attempt_at IS NULL OR f.next_attempt_at <= @now OR f.next_attempt_at > @later)"
                .to_owned();
        let mut values = vec![Value::Int(micros(wait_max))];
        let (alone, named): (Vec<_>, Vec<_>) = active.partition(|aggregate| aggregate.alone.is_some());
        let alone: HashSet<i64> = alone.into_iter().filter_map(|aggregate| aggregate.alone).collect();
        // Repeated up to `room`, so that the statement has the same text for one name as for many and stays
        // prepared.
        for aggregate in named.iter().cycle().take(if named.is_empty() { 0 } else { room }) {
            sql.push_str(" AND NOT (o.aggregate_type = ? AND o.aggregate_id = ?)");
            values.extend([Value::Text(&aggregate.kind), Value::Text(&aggregate.id)]);
        }
        sql.push_str(" ORDER BY o.held, o.position LIMIT ?");
        values.push(Value::Int(whole(limit + alone.len())));
        let mut transaction = self.begin(Access::Read).await?;
        let mut attempts = HashMap::new();
        let mut bytes = 0;
        for row in self.ask(&mut transaction, &sql, &values).await? {
            let position = self.read(|| row.int(0))?;
            if alone.contains(&position) {
                continue;
            }
            // Another program may have written values that cannot be read.
            let (size, attempt) = (row.int(1).unwrap_or(BYTES_MAX), row.int(2).unwrap_or_default());
            bytes += size;
            if !attempts.is_empty() && bytes > BYTES_MAX {
                break;
            }
            attempts.insert(position, attempt);
        }
        let messages = self.messages(&mut transaction, &attempts).await?;
        self.commit(transaction).await?;
        Ok(messages)
    }

    /// Reads the messages at these positions that are still pending. `attempts` has the refused attempts by
    /// position.
    async fn messages(
        &self,
        transaction: &mut Transaction,
        attempts: &HashMap<i64, i64>,
    ) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        let positions: Vec<i64> = attempts.keys().copied().collect();
        let select = format!(
            "SELECT {MESSAGE} FROM outbox o WHERE o.processed = FALSE AND o.held = FALSE AND o.position"
        );
        for (list, mut values) in lists(&positions) {
            // With an explicit limit: a session may have a default limit.
            values.push(Value::Int(whole(values.len())));
            for row in self.ask(transaction, &format!("{select} {list} LIMIT ?"), &values).await? {
                let mut message = self.read(|| message(&row))?;
                let before = attempts.get(&message.position).copied().unwrap_or_default();
                message.attempt = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
                messages.push(message);
            }
        }
        messages.sort_by_key(|message| message.position);
        Ok(messages)
    }

    /// Marks messages as published.
    pub(crate) async fn mark(&self, published: &[Published]) -> Result<()> {
        let positions: Vec<i64> = published.iter().map(|published| published.position).collect();
        let had_failed = published.iter().filter(|published| published.failed);
        let had_failed: Vec<i64> = had_failed.map(|published| published.position).collect();
        // By positions alone: MySQL waits for every row that it examines, also for those of open
        // transactions.
        let mark = "UPDATE outbox SET processed = TRUE, processed_at = @now WHERE position";
        if had_failed.is_empty() {
            for (list, values) in lists(&positions) {
                self.execute(&format!("{mark} {list}"), &values).await?;
            }
            return Ok(());
        }
        let dialect = self.pool.dialect();
        let mut transaction = self.begin(Access::Write).await?;
        for (sql, positions) in
            [(mark, &positions), ("DELETE FROM outbox_failures WHERE position", &had_failed)]
        {
            for (list, values) in lists(positions) {
                self.run(&mut transaction, self.spell(dialect, &format!("{sql} {list}")), &values).await?;
            }
        }
        self.commit(transaction).await
    }

    /// Records that a message was refused. It is retried after the time `again`; with `None` it becomes a
    /// dead letter, and its aggregate is held.
    pub(crate) async fn record(&self, message: &Message, error: &str, again: Option<Duration>) -> Result<()> {
        if message.nameless {
            return self.record_alone(message, error).await;
        }
        let aggregate = [Value::Text(&message.aggregate_type), Value::Text(&message.aggregate_id)];
        let dialect = self.pool.dialect();
        let mut transaction = self.begin(Access::Lock).await?;
        if again.is_none() {
            for sql in [
                "UPDATE outbox_aggregates SET held = TRUE WHERE aggregate_type = ? AND aggregate_id = ?",
                "UPDATE outbox @aggregate SET held = TRUE WHERE aggregate_type = ? AND aggregate_id = ? AND processed = FALSE",
            ] {
                self.run(&mut transaction, self.spell(dialect, sql), &aggregate).await?;
            }
        }
        let forget = "DELETE FROM outbox_failures WHERE aggregate_type = ? AND aggregate_id = ?";
        self.run(&mut transaction, self.spell(dialect, forget), &aggregate).await?;
        // There may be a row under former names of the message, if its row was repaired.
        let forget = self.spell(dialect, "DELETE FROM outbox_failures WHERE position = ?");
        self.run(&mut transaction, forget, &[Value::Int(message.position)]).await?;
        let insert = format!(
            "INSERT INTO outbox_failures
                (aggregate_type, aggregate_id, position, attempts, failed_at, next_attempt_at, last_error, dead)
            SELECT aggregate_type, aggregate_id, position, ?, @now, @later, ?, {} FROM outbox
            WHERE position = ? AND processed = FALSE",
            if again.is_none() { "TRUE" } else { "FALSE" }
        );
        let values = [
            Value::Int(i64::from(message.attempt)),
            Value::Int(micros(again.unwrap_or_default())),
            Value::Text(&shortened(error)),
            Value::Int(message.position),
        ];
        let recorded = self.run(&mut transaction, self.spell(dialect, &insert), &values).await?;
        if recorded == 0 {
            // Another publisher has published it, or it was discarded. Dropping the transaction rolls it
            // back.
            return Ok(());
        }
        self.commit(transaction).await
    }

    /// Records the refusal of a message whose aggregate cannot be read: a dead letter that holds no other
    /// message. Its row has names made of the position, because the columns of the message may be NULL.
    async fn record_alone(&self, message: &Message, error: &str) -> Result<()> {
        let dialect = self.pool.dialect();
        let position = [Value::Int(message.position)];
        let mut transaction = self.begin(Access::Write).await?;
        let hold = "UPDATE outbox SET held = TRUE WHERE position = ? AND processed = FALSE";
        if self.run(&mut transaction, self.spell(dialect, hold), &position).await? == 0 {
            return Ok(());
        }
        let name = format!("position {}", message.position);
        let forget = "DELETE FROM outbox_failures WHERE position = ?";
        self.run(&mut transaction, self.spell(dialect, forget), &position).await?;
        let insert = "INSERT INTO outbox_failures
                (aggregate_type, aggregate_id, position, attempts, failed_at, next_attempt_at, last_error, dead)
            VALUES ('', ?, ?, ?, @now, @now, ?, TRUE)";
        let error = shortened(error);
        let values =
            [Value::Text(&name), position[0], Value::Int(i64::from(message.attempt)), Value::Text(&error)];
        self.run(&mut transaction, self.spell(dialect, insert), &values).await?;
        self.commit(transaction).await
    }

    /// Deletes at most `limit` messages that were processed longer than `keep` ago. Returns how many.
    pub(crate) async fn clean(&self, keep: Duration, limit: usize) -> Result<u64> {
        // MySQL has no LIMIT in a subquery, the others have none in a DELETE.
        let sql = if self.pool.dialect() == crate::dialect::Dialect::MySql {
            "DELETE FROM outbox WHERE processed_at < @later ORDER BY processed_at LIMIT ?"
        } else {
            "DELETE FROM outbox WHERE position IN
                (SELECT position FROM outbox WHERE processed_at < @later ORDER BY processed_at LIMIT ?)"
        };
        self.execute(sql, &[Value::Int(-micros(keep)), Value::Int(whole(limit))]).await
    }

    /// Sets the time of messages that were processed later than `keep` from now to the current time: the
    /// clock was ahead, and they would be kept until then. Returns how many.
    pub(crate) async fn correct(&self, keep: Duration) -> Result<u64> {
        let sql = "UPDATE outbox SET processed_at = @now WHERE processed_at > @later";
        self.execute(sql, &[Value::Int(micros(keep))]).await
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce() -> Result<T, sqlx::Error>) -> Result<T> {
        read().map_err(Error::Database)
    }
}

/// The columns of a message, as [`message`] reads them.
pub(crate) const MESSAGE: &str =
    "o.position, @text(o.id), o.aggregate_type, o.aggregate_id, o.sequence, o.event_type,
    o.content_type, o.event_data, o.event_binary, o.headers, @micros(o.created_at)";

/// Reads a message from the first columns of a row. Columns that cannot be read are left out and named in
/// [`Message::unreadable`], so that such a row is refused alone. An error is the database's.
pub(crate) fn message(row: &Row) -> Result<Message, sqlx::Error> {
    let position = row.int(0)?;
    let mut unreadable = Vec::new();
    let id = readable(id(row, 1), "id", &mut unreadable).unwrap_or_else(|| stand_in(position));
    let mut text = |column, name| readable(row.text(column), name, &mut unreadable);
    let (aggregate_type, aggregate_id) = (text(2, "aggregate_type"), text(3, "aggregate_id"));
    let nameless = aggregate_type.is_none() || aggregate_id.is_none();
    let event_type = text(5, "event_type").unwrap_or_default();
    let sequence = row.int(4).and_then(|number| u64::try_from(number).map_err(decode));
    let sequence = readable(sequence, "sequence", &mut unreadable).unwrap_or_default();
    let content_type = readable(row.maybe_text(6), "content_type", &mut unreadable).flatten();
    let text = readable(row.maybe_text(7), "event_data", &mut unreadable).flatten();
    let binary = readable(row.maybe_bytes(8), "event_binary", &mut unreadable).flatten();
    if text.is_none() && binary.is_none() && unreadable.is_empty() {
        unreadable.push("event_data and event_binary are both NULL".to_owned());
    }
    let headers = row.maybe_text(9).and_then(|headers| {
        headers.map(|headers| serde_json::from_str(&headers)).transpose().map_err(decode)
    });
    let headers = readable(headers, "headers", &mut unreadable).flatten().unwrap_or_default();
    let created_at = readable(row.int(10), "created_at", &mut unreadable).unwrap_or_default();
    Ok(Message {
        id,
        aggregate_type: aggregate_type.unwrap_or_default(),
        aggregate_id: aggregate_id.unwrap_or_default(),
        sequence,
        event_type,
        content_type: content_type.map_or(ContentType::Json, ContentType::new),
        data: text.map(Bytes::from).or(binary.map(Bytes::from)).unwrap_or_default(),
        headers,
        created_at: Timestamp::from_micros(created_at),
        attempt: 0,
        position,
        unreadable: (!unreadable.is_empty()).then(|| unreadable.join("; ")),
        nameless,
    })
}

/// Returns the value of a column. If it cannot be read, returns `None` and adds a line to `unreadable`.
fn readable<T>(column: Result<T, sqlx::Error>, name: &str, unreadable: &mut Vec<String>) -> Option<T> {
    column.map_err(|error| unreadable.push(format!("the column `{name}` cannot be read: {error}"))).ok()
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// An id, which is read as text.
pub(crate) fn id(row: &Row, column: usize) -> Result<EventId, sqlx::Error> {
    row.text(column)?.parse().map_err(|error: annals_core::Invalid| decode(error))
}

/// The id of a message whose own cannot be read.
pub(crate) fn stand_in(position: i64) -> EventId {
    EventId::from_name(format!("outbox position {position}").as_bytes())
}

/// Splits numbers into lists for the ends of statements: `IN (?, ?)`. A list is filled up by repeating the
/// last number.
fn lists(numbers: &[i64]) -> impl Iterator<Item = (String, Vec<Value<'static>>)> {
    numbers.chunks(LISTS[LISTS.len() - 1]).map(|chunk| {
        let length = LISTS.into_iter().find(|length| *length >= chunk.len()).expect("no chunk is longer");
        let last = chunk.last().copied().unwrap_or_default();
        let values = chunk.iter().copied().chain(std::iter::repeat(last)).take(length);
        (format!("IN ({}?)", "?, ".repeat(length - 1)), values.map(Value::Int).collect())
    })
}

/// Shortens an error to what is stored, without NUL, which PostgreSQL cannot store.
fn shortened(error: &str) -> String {
    let mut kept = error.replace('\0', "");
    kept.truncate(kept.floor_char_boundary(ERROR_BYTES_MAX));
    kept
}

pub(crate) fn micros(duration: Duration) -> i64 {
    // At most a thousand years, which can be added to every time.
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(1_000 * 366 * 86_400 * 1_000_000)
}

pub(crate) fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
