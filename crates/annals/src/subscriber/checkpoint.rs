//! How far a subscriber has come: a row of `state.sqlite`, or of the table `checkpoints` of a database.

use annals_core::{EventId, EventStore, Position, Result, Witness};
use annals_sql::Value;
use rusqlite::{OptionalExtension, params};

use super::group::Share;
use crate::sql::{Database, Params, SqlError, ToValue, whole};
use crate::state::{Held, Opened, StateDatabase, position_of, unavailable};

/// The checkpoint of one subscriber.
#[derive(Clone)]
pub(super) struct Checkpoints {
    kept: Kept,
    subscriber: String,
}

#[derive(Clone)]
enum Kept {
    Sqlite(Database),
    Database(StateDatabase),
}

/// A checkpoint as it is kept: everything up to the position is handled.
type Checkpoint = (Position, Option<Witness>);

impl Checkpoints {
    pub fn new(state: &Opened, subscriber: &str) -> Self {
        let kept = match state {
            Opened::Sqlite(database, _) => Kept::Sqlite(database.clone()),
            Opened::Database(database) => Kept::Database(database.clone()),
        };
        Self { kept, subscriber: subscriber.to_owned() }
    }

    /// Where to go on: after the checkpoint, or at the first start where that begins. A checkpoint that the log
    /// does not know is dropped with a warning.
    pub async fn begin(&self, store: &dyn EventStore, from_now: bool) -> Result<Position> {
        // In this order: others may append and move it meanwhile.
        let found = self.read().await.map_err(unavailable)?;
        let head = store.head().await?;
        if let Some((position, witness)) = found {
            let reason = match witness {
                _ if position > head => "it is beyond the end of the log",
                Some(witness) if !witness.holds(store).await? => "the log has another history",
                _ => return Ok(position),
            };
            tracing::warn!(subscriber = self.subscriber, reason, "the checkpoint is dropped; it begins anew");
        }
        let after = if from_now { head } else { Position::ZERO };
        let witness = if from_now { Witness::at(store, head).await? } else { None };
        match &self.kept {
            Kept::Sqlite(database) => {
                self.put_in_file(database, witness, true).await.map_err(unavailable)?;
                Ok(after)
            }
            Kept::Database(database) => self.put_anew(database, found, witness).await.map_err(unavailable),
        }
    }

    /// That of one share of a group.
    pub fn of_share(&self, share: Share) -> Self {
        // No subscriber has `/` in its name.
        Self { kept: self.kept.clone(), subscriber: format!("{}/{share}", self.subscriber) }
    }

