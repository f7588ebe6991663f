//! Values and rows in PostgreSQL's representation.

use annals_core::{RecordedEvent, Result, Timestamp};
use annals_sql::EventRow;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row, Type, ValueRef};
use uuid::Uuid;

use crate::error::failed;

/// A point in time as `timestamptz`: microseconds since 2000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant(pub(crate) Timestamp);

/// Microseconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800_000_000;

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Instant {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz[]")
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&(self.0.as_micros() - EPOCH).to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Instant {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(Timestamp::from_micros(micros.saturating_add(EPOCH))))
    }
}

/// The event in this row, whose columns are those of `read.sql`; `None` if the row has none.
pub(crate) fn event(row: &PgRow) -> Result<Option<RecordedEvent>> {
    if row.try_get_raw(1).map_err(failed)?.is_null() {
        return Ok(None);
    }
    columns(row).map_err(failed)?.into_event().map(Some)
}

fn columns(row: &PgRow) -> Result<EventRow, sqlx::Error> {
    let micros = |time: Instant| time.0.as_micros();
    Ok(EventRow {
        position: row.try_get(1)?,
        append_position: row.try_get(2)?,
        entity_id: row.try_get(3)?,
        entity_version: row.try_get(4)?,
        event_id: row.try_get::<Uuid, _>(5)?.into_bytes(),
        event_type: row.try_get(6)?,
        schema_version: row.try_get(7)?,
        content_type: row.try_get(8)?,
        event_data: row.try_get(9)?,
        event_binary: row.try_get(10)?,
        tags: row.try_get(11)?,
        triggering_event: row.try_get(12)?,
        process_id: row.try_get(13)?,
        initiator: row.try_get(14)?,
        trace: row.try_get(15)?,
        metadata: row.try_get(16)?,
        occurred_at: row.try_get::<Option<Instant>, _>(17)?.map(micros),
        recorded_at: row.try_get(18).map(micros)?,
        idempotency_key: row.try_get(19)?,
    })
}

/// The bytes of a page up to and including this row.
pub(crate) fn bytes(row: &PgRow) -> Result<i64> {
    row.try_get("bytes").map_err(failed)
}
