//! Values as literals of the type that the server expects. A literal means the same as the bytes that `value`
//! encodes, independent of `standard_conforming_strings`.

use std::fmt::Write as _;

use annals_state::Value;
use sqlx::postgres::PgTypeInfo;
use uuid::Uuid;

use crate::value::{number, oid};

const MICROS_OF_DAY: i64 = 86_400_000_000;

/// Writes a value as a literal of this type. Returns `false` if no literal is certain to mean the same; some
/// text may have been written then.
pub(crate) fn write(text: &mut String, value: &Value, info: &PgTypeInfo) -> bool {
    let kind = number(info);
    let is_text = matches!(kind, oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::JSON);
    let written = match (value, kind) {
        (Value::Null, _) => write!(text, "NULL"),
        (Value::Integer(number), oid::INT4) if i32::try_from(*number).is_err() => return false,
        (Value::Integer(number), oid::INT2) if i16::try_from(*number).is_err() => return false,
        (Value::Integer(number), oid::INT8 | oid::INT4 | oid::INT2 | oid::NUMERIC) => {
            write!(text, "'{number}'")
        }
        (Value::Integer(number @ (0 | 1)), oid::BOOL) => write!(text, "'{number}'"),
        (Value::Integer(micros), oid::TIMESTAMP | oid::TIMESTAMPTZ) => return write_time(text, *micros),
        #[allow(clippy::cast_precision_loss, reason = "the column is not more exact")]
        (Value::Integer(number), oid::FLOAT8) => write!(text, "'{:e}'", *number as f64),
        (Value::Integer(number), _) if is_text => write!(text, "'{number}'"),
        (Value::Real(number), oid::FLOAT8) if is_plain(*number) => write!(text, "'{number:e}'"),
        #[allow(clippy::cast_possible_truncation, reason = "the column is not more exact")]
        (Value::Real(number), oid::FLOAT4) if (*number as f32).is_normal() => {
            write!(text, "'{:e}'", *number as f32)
        }
        (Value::Text(words), kind) if is_text || kind == oid::JSONB => return write_text(text, words),
        (Value::Text(words), oid::UUID) => match Uuid::try_parse(words) {
            Ok(id) => write!(text, "'{id}'"),
            Err(_) => return false,
        },
        (Value::Blob(bytes), oid::UUID) => match Uuid::from_slice(bytes) {
            Ok(id) => write!(text, "'{id}'"),
            Err(_) => return false,
        },
        (Value::Blob(bytes), oid::BYTEA) => return write_bytes(text, bytes),
        _ => return false,
    };
    written.is_ok()
}

/// Neither negative zero, subnormal, infinite nor NaN.
fn is_plain(number: f64) -> bool {
    number.is_normal() || number.to_bits() == 0
}

/// A string in which a backslash is always an escape, independent of the settings.
fn write_text(text: &mut String, words: &str) -> bool {
    text.push_str("E'");
    for letter in words.chars() {
        match letter {
            // A NUL ends the text of a statement.
            '\0' => return false,
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            letter => text.push(letter),
        }
    }
    text.push('\'');
    true
}

fn write_bytes(text: &mut String, bytes: &[u8]) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push_str("E'\\\\x");
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.map(|digit| char::from(DIGITS[usize::from(digit)])));
    text.push('\'');
    true
}

/// A time of the years 1 to 9999.
fn write_time(text: &mut String, micros: i64) -> bool {
    let (days, of_day) = (micros.div_euclid(MICROS_OF_DAY), micros.rem_euclid(MICROS_OF_DAY));
    // Years begin in March, so that the leap day is the last day; an era is 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    if !(1..=9_999).contains(&year) {
        return false;
    }
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let time = format_args!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}");
    write!(text, "'{year:04}-{month:02}-{day:02} {time}+00'").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        let of = |micros| {
            let mut text = String::new();
            write_time(&mut text, micros).then_some(text)
        };
        for (micros, written) in [
            (0, "'1970-01-01 00:00:00.000000+00'"),
            (-1, "'1969-12-31 23:59:59.999999+00'"),
            (951_782_400_000_000, "'2000-02-29 00:00:00.000000+00'"),
            (4_107_542_399_999_999, "'2100-02-28 23:59:59.999999+00'"),
            (4_107_542_400_000_000, "'2100-03-01 00:00:00.000000+00'"),
            (-62_135_596_800_000_000, "'0001-01-01 00:00:00.000000+00'"),
        ] {
            assert_eq!(of(micros).as_deref(), Some(written));
        }
        for micros in [i64::MIN, i64::MAX, -62_135_596_800_000_001] {
            assert_eq!(of(micros), None, "{micros}");
        }
    }

    #[test]
    fn quotes_and_backslashes_are_doubled() {
        let mut text = String::new();
        assert!(write_text(&mut text, "it's \\' 한글"));
        assert_eq!(text, "E'it''s \\\\'' 한글'");
        assert!(!write_text(&mut text, "a\0b"), "a statement would end there");
        let mut bytes = String::new();
        assert!(write_bytes(&mut bytes, &[0, 255]));
        assert_eq!(bytes, "E'\\\\x00ff'");
    }
}