    /// Has rows for this division of the work and no others: if it was divided otherwise, all of them stand where the
    /// slowest one was. Files know no division.
    pub async fn divide(&self, shares: &[Share]) -> Result<(), SqlError> {
        let Kept::Database(database) = &self.kept else { return Ok(()) };
        let mut wanted: Vec<String> = match shares {
            [] => vec![self.subscriber.clone()],
            shares => shares.iter().map(|share| self.of_share(*share).subscriber).collect(),
        };
        let (name, shares, end) =
            (&self.subscriber, format!("{}/", self.subscriber), format!("{}0", self.subscriber));
        let range = (name.as_str(), shares.as_str(), end.as_str()).values()?;
        // `0` is the sign behind `/`.
        let of_all =
            "FROM {state}.checkpoints WHERE subscriber = ?1 OR (subscriber > ?2 AND subscriber < ?3)";
        let mut transaction = database.begin().await?;
        let rows = format!("SELECT position, event_id, subscriber {of_all} FOR UPDATE");
        let rows = transaction.run(&rows, &range).await?.rows;
        let mut found: Vec<_> = rows.iter().filter_map(|row| text_of(&row[2])).collect();
        wanted.sort();
        found.sort();
        if rows.is_empty() || found == wanted {
            transaction.rollback().await;
            return Ok(());
        }
        let slowest = rows.iter().map(|row| position_of(row)).min_by_key(|(position, _)| *position);
        let (position, witness) = slowest.unwrap_or_default();
        tracing::info!(subscriber = self.subscriber, %position, "the work is divided otherwise from here on");
        transaction.run(&format!("DELETE {of_all}"), &range).await?;
        for share in wanted {
            let insert =
                "INSERT INTO {state}.checkpoints (subscriber, position, event_id) VALUES (?1, ?2, ?3)";
            let id = witness.map(|witness| witness.id.as_bytes().to_vec());
            transaction.run(insert, &(share, position, id).values()?).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Where it stands now.
    pub async fn position(&self) -> Result<Position, SqlError> {
        Ok(self.read().await?.unwrap_or_default().0)
    }

    /// Everything up to this event is handled. A checkpoint never moves back.
    pub async fn write(&self, witness: Witness) -> Result<(), SqlError> {
        match &self.kept {
            Kept::Sqlite(database) => self.put_in_file(database, Some(witness), false).await,
            Kept::Database(database) => {
                let sql = "UPDATE {state}.checkpoints SET position = ?2, event_id = ?3
                    WHERE subscriber = ?1 AND position < ?2";
                let id = witness.id.as_bytes().as_slice();
                database.write(sql, &(self.subscriber.as_str(), witness.position, id).values()?).await?;
                Ok(())
            }
        }
    }

    /// Waits until this process is the one that handles the events of this subscriber; at once, if there is no other.
    pub async fn hold(&self) -> Option<Held> {
        match &self.kept {
            Kept::Sqlite(_) => None,
            Kept::Database(database) => {
                Some(database.guard().hold(format!("subscriber {}", self.subscriber)).await)
            }
        }
    }

    /// Puts it at an event, or before the first one; `anew` forgets where it was.
    async fn put_in_file(
        &self,
        database: &Database,
        witness: Option<Witness>,
        anew: bool,
    ) -> Result<(), SqlError> {
        let subscriber = self.subscriber.clone();
        let write = move |connection: &rusqlite::Connection| -> Result<(), SqlError> {
            if anew {
                connection.execute("DELETE FROM checkpoints WHERE subscriber = ?1", [&subscriber])?;
            }
            let seen = witness.map(|witness| witness.position);
            let id = witness.map(|witness| *witness.id.as_bytes());
            let position = whole(seen.unwrap_or_default().get())?;
            connection
                .prepare_cached(
                    "INSERT INTO checkpoints VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
                     position = excluded.position, witness_position = excluded.witness_position,
                     witness_id = excluded.witness_id
                     WHERE excluded.position > position",
                )?
                .execute(params![subscriber, position, seen.map(|_| position), id])?;
            Ok(())
        };
        database.write(write).await
    }

    /// Puts a checkpoint where there is none, or in the place of this one that the log does not know; says where it stands
    /// then. Others may have done the same meanwhile: theirs holds.
    async fn put_anew(
        &self,
        database: &StateDatabase,
        found: Option<Checkpoint>,
        witness: Option<Witness>,
    ) -> Result<Position, SqlError> {
        let mut transaction = database.begin().await?;
        if let Some((position, _)) = found {
            let sql = "DELETE FROM {state}.checkpoints WHERE subscriber = ?1 AND position = ?2";
            transaction.run(sql, &(self.subscriber.as_str(), position).values()?).await?;
        }
        let insert = database.insert_unless_there(
            "{state}.checkpoints (subscriber, position, event_id) VALUES (?1, ?2, ?3)",
            "subscriber",
        );
        let id = witness.map(|witness| witness.id.as_bytes().to_vec());
        let position = witness.map_or(Position::ZERO, |witness| witness.position);
        transaction.run(&insert, &(self.subscriber.as_str(), position, id).values()?).await?;
        transaction.commit().await?;
        self.position().await
    }

    async fn read(&self) -> Result<Option<Checkpoint>, SqlError> {
        let subscriber = self.subscriber.clone();
        let database = match &self.kept {
            Kept::Sqlite(database) => database,
            Kept::Database(database) => {
                let sql = "SELECT position, event_id FROM {state}.checkpoints WHERE subscriber = ?1";
                let answer = database.read(sql, &[subscriber.as_str().to_value()?]).await?;
                return Ok(answer.rows.first().map(|row| position_of(row)));
            }
        };
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
        database.read(read).await
    }
}

/// A name in a column, which has bytes in MariaDB and MySQL.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(name) => Some(name.clone()),
        Value::Blob(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}
