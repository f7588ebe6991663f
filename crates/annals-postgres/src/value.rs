//! Values of read models, for every column type of PostgreSQL that can hold one.
//!
//! The server reports the type that it expects or returns for a value; this file converts the value to and
//! from the bytes of that type.

use annals_state::Value;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Encode, Postgres, Type, TypeInfo};
use uuid::Uuid;

/// Microseconds from 1970 to 2000, the epoch of PostgreSQL's times.
const EPOCH: i64 = 946_684_800_000_000;

/// Types by their object ids, which never change.
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const CHAR: u32 = 18;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const UNKNOWN: u32 = 705;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const VOID: u32 = 2278;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const JSONB: u32 = 3802;
}

pub(crate) fn number(info: &PgTypeInfo) -> u32 {
    info.oid().map_or(0, |oid| oid.0)
}

/// A value and the type that the server expects for it.
pub(crate) struct Cell<'a> {
    pub(crate) value: &'a Value,
    pub(crate) info: PgTypeInfo,
}

impl Type<Postgres> for Cell<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("text")
    }
}

impl Encode<'_, Postgres> for Cell<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let text = |kind| {
            matches!(kind, oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN | oid::JSON)
        };
        match (self.value, number(&self.info)) {
            (Value::Null, _) => return Ok(IsNull::Yes),
            (Value::Integer(number), oid::INT8) => buffer.extend_from_slice(&number.to_be_bytes()),
            (Value::Integer(number), oid::INT4) => {
                buffer.extend_from_slice(&i32::try_from(*number)?.to_be_bytes())
            }
            (Value::Integer(number), oid::INT2) => {
                buffer.extend_from_slice(&i16::try_from(*number)?.to_be_bytes())
            }
            (Value::Integer(number @ (0 | 1)), oid::BOOL) => buffer.push(u8::from(*number == 1)),
            (Value::Integer(number), oid::NUMERIC) => buffer.extend_from_slice(&numeric(*number)),
            (Value::Integer(micros), oid::TIMESTAMP | oid::TIMESTAMPTZ) => {
                let micros = micros.checked_sub(EPOCH).ok_or("a time that PostgreSQL does not have")?;
                buffer.extend_from_slice(&micros.to_be_bytes());
            }
            #[allow(clippy::cast_precision_loss, reason = "the column is not more exact")]
            (Value::Integer(number), oid::FLOAT8) => {
                buffer.extend_from_slice(&(*number as f64).to_be_bytes())
            }
            (Value::Integer(number), kind) if text(kind) => {
                buffer.extend_from_slice(number.to_string().as_bytes())
            }
            (Value::Real(number), oid::FLOAT8) => buffer.extend_from_slice(&number.to_be_bytes()),
            #[allow(clippy::cast_possible_truncation, reason = "the column is not more exact")]
            (Value::Real(number), oid::FLOAT4) => buffer.extend_from_slice(&(*number as f32).to_be_bytes()),
            (Value::Text(words), kind) if text(kind) => buffer.extend_from_slice(words.as_bytes()),
            (Value::Text(words), oid::JSONB) => {
                buffer.push(1); // The version of the format.
                buffer.extend_from_slice(words.as_bytes());
            }
            (Value::Text(words), oid::UUID) => buffer.extend_from_slice(Uuid::try_parse(words)?.as_bytes()),
            (Value::Blob(bytes), oid::BYTEA) => buffer.extend_from_slice(bytes),
            (Value::Blob(bytes), oid::UUID) => buffer.extend_from_slice(Uuid::from_slice(bytes)?.as_bytes()),
            (value, _) => {
                let (given, kind) = (kind_of(value), self.info.name().to_lowercase());
                let problem =
                    format!("PostgreSQL expects `{kind}` there and got {given}: cast it in the statement");
                return Err(problem.into());
            }
        }
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Integer(_) => "a whole number",
        Value::Real(_) => "a number with a fraction",
        Value::Text(_) => "text",
        Value::Blob(_) => "bytes",
    }
}

