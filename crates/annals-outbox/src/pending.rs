//! What a publisher asks of the tables and writes to them.
//!
//! - T1  A message is chosen only if no message of its aggregate in front of it is pending and unchosen: in the order of
//!       positions, without aggregates that are held, that wait for another attempt, or that are being published.
//! - T2  A failure is recorded only of a message that is not processed, so a publisher that was paused and comes back
//!       records none of what another has published meanwhile.
//! - T3  An aggregate is held, and let go, under the lock of its row. So of every message written at that time it is
//!       certain whether it waits.

use std::collections::HashMap;
use std::time::Duration;

use annals_core::{Bytes, ContentType, EventId, Timestamp};

use crate::database::{Row, Value};
use crate::message::{Aggregate, Message};
use crate::{Error, Outbox, Result};

/// Most bytes of data that are read at once; a message that is larger comes alone.
const BYTES_MAX: i64 = 16 << 20;
/// How many values a list in a statement may have: few different statements, so that they stay prepared.
const LISTS: [usize; 4] = [1, 16, 128, 1_024];
/// Most bytes of an error that are kept.
const ERROR_BYTES_MAX: usize = 2_000;

/// A message that was published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) position: i64,
    /// Whether it had failed before.
    pub(crate) failed: bool,
}

impl Outbox {
    /// Takes the lease for so long, or keeps it, if nobody else has it.
    pub(crate) async fn lease(&self, holder: &str, length: Duration) -> Result<bool> {
        let sql = "UPDATE outbox_publisher SET holder = ?, lease_until = @later
            WHERE holder = ? OR holder IS NULL OR lease_until < @now";
        let values = [Value::Text(holder), Value::Int(micros(length)), Value::Text(holder)];
        Ok(self.execute(sql, &values).await? > 0)
    }

    /// Gives the lease back.
    pub(crate) async fn release(&self, holder: &str) -> Result<()> {
        let sql = "UPDATE outbox_publisher SET holder = NULL, lease_until = NULL WHERE holder = ?";
        self.execute(sql, &[Value::Text(holder)]).await.map(drop)
    }

    /// The next messages, oldest first, without those of these aggregates. `room` is how many of these there may be.
    pub(crate) async fn choose<'a>(
        &self,
        active: impl Iterator<Item = &'a Aggregate>,
        room: usize,
        limit: usize,
    ) -> Result<Vec<Message>> {
        let mut sql = "SELECT o.position, COALESCE(OCTET_LENGTH(o.event_data), OCTET_LENGTH(o.event_binary), 0),
                CASE WHEN f.position = o.position THEN f.attempts ELSE 0 END
            FROM outbox o @pending LEFT JOIN outbox_failures f
                ON f.aggregate_type = o.aggregate_type AND f.aggregate_id = o.aggregate_id
            WHERE o.processed = FALSE AND o.held = FALSE AND (f.next_attempt_at IS NULL OR f.next_attempt_at <= @now)"
            .to_owned();
        let mut values = Vec::new();
        // The same statement however many there are: no aggregate has empty names.
        let names = active.map(|aggregate| (aggregate.kind.as_str(), aggregate.id.as_str()));
        for (kind, id) in names.chain(std::iter::repeat(("", ""))).take(room) {
            sql.push_str(" AND NOT (o.aggregate_type = ? AND o.aggregate_id = ?)");
            values.extend([Value::Text(kind), Value::Text(id)]);
        }
        sql.push_str(" ORDER BY o.held, o.position LIMIT ?");
        values.push(Value::Int(whole(limit)));
        let mut attempts = HashMap::new();
        let mut bytes = 0;
        for row in self.fetch(&sql, &values).await? {
            let (position, size, attempt) = self.read(|| Ok((row.int(0)?, row.int(1)?, row.int(2)?)))?;
            bytes += size;
            if !attempts.is_empty() && bytes > BYTES_MAX {
                break;
            }
            attempts.insert(position, attempt);
        }
        self.messages(&attempts).await
    }

    /// These messages, whose attempts so far are given with their positions, as far as they are still to be published.
    async fn messages(&self, attempts: &HashMap<i64, i64>) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        let positions: Vec<i64> = attempts.keys().copied().collect();
        let select = format!(
            "SELECT {MESSAGE} FROM outbox o WHERE o.processed = FALSE AND o.held = FALSE AND o.position"
        );
        for (list, values) in lists(&positions) {
            for row in self.fetch(&format!("{select} {list}"), &values).await? {
                let mut message = self.read(|| message(&row))?;
                let before = attempts.get(&message.position).copied().unwrap_or_default();
                message.attempt = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
                messages.push(message);
            }
        }
        messages.sort_by_key(|message| message.position);
        Ok(messages)
    }

    /// Marks messages that were published.
    pub(crate) async fn mark(&self, published: &[Published]) -> Result<()> {
        let positions: Vec<i64> = published.iter().map(|published| published.position).collect();
        let had_failed = published.iter().filter(|published| published.failed);
        let had_failed: Vec<i64> = had_failed.map(|published| published.position).collect();
        // By nothing but positions: MySQL waits for every row that it looks at, also for those of open transactions.
        let mark = "UPDATE outbox SET processed = TRUE, processed_at = @now WHERE position";
        if had_failed.is_empty() {
            for (list, values) in lists(&positions) {
                self.execute(&format!("{mark} {list}"), &values).await?;
            }
            return Ok(());
        }
        let dialect = self.pool.dialect();
        let mut transaction = self.begin().await?;
        for (sql, positions) in
            [(mark, &positions), ("DELETE FROM outbox_failures WHERE position", &had_failed)]
        {
            for (list, values) in lists(positions) {
                self.run(&mut transaction, self.spell(dialect, &format!("{sql} {list}")), &values).await?;
            }
        }
        self.commit(transaction).await
    }

    /// Records that a message was refused: it is tried again after this time, or else becomes a dead letter, and then its
    /// aggregate is held.
    pub(crate) async fn record(&self, message: &Message, error: &str, again: Option<Duration>) -> Result<()> {
        let aggregate = [Value::Text(&message.aggregate_type), Value::Text(&message.aggregate_id)];
        let dialect = self.pool.dialect();
        let mut transaction = self.begin().await?;
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
            // Somebody else has published or dropped it: nothing of this is to stand. Dropped, it is rolled back.
            return Ok(());
        }
        self.commit(transaction).await
    }

    /// Deletes some of the messages that were processed so long ago; says how many.
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

    pub(crate) async fn execute(&self, statement: &str, values: &[Value<'_>]) -> Result<u64> {
        let sql = self.spell(self.pool.dialect(), statement);
        self.pool.execute(sql, values).await.map_err(|error| self.failed(error))
    }

    pub(crate) async fn fetch(&self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let sql = self.spell(self.pool.dialect(), statement);
        self.pool.fetch(sql, values).await.map_err(|error| self.failed(error))
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce() -> Result<T, sqlx::Error>) -> Result<T> {
        read().map_err(Error::Database)
    }
}

