//! Snapshots in `state.sqlite`.

use annals_core::{Bytes, Cause, EventId, Position, Result, StreamId, Timestamp, Version};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use crate::{SNAPSHOTS_KEPT, SnapshotStore, SqlError, SqliteState, StoredSnapshot, whole};

#[async_trait]
impl SnapshotStore for SqliteState {
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause> {
        let write = move |connection: &rusqlite::Connection| -> Result<(), SqlError> {
            let StoredSnapshot { stream, schema, version, event_id, position, taken_at, state } = snapshot;
            let (stream, version) = (stream.as_str(), whole(version.get())?);
            connection
                .prepare_cached("DELETE FROM snapshots WHERE stream = ?1 AND schema <> ?2")?
                .execute(params![stream, schema])?;
            connection
                .prepare_cached("INSERT OR REPLACE INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                    stream,
                    schema,
                    version,
                    event_id.as_bytes(),
                    whole(position.get())?,
                    taken_at.as_micros(),
                    &state[..]
                ])?;
            connection
                .prepare_cached(
                    "DELETE FROM snapshots WHERE stream = ?1 AND version NOT IN
                     (SELECT version FROM snapshots WHERE stream = ?1 ORDER BY version DESC LIMIT ?2)",
                )?
                .execute(params![stream, SNAPSHOTS_KEPT as i64])?;
            Ok(())
        };
        Ok(self.database.write(write).await?)
    }

    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause> {
        let (stream, schema) = (stream.clone(), schema.to_owned());
        let read = move |connection: &rusqlite::Connection| {
            let up_to = i64::try_from(up_to.get()).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(
                "SELECT version, event_id, position, taken_at, state FROM snapshots
                 WHERE stream = ?1 AND schema = ?2 AND version <= ?3 ORDER BY version DESC LIMIT 1",
            )?;
            let found = statement.query_row(params![stream.as_str(), schema, up_to], |row| {
                let state: Vec<u8> = row.get(4)?;
                Ok(StoredSnapshot {
                    stream: stream.clone(),
                    schema: schema.clone(),
                    version: Version::new(row.get::<_, i64>(0)?.unsigned_abs()),
                    event_id: EventId::from_bytes(row.get(1)?),
                    position: Position::new(row.get::<_, i64>(2)?.unsigned_abs()),
                    taken_at: Timestamp::from_micros(row.get(3)?),
                    state: Bytes::from(state),
                })
            });
            Ok::<_, SqlError>(found.optional()?)
        };
        Ok(self.database.read(read).await?)
    }

    async fn forget(&self, stream: &StreamId) -> Result<(), Cause> {
        let stream = stream.clone();
        let write = move |connection: &rusqlite::Connection| -> Result<(), SqlError> {
            connection.execute("DELETE FROM snapshots WHERE stream = ?1", params![stream.as_str()])?;
            Ok(())
        };
        Ok(self.database.write(write).await?)
    }
}
