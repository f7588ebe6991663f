//! Statements as text, with their values: no statement of a store is prepared, so none counts against the
//! server's `max_prepared_stmt_count`, and each is one round trip.
//!
//! A value is written as a number or as hexadecimal digits, so it cannot be parsed as SQL.

use std::fmt::Write as _;

use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlConnection, MySqlRow};

/// A value of a statement.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(i64),
    /// Names and ids, which are stored as bytes.
    Bytes(Vec<u8>),
    /// JSON text.
    Json(String),
}

impl Value {
    /// A name.
    pub(crate) fn name(name: &str) -> Self {
        Self::Bytes(name.as_bytes().to_vec())
    }
}

/// The text with these values for `$1`, `$2`, ...; any other `$` is kept.
pub(crate) fn text(statement: &str, values: &[Value]) -> String {
    let mut text = String::with_capacity(statement.len());
    let mut pieces = statement.split('$');
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        match piece[..digits].parse::<usize>() {
            Ok(place) => write_value(&mut text, &values[place - 1]),
            Err(_) => text.push('$'),
        }
        text.push_str(&piece[digits..]);
    }
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) => write!(text, "{number}").expect("a text takes everything"),
        Value::Bytes(bytes) => write_hex(text, bytes),
        Value::Json(json) => {
            text.push_str("_utf8mb4 ");
            write_hex(text, json.as_bytes());
        }
    }
}

/// Writes bytes as a literal.
pub(crate) fn write_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push_str("x'");
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.map(|digit| char::from(DIGITS[usize::from(digit)])));
    text.push('\'');
}

/// The rows that a text of statements returns.
pub(crate) async fn rows(
    connection: &mut MySqlConnection,
    text: String,
) -> Result<Vec<MySqlRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_digits_and_a_path_of_json_stays() {
        let values = [Value::Number(-5), Value::name("a' OR $1"), Value::Json("[]".to_owned())];
        let sql = "SELECT $1, $2, JSON_TABLE($3, '$[*]' PATH '$')";
        let written = "SELECT -5, x'6127204f52202431', JSON_TABLE(_utf8mb4 x'5b5d', '$[*]' PATH '$')";
        assert_eq!(text(sql, &values), written);
    }
}
