//! Snapshots in the table `snapshots` of a database, which several processes share.

use annals_core::{Bytes, Cause, EventId, Position, Result, StreamId, Timestamp, Version};
use async_trait::async_trait;

use super::{SqlState, id_of};
use crate::{Dialect, FromValue, Params, SNAPSHOTS_KEPT, SnapshotStore, StoredSnapshot, ToValue, Value};

/// The columns that one snapshot of a version takes over from another.
const REPLACED: [&str; 4] = ["snapshot_json", "event_id", "position", "taken_at"];

#[async_trait]
impl SnapshotStore for SqlState {
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause> {
        let StoredSnapshot { stream, schema, version, event_id, position, taken_at, state } = snapshot;
        let mut transaction = self.begin().await?;
        let replaced = match self.dialect() {
            Dialect::MySql => REPLACED.map(|column| format!("{column} = VALUES({column})")),
            _ => REPLACED.map(|column| format!("{column} = excluded.{column}")),
        };
        let conflict = match self.dialect() {
            Dialect::MySql => "ON DUPLICATE KEY UPDATE",
            _ => "ON CONFLICT (entity_id, snapshot_type, entity_version) DO UPDATE SET",
        };
        let insert = format!(
            "INSERT INTO {{state}}.snapshots
             (entity_type, entity_id, entity_version, snapshot_type, snapshot_json, event_id, position, taken_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) {conflict} {}",
            replaced.join(", ")
        );
        let json = String::from_utf8(state.to_vec())?;
        let id = event_id.as_bytes().as_slice();
        let category = stream.category().to_string();
        let values =
            (category, stream.as_str(), version, schema.as_str(), json, id, position, taken_at).values()?;
        transaction.run(&insert, &values).await?;
        let others = "DELETE FROM {state}.snapshots WHERE entity_id = ?1 AND snapshot_type <> ?2";
        transaction.run(others, &(stream.as_str(), schema.as_str()).values()?).await?;
        let surplus = format!(
            "SELECT entity_version FROM {{state}}.snapshots WHERE entity_id = ?1 AND snapshot_type = ?2
             ORDER BY entity_version DESC LIMIT 1 OFFSET {SNAPSHOTS_KEPT}"
        );
        let surplus = transaction.run(&surplus, &(stream.as_str(), schema.as_str()).values()?).await?;
        if let Some(oldest) = surplus.rows.first() {
            let sql = "DELETE FROM {state}.snapshots WHERE entity_id = ?1 AND snapshot_type = ?2 AND entity_version <= ?3";
            transaction.run(sql, &(stream.as_str(), schema.as_str(), &oldest[0]).values()?).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause> {
        let sql = "SELECT entity_version, event_id, position, taken_at, snapshot_json FROM {state}.snapshots
             WHERE entity_id = ?1 AND snapshot_type = ?2 AND entity_version <= ?3 ORDER BY entity_version DESC LIMIT 1";
        let up_to = i64::try_from(up_to.get()).unwrap_or(i64::MAX);
        let answer = self.read(sql, &(stream.as_str(), schema, up_to).values()?).await?;
        let Some(row) = answer.rows.first() else { return Ok(None) };
        let broken = |column: &str| format!("column {column} of `snapshots` is of another kind");
        let [version, event_id, position, taken_at, Value::Text(json)] = row.as_slice() else {
            return Err(broken("snapshot_json").into());
        };
        Ok(Some(StoredSnapshot {
            stream: stream.clone(),
            schema: schema.to_owned(),
            version: Version::from_value(version).ok_or_else(|| broken("entity_version"))?,
            event_id: EventId::from_bytes(id_of(event_id).ok_or_else(|| broken("event_id"))?),
            position: Position::from_value(position).ok_or_else(|| broken("position"))?,
            taken_at: Timestamp::from_value(taken_at).ok_or_else(|| broken("taken_at"))?,
            state: Bytes::from(json.clone()),
        }))
    }

    async fn forget(&self, stream: &StreamId) -> Result<(), Cause> {
        let sql = "DELETE FROM {state}.snapshots WHERE entity_id = ?1";
        self.write(sql, &[stream.as_str().to_value()?]).await?;
        Ok(())
    }
}
