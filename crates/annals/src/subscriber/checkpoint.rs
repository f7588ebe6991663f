//! How far a subscriber has come: a row of `state.sqlite`.

use annals_core::{EventId, EventStore, Position, Result};
use rusqlite::{OptionalExtension, params};

use crate::projection::Witness;
use crate::sql::{Database, SqlError, ToValue};
use crate::state::unavailable;

/// The checkpoint of one subscriber.
#[derive(Clone)]
pub(super) struct Checkpoints {
    database: Database,
    subscriber: String,
}

impl Checkpoints {
    pub fn new(database: Database, subscriber: &str) -> Self {
        Self { database, subscriber: subscriber.to_owned() }
    }

    /// Where to go on: after the checkpoint, or at the first start where that begins. A checkpoint that the log
    /// does not know is dropped with a warning.
    pub async fn begin(&self, store: &dyn EventStore, from_now: bool) -> Result<Position> {
        let head = store.head().await?;
        if let Some((position, witness)) = self.read().await.map_err(unavailable)? {
            let reason = match witness {
                _ if position > head => "it is beyond the end of the log",
                Some(witness) if !witness.holds(store).await? => "the log has another history",
                _ => return Ok(position),
            };
            tracing::warn!(subscriber = self.subscriber, reason, "the checkpoint is dropped; it begins anew");
        }
        let after = if from_now { head } else { Position::ZERO };
        let witness = if from_now { Witness::at(store, head).await? } else { None };
        self.put(witness, true).await.map_err(unavailable)?;
        Ok(after)
    }

    /// Everything up to this event is handled. A checkpoint never moves back.
    pub async fn write(&self, witness: Witness) -> Result<(), SqlError> {
        self.put(Some(witness), false).await
    }

    /// Puts it at an event, or before the first one; `anew` forgets where it was.
    async fn put(&self, witness: Option<Witness>, anew: bool) -> Result<(), SqlError> {
        let subscriber = self.subscriber.clone();
        let write = move |connection: &rusqlite::Connection| -> Result<(), SqlError> {
            if anew {
                connection.execute("DELETE FROM checkpoints WHERE subscriber = ?1", [&subscriber])?;
            }
            let seen = witness.map(|witness| witness.position);
            let id = witness.map(|witness| *witness.id.as_bytes());
            connection
                .prepare_cached(
                    "INSERT INTO checkpoints VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
                     position = excluded.position, witness_position = excluded.witness_position,
                     witness_id = excluded.witness_id
                     WHERE excluded.position > position",
                )?
                .execute(params![subscriber, seen.unwrap_or_default().to_value()?, seen.to_value()?, id])?;
            Ok(())
        };
        self.database.write(write).await
    }

    async fn read(&self) -> Result<Option<(Position, Option<Witness>)>, SqlError> {
        let subscriber = self.subscriber.clone();
        let read = move |connection: &rusqlite::Connection| {
            let sql = "SELECT position, witness_position, witness_id FROM checkpoints WHERE subscriber = ?1";
            let found = connection.query_row(sql, [subscriber], |row| {
                let position = Position::new(row.get::<_, i64>(0)?.unsigned_abs());
                let witness = match (row.get::<_, Option<i64>>(1)?, row.get::<_, Option<[u8; 16]>>(2)?) {
                    (Some(seen), Some(id)) => Some(Witness {
                        position: Position::new(seen.unsigned_abs()),
                        id: EventId::from_bytes(id),
                    }),
                    _ => None,
                };
                Ok((position, witness))
            });
            Ok::<_, SqlError>(found.optional()?)
        };
        self.database.read(read).await
    }
}
