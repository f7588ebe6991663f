//! For the person on call: the status of an outbox, and its dead letters.
//!
//! A dead letter keeps its place in the order: the later messages of its aggregate wait, and are published
//! after it when it is retried.

use std::time::Duration;

use annals_core::{EventId, Timestamp};

use crate::database::{Access, Value};
use crate::pending::{MESSAGE, id, message, stand_in};
use crate::{Error, LeaseHolder, Message, Outbox, Result};

/// Most refused messages that a status lists.
const FAILING_MAX: i64 = 100;

/// The status of an outbox.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// Messages that are not published yet, without those that are held.
    pub pending: u64,
    /// Dead letters, and messages that wait for one.
    pub held: u64,
    /// Age of the oldest of all these.
    pub oldest: Option<Duration>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Aggregates whose next message was refused and will be tried again: the first hundred.
    pub failing: Vec<RefusedMessage>,
    /// Whether a publisher holds the lease, and its end is [plausible](LeaseHolder::believable).
    pub publishing: bool,
    /// The holder of the lease, also if its end is not plausible.
    pub lease: Option<LeaseHolder>,
}

/// A message that was refused and will be tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefusedMessage {
    /// The type of the aggregate that it is about.
    pub aggregate_type: String,
    /// The id of that aggregate.
    pub aggregate_id: String,
    /// The id of the message.
    pub id: EventId,
    /// How often it was refused.
    pub attempts: u32,
    /// The error of the last attempt.
    pub error: String,
    /// When it will be tried again.
    pub next_attempt_at: Timestamp,
}

/// A message that was refused too often.
#[doc(alias("poison message", "parked message"))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message; `attempt` is how often it was tried.
    pub message: Message,
    /// The error of the last attempt.
    pub error: String,
    /// When that attempt failed.
    pub failed_at: Timestamp,
    /// How many later messages of its aggregate wait for it.
    pub waiting: u64,
}