/// The columns of a message, as [`message`] reads them.
pub(crate) const MESSAGE: &str =
    "o.position, @text(o.id), o.aggregate_type, o.aggregate_id, o.sequence, o.event_type,
    o.content_type, o.event_data, o.event_binary, o.headers, @micros(o.created_at)";

/// A message whose columns are the first of this row.
pub(crate) fn message(row: &Row) -> Result<Message, sqlx::Error> {
    let content_type = row.maybe_text(6)?.map_or(ContentType::Json, ContentType::new);
    let data = match row.maybe_text(7)? {
        Some(text) => Bytes::from(text),
        None => Bytes::from(row.maybe_bytes(8)?.unwrap_or_default()),
    };
    let headers = row.maybe_text(9)?.map(|headers| serde_json::from_str(&headers)).transpose();
    Ok(Message {
        id: id(row, 1)?,
        aggregate_type: row.text(2)?,
        aggregate_id: row.text(3)?,
        sequence: row.int(4)?.unsigned_abs(),
        event_type: row.text(5)?,
        content_type,
        data,
        headers: headers.map_err(|error| sqlx::Error::Decode(Box::new(error)))?.unwrap_or_default(),
        created_at: Timestamp::from_micros(row.int(10)?),
        attempt: 0,
        position: row.int(0)?,
    })
}

/// An id, which is read as text.
pub(crate) fn id(row: &Row, column: usize) -> Result<EventId, sqlx::Error> {
    row.text(column)?.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Lists of these numbers as the ends of statements: `IN (?, ?)`. Rests are filled up with the last number again.
fn lists(numbers: &[i64]) -> impl Iterator<Item = (String, Vec<Value<'static>>)> {
    numbers.chunks(LISTS[LISTS.len() - 1]).map(|chunk| {
        let length = LISTS.into_iter().find(|length| *length >= chunk.len()).expect("no chunk is longer");
        let last = chunk.last().copied().unwrap_or_default();
        let values = chunk.iter().copied().chain(std::iter::repeat(last)).take(length);
        (format!("IN ({}?)", "?, ".repeat(length - 1)), values.map(Value::Int).collect())
    })
}

/// The beginning of an error, without what PostgreSQL cannot store.
fn shortened(error: &str) -> String {
    let mut kept = error.replace('\0', "");
    kept.truncate(kept.floor_char_boundary(ERROR_BYTES_MAX));
    kept
}

fn micros(duration: Duration) -> i64 {
    // A thousand years is for ever, and can be added to every time.
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(1_000 * 366 * 86_400 * 1_000_000)
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
