//! Checkpoints in the table `checkpoints` of a database.
//!
//! - B1  A write under a lease locks the row of the lease last, for the moment until the commit: another that
//!       acquires the lease meanwhile waits for that, or the commit does not happen.
//! - B2  Parts are replaced under the lock of the row `NAME/division`, which is made for that and is not one
//!       of them unless it was.

use annals_core::{EventId, Position};
use async_trait::async_trait;

use super::{SqlState, Transaction, id_of};
use crate::checkpoint::part_bounds;
use crate::name::check_name;
use crate::{Advanced, Checkpoint, CheckpointStore, Lease, Params, SqlError, StateError, Value};

const COLUMNS: &str = "position, event_id, ladder";

/// The checkpoint of a row that exists only to be locked.
const NOTHING: Checkpoint = Checkpoint { position: Position::ZERO, event: None, ladder: None };

fn values(name: &str, checkpoint: &Checkpoint) -> Result<Vec<Value>, StateError> {
    check_name(name)?;
    let id = checkpoint.event.map(|id| id.as_bytes().to_vec());
    Ok((name, checkpoint.position, id, checkpoint.ladder.clone()).values()?)
}

/// A checkpoint in [`COLUMNS`].
fn checkpoint_of(name: &str, cells: &[Value]) -> Result<Checkpoint, StateError> {
    let unreadable =
        |problem: &str| StateError::Unreadable { name: name.to_owned(), problem: problem.to_owned() };
    let position = match cells.first() {
        Some(Value::Integer(position)) => u64::try_from(*position).ok().map(Position::new),
        _ => None,
    };
    let position = position.ok_or_else(|| unreadable("has no position"))?;
    let event = match cells.get(1) {
        Some(Value::Null) | None => None,
        Some(id) => Some(id_of(id).ok_or_else(|| unreadable("has an event that is no id"))?),
    };
    let ladder = match cells.get(2) {
        Some(Value::Null) | None => None,
        Some(Value::Blob(bytes)) => Some(bytes.clone()),
        Some(_) => return Err(unreadable("has an invalid ladder")),
    };
    Ok(Checkpoint { position, event: event.map(EventId::from_bytes), ladder })
}