/// The value in these bytes.
///
/// # Errors
/// If the type is not supported.
pub(crate) fn read(value: &PgValueRef<'_>, info: &PgTypeInfo) -> Result<Value, BoxDynError> {
    let bytes = value.as_bytes()?;
    let words = || Ok::<_, BoxDynError>(Value::Text(std::str::from_utf8(bytes)?.to_owned()));
    let micros =
        || Ok::<_, BoxDynError>(Value::Integer(i64::from_be_bytes(bytes.try_into()?).saturating_add(EPOCH)));
    match number(info) {
        oid::VOID => Ok(Value::Null),
        oid::BOOL => Ok(Value::Integer(i64::from(bytes.first() == Some(&1)))),
        oid::INT8 => Ok(Value::Integer(i64::from_be_bytes(bytes.try_into()?))),
        oid::INT4 => Ok(Value::Integer(i32::from_be_bytes(bytes.try_into()?).into())),
        oid::INT2 => Ok(Value::Integer(i16::from_be_bytes(bytes.try_into()?).into())),
        oid::FLOAT8 => Ok(Value::Real(f64::from_be_bytes(bytes.try_into()?))),
        oid::FLOAT4 => Ok(Value::Real(f32::from_be_bytes(bytes.try_into()?).into())),
        oid::NUMERIC => decimal(bytes),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => micros(),
        oid::BYTEA => Ok(Value::Blob(bytes.to_vec())),
        oid::UUID => Ok(Value::Text(Uuid::from_slice(bytes)?.to_string())),
        oid::JSONB => Ok(Value::Text(std::str::from_utf8(bytes.get(1..).unwrap_or_default())?.to_owned())),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR | oid::UNKNOWN | oid::JSON => words(),
        _ => Err(format!("is of the type `{}`: cast it to text", info.name().to_lowercase()).into()),
    }
}

/// An exact number: the count of four-digit groups, the power of 10,000 of the first, the sign, the digits
/// after the point.
fn numeric(number: i64) -> Vec<u8> {
    let mut groups = Vec::new();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        groups.push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    let sign: u16 = if number < 0 { 0x4000 } else { 0 };
    let (count, weight) = (groups.len() as u16, (groups.len() as u16).saturating_sub(1));
    let head = [count, weight, sign, 0];
    head.into_iter().chain(groups.into_iter().rev()).flat_map(u16::to_be_bytes).collect()
}

fn decimal(bytes: &[u8]) -> Result<Value, BoxDynError> {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [_, weight, sign, scale, groups @ ..] = words.as_slice() else { return Err("is no number".into()) };
    let weight = i16::from_be_bytes(weight.to_be_bytes());
    let mut text = String::from(match sign {
        0 => "",
        0x4000 => "-",
        0xD000 => return Ok(Value::Real(f64::INFINITY)),
        0xF000 => return Ok(Value::Real(f64::NEG_INFINITY)),
        _ => return Ok(Value::Real(f64::NAN)),
    });
    let group = |power: i16| {
        let place = usize::try_from(i32::from(weight) - i32::from(power)).ok();
        place.and_then(|place| groups.get(place)).copied().unwrap_or(0)
    };
    for power in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", group(power)));
    }
    text.push('.');
    for power in 1..=i16::try_from(scale.div_ceil(4))? {
        text.push_str(&format!("{:04}", group(-power)));
    }
    Value::of_decimal(&text).ok_or_else(|| "is no number".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_survive_as_exact_ones() {
        for number in [0, 1, -1, 9_999, 10_000, 123_456_789, i64::MAX, i64::MIN] {
            assert_eq!(decimal(&numeric(number)).unwrap(), Value::Integer(number));
        }
    }

    #[test]
    fn fractions_are_read() {
        let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        assert_eq!(decimal(&bytes(&[2, 0, 0, 2, 12, 5000])).unwrap(), Value::Real(12.5));
        assert_eq!(decimal(&bytes(&[1, 0xFFFF, 0x4000, 2, 500])).unwrap(), Value::Real(-0.05));
        assert_eq!(decimal(&bytes(&[2, 1, 0, 2, 1, 2])).unwrap(), Value::Integer(10_002));
    }
}