impl Outbox {
    /// Reads the status. It counts the messages that are not published, so its cost grows with their number.
    ///
    /// # Errors
    /// `NoTables`, `Database`.
    pub async fn status(&self) -> Result<Status> {
        let mut status = Status::default();
        let mut oldest = None;
        for (held, count) in [("FALSE", &mut status.pending), ("TRUE", &mut status.held)] {
            let waits = format!("FROM outbox o @pending WHERE o.processed = FALSE AND o.held = {held}");
            *count =
                self.number(&format!("SELECT COUNT(*) {waits}")).await?.unwrap_or_default().unsigned_abs();
            let age = format!(
                "SELECT @micros(@now) - @micros(o.created_at) {waits} ORDER BY o.held, o.position LIMIT 1"
            );
            oldest = oldest.max(self.number(&age).await?);
        }
        status.oldest = oldest.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default()));
        let dead = "SELECT COUNT(*) FROM outbox_failures WHERE dead = TRUE";
        status.dead_letters = self.number(dead).await?.unwrap_or_default().unsigned_abs();
        status.lease = self.lease_holder().await?;
        status.publishing =
            status.lease.as_ref().is_some_and(|lease| lease.believable && lease.until.is_some());
        let failing =
            "SELECT o.position, @text(o.id), o.aggregate_type, o.aggregate_id, f.attempts, f.last_error,
                @micros(f.next_attempt_at)
            FROM outbox_failures f JOIN outbox o ON o.position = f.position
            WHERE f.dead = FALSE ORDER BY f.position LIMIT ?";
        for row in self.fetch(failing, &[Value::Int(FAILING_MAX)]).await? {
            status.failing.push(self.read(|| {
                // A value that another program wrote wrongly is left out, so that the others can be read.
                let position = row.int(0)?;
                Ok(RefusedMessage {
                    id: id(&row, 1).unwrap_or_else(|_| stand_in(position)),
                    aggregate_type: row.text(2).unwrap_or_default(),
                    aggregate_id: row.text(3).unwrap_or_default(),
                    attempts: u32::try_from(row.int(4).unwrap_or_default()).unwrap_or(u32::MAX),
                    error: row.text(5).unwrap_or_default(),
                    next_attempt_at: Timestamp::from_micros(row.int(6).unwrap_or_default()),
                })
            })?);
        }
        Ok(status)
    }

    /// The oldest dead letters.
    ///
    /// # Errors
    /// `NoTables`, `Database`.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        let sql = format!(
            "SELECT {MESSAGE}, f.attempts, f.last_error, @micros(f.failed_at),
                (SELECT COUNT(*) FROM outbox w WHERE w.aggregate_type = o.aggregate_type
                    AND w.aggregate_id = o.aggregate_id AND w.sequence > o.sequence)
            FROM outbox_failures f JOIN outbox o ON o.position = f.position
            WHERE f.dead = TRUE ORDER BY f.position LIMIT ?"
        );
        let rows = self.fetch(&sql, &[Value::Int(i64::try_from(limit).unwrap_or(i64::MAX))]).await?;
        let letter = |row: &_| -> Result<DeadLetter, sqlx::Error> {
            let row: &crate::database::Row = row;
            let mut message = message(row)?;
            message.attempt = u32::try_from(row.int(11).unwrap_or_default()).unwrap_or(u32::MAX);
            Ok(DeadLetter {
                message,
                error: row.text(12).unwrap_or_default(),
                failed_at: Timestamp::from_micros(row.int(13).unwrap_or_default()),
                waiting: row.int(14)?.unsigned_abs(),
            })
        };
        rows.iter().map(|row| self.read(|| letter(row))).collect()
    }

    /// Retries a dead letter, with its attempts counted from 1 again. It keeps its place: it is published
    /// first, and then the messages of its aggregate that waited for it.
    ///
    /// # Errors
    /// `NoDeadLetter` if there is none with this id; `NoTables`, `Database`.
    pub async fn retry(&self, id: EventId) -> Result<()> {
        self.release_dead_letter(id, false).await
    }

    /// Retries all current dead letters. Returns how many.
    ///
    /// # Errors
    /// `NoTables`, `Database`. Those before the error are retried.
    pub async fn retry_all(&self) -> Result<u64> {
        let mut retried = 0;
        for (id, _) in self.dead_ids().await? {
            match self.retry(id).await {
                Ok(()) => retried += 1,
                // Another caller was faster.
                Err(Error::NoDeadLetter(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retried)
    }

    /// Discards a dead letter: it will never be published, and its aggregate is unblocked. Its row counts as
    /// processed and dropped, and is kept as long as those.
    ///
    /// # Errors
    /// `NoDeadLetter` if there is none with this id; `NoTables`, `Database`.
    pub async fn discard(&self, id: EventId) -> Result<()> {
        self.release_dead_letter(id, true).await
    }

    /// The ids and positions of the dead letters. One whose id cannot be read has the id of [`stand_in`].
    async fn dead_ids(&self) -> Result<Vec<(EventId, i64)>> {
        let sql =
            "SELECT o.position, @text(o.id) FROM outbox_failures f JOIN outbox o ON o.position = f.position
            WHERE f.dead = TRUE ORDER BY f.position LIMIT ?";
        let rows = self.fetch(sql, &[Value::Int(i64::MAX)]).await?;
        let letters = rows.iter().map(|row| {
            let position = self.read(|| row.int(0))?;
            Ok((id(row, 1).unwrap_or_else(|_| stand_in(position)), position))
        });
        letters.collect()
    }

    /// Unblocks the aggregate of a dead letter, which is pending again unless it is `dropped`.
    async fn release_dead_letter(&self, id: EventId, dropped: bool) -> Result<()> {
        let text = id.to_string();
        let sql = "SELECT position FROM outbox WHERE id = @id LIMIT 1";
        let found = self.fetch(sql, &[Value::Text(&text)]).await?;
        let position = match found.first() {
            Some(row) => self.read(|| row.int(0))?,
            None => {
                let dead = self.dead_ids().await?;
                dead.iter().find(|(of, _)| *of == id).ok_or(Error::NoDeadLetter(id))?.1
            }
        };
        let sql = "SELECT aggregate_type, aggregate_id FROM outbox WHERE position = ? LIMIT 1";
        let found = self.fetch(sql, &[Value::Int(position)]).await?;
        let row = found.first().ok_or(Error::NoDeadLetter(id))?;
        // A message whose aggregate cannot be read blocks no other message.
        let names = row.text(0).and_then(|kind| Ok((kind, row.text(1)?))).ok();
        let aggregate = names.as_ref().map(|(kind, name)| [Value::Text(kind), Value::Text(name)]);
        let position = [Value::Int(position)];

        let dialect = self.pool.dialect();
        let mut transaction = self.begin(Access::Lock).await?;
        if let Some(aggregate) = &aggregate {
            let lock =
                "UPDATE outbox_aggregates SET held = FALSE WHERE aggregate_type = ? AND aggregate_id = ?";
            self.run(&mut transaction, self.spell(dialect, lock), aggregate).await?;
        }
        let forget = "DELETE FROM outbox_failures WHERE position = ? AND dead = TRUE";
        if self.run(&mut transaction, self.spell(dialect, forget), &position).await? == 0 {
            // Dropped, the transaction is rolled back.
            return Err(Error::NoDeadLetter(id));
        }
        if dropped {
            let drop = "UPDATE outbox SET processed = TRUE, processed_at = @now, dropped = TRUE, held = FALSE
                WHERE position = ?";
            self.run(&mut transaction, self.spell(dialect, drop), &position).await?;
        }
        let (free, whose) = match &aggregate {
            Some(aggregate) => (
                "UPDATE outbox @aggregate SET held = FALSE WHERE aggregate_type = ? AND aggregate_id = ? AND processed = FALSE",
                &aggregate[..],
            ),
            None => {
                ("UPDATE outbox SET held = FALSE WHERE position = ? AND processed = FALSE", &position[..])
            }
        };
        self.run(&mut transaction, self.spell(dialect, free), whose).await?;
        self.commit(transaction).await
    }

    /// Returns the number in the first row; `None` if there is no row or it is NULL.
    async fn number(&self, statement: &str) -> Result<Option<i64>> {
        let rows = self.fetch(statement, &[]).await?;
        rows.first().map_or(Ok(None), |row| self.read(|| row.maybe_int(0)))
    }
}