/// A name in a column, which has bytes in MariaDB and MySQL.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(name) => Some(name.clone()),
        Value::Blob(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

impl SqlState {
    fn insert(&self) -> String {
        self.insert_unless_there(
            "{state}.checkpoints (subscriber, position, event_id, ladder) VALUES (?1, ?2, ?3, ?4)",
            "subscriber",
        )
    }

    async fn parts_in(
        &self,
        transaction: &mut Transaction,
        name: &str,
        lock: &str,
    ) -> Result<Vec<(String, Checkpoint)>, StateError> {
        let (from, to) = part_bounds(name);
        let sql = format!(
            "SELECT subscriber, {COLUMNS} FROM {{state}}.checkpoints
             WHERE subscriber = ?1 OR (subscriber > ?2 AND subscriber < ?3) {lock}"
        );
        let answer = transaction.run(&sql, &(name, from, to).values()?).await?;
        let mut parts = Vec::with_capacity(answer.rows.len());
        for row in answer.rows {
            let Some(name) = text_of(&row[0]) else { continue };
            let checkpoint = checkpoint_of(&name, &row[1..])?;
            parts.push((name, checkpoint));
        }
        parts.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(parts)
    }

    /// Commits, unless the lease is lost.
    async fn commit_under(
        &self,
        mut transaction: Transaction,
        lease: Option<&Lease>,
    ) -> Result<(), StateError> {
        if let Some(lease) = lease
            && !transaction.is_held(lease).await?
        {
            transaction.rollback().await;
            self.leases().refused(lease);
            return Err(StateError::LeaseLost(lease.name.clone()));
        }
        Ok(transaction.commit().await?)
    }

    /// Whether the row of a checkpoint is there, in a transaction that did not change it.
    async fn is_there(transaction: &mut Transaction, name: &str) -> Result<bool, StateError> {
        let sql = "SELECT position FROM {state}.checkpoints WHERE subscriber = ?1";
        Ok(!transaction.run(sql, &(name,).values()?).await?.rows.is_empty())
    }
}

#[async_trait]
impl CheckpointStore for SqlState {
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>, StateError> {
        check_name(name)?;
        let sql = format!("SELECT {COLUMNS} FROM {{state}}.checkpoints WHERE subscriber = ?1");
        let answer = self.read(&sql, &(name,).values()?).await?;
        answer.rows.first().map(|row| checkpoint_of(name, row)).transpose()
    }

    async fn create(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        let values = values(name, checkpoint)?;
        let mut transaction = self.begin().await?;
        // The row count of an insert that found a row differs between servers.
        let was_there = Self::is_there(&mut transaction, name).await?;
        if !was_there {
            transaction.run(&self.insert(), &values).await?;
        }
        self.commit_under(transaction, lease).await?;
        if was_there {
            return Ok(false);
        }
        // Another process may have inserted one in between, which was kept.
        Ok(self.checkpoint(name).await?.as_ref() == Some(checkpoint))
    }

    async fn advance(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<Advanced, StateError> {
        let values = values(name, checkpoint)?;
        let sql = "UPDATE {state}.checkpoints SET position = ?2, event_id = ?3, ladder = ?4
            WHERE subscriber = ?1 AND position < ?2";
        let mut transaction = self.begin().await?;
        let advanced = match transaction.run(sql, &values).await?.changed {
            0 if Self::is_there(&mut transaction, name).await? => Advanced::Behind,
            0 => Advanced::Missing,
            _ => Advanced::Moved,
        };
        self.commit_under(transaction, lease).await?;
        Ok(advanced)
    }

    async fn replace(
        &self,
        name: &str,
        at: Position,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        let mut values = values(name, checkpoint)?;
        values.extend((at,).values()?);
        let found =
            "SELECT position FROM {state}.checkpoints WHERE subscriber = ?1 AND position = ?2 FOR UPDATE";
        let mut transaction = self.begin().await?;
        let is_there = !transaction.run(found, &(name, at).values()?).await?.rows.is_empty();
        if is_there {
            let sql = "UPDATE {state}.checkpoints SET position = ?2, event_id = ?3, ladder = ?4
                WHERE subscriber = ?1 AND position = ?5";
            transaction.run(sql, &values).await?;
        }
        self.commit_under(transaction, lease).await?;
        Ok(is_there)
    }

    async fn parts(&self, name: &str) -> Result<Vec<(String, Checkpoint)>, StateError> {
        check_name(name)?;
        let mut transaction = self.begin().await?;
        let parts = self.parts_in(&mut transaction, name, "").await?;
        transaction.rollback().await;
        Ok(parts)
    }

    async fn replace_parts(
        &self,
        name: &str,
        found: &[(String, Checkpoint)],
        instead: &[(String, Checkpoint)],
    ) -> Result<bool, StateError> {
        check_name(name)?;
        let rows: Vec<_> =
            instead.iter().map(|(name, checkpoint)| values(name, checkpoint)).collect::<Result<_, _>>()?;
        let lock = format!("{name}/division");
        let mut transaction = self.begin().await?;
        transaction.run(&self.insert(), &values(&lock, &NOTHING)?).await?;
        let sql = "SELECT position FROM {state}.checkpoints WHERE subscriber = ?1 FOR UPDATE";
        transaction.run(sql, &(lock.as_str(),).values()?).await?;
        let mut there = self.parts_in(&mut transaction, name, "FOR UPDATE").await?;
        if !found.iter().any(|(name, _)| *name == lock) {
            there.retain(|(name, checkpoint)| *name != lock || *checkpoint != NOTHING);
        }
        if there != found {
            transaction.rollback().await;
            return Ok(false);
        }
        let (from, to) = part_bounds(name);
        let delete =
            "DELETE FROM {state}.checkpoints WHERE subscriber = ?1 OR (subscriber > ?2 AND subscriber < ?3)";
        transaction.run(delete, &(name, from, to).values()?).await?;
        for row in &rows {
            transaction.run(&self.insert(), row).await?;
        }
        transaction.commit().await.map_err(SqlError::from)?;
        Ok(true)
    }
}
