//! Rows in the representation of MariaDB and MySQL.

use annals_core::{RecordedEvent, Result};
use annals_sql::EventRow;
use sqlx::mysql::MySqlRow;
use sqlx::{ColumnIndex, Row, ValueRef};

use crate::error::failed;

/// The event in this row, whose columns are those of `read.sql`; `None` if the row has none.
pub(crate) fn event(row: &MySqlRow) -> Result<Option<RecordedEvent>> {
    if row.try_get_raw(1).map_err(failed)?.is_null() {
        return Ok(None);
    }
    columns(row).map_err(failed)?.into_event().map(Some)
}

fn columns(row: &MySqlRow) -> Result<EventRow, sqlx::Error> {
    Ok(EventRow {
        position: row.try_get(1)?,
        append_position: row.try_get(2)?,
        entity_id: text(row, 3)?,
        entity_version: row.try_get(4)?,
        event_id: id(row, 5)?,
        event_type: text(row, 6)?,
        schema_version: row.try_get(7)?,
        content_type: row.try_get(8)?,
        event_data: row.try_get(9)?,
        event_binary: row.try_get(10)?,
        tags: row.try_get(11)?,
        triggering_event: row.try_get(12)?,
        process_id: maybe_text(row, 13)?,
        initiator: maybe_text(row, 14)?,
        trace: row.try_get(15)?,
        metadata: row.try_get(16)?,
        occurred_at: row.try_get(17)?,
        recorded_at: row.try_get(18)?,
        idempotency_key: maybe_text(row, 19)?,
    })
}

/// A name, which is stored as bytes.
pub(crate) fn text(row: &MySqlRow, column: usize) -> Result<String, sqlx::Error> {
    Ok(maybe_text(row, column)?.unwrap_or_default())
}

pub(crate) fn maybe_text(
    row: &MySqlRow,
    column: impl ColumnIndex<MySqlRow>,
) -> Result<Option<String>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    bytes.map(|bytes| String::from_utf8(bytes).map_err(|error| sqlx::Error::Decode(error.into()))).transpose()
}

/// The bytes of an id.
pub(crate) fn id(row: &MySqlRow, column: usize) -> Result<[u8; 16], sqlx::Error> {
    maybe_id(row, column)?.ok_or_else(|| sqlx::Error::Decode("an id is missing".into()))
}

/// The bytes of an id, if there is one.
pub(crate) fn maybe_id(
    row: &MySqlRow,
    column: impl ColumnIndex<MySqlRow>,
) -> Result<Option<[u8; 16]>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    let id =
        bytes.map(|bytes| bytes.try_into().map_err(|_| sqlx::Error::Decode("an id has 16 bytes".into())));
    id.transpose()
}

/// The number of events that a page would have without the limit on its bytes.
pub(crate) fn meant(row: &MySqlRow) -> Result<i64> {
    Ok(row.try_get::<Option<i64>, _>(21).map_err(failed)?.unwrap_or(0))
}

/// The bytes of a page up to and including this row.
pub(crate) fn bytes(row: &MySqlRow) -> Result<i64> {
    row.try_get(20).map_err(failed)
}
