//! Queued statements, whose results are not needed: several are sent as one text, in one round trip.
//!
//! - U1  A statement becomes text only after the server has prepared it on this connection: then it is a
//!       single statement, with as many placeholders as counted here. A statement with `;` or with an
//!       executable comment is never sent as text.
//! - U2  A value becomes a literal only if the literal means the same as the value sent separately. Numbers
//!       are digits, bytes are hexadecimal digits, and quotes in text are doubled. The meaning of a backslash
//!       depends on `sql_mode`, so a text that has one sets the mode first. A statement with a number that
//!       has no such literal is sent separately.
//! - U3  A text is smaller than half of `max_allowed_packet`. A single larger statement is sent as a prepared
//!       statement.

use std::fmt::Write as _;

use annals_state::{Fault, Queued, Value};
use sqlx::{AssertSqlSafe, Executor};

use super::run;
use crate::error::fault;
use crate::session::{Connected, SQL_MODE};
use crate::statement::write_hex;

/// Most bytes of one text.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most statements that a connection remembers.
const CHECKED_MAX: usize = 256;
/// A longer statement is sent separately and is not remembered: it has many rows already.
const STATEMENT_BYTES_MAX: usize = 16 << 10;

/// A text under construction.
#[derive(Default)]
struct Text {
    sql: String,
    has_backslash: bool,
}

/// Executes the statements in order.
pub(crate) async fn run_all(connection: &mut Connected, statements: &[Queued]) -> Result<(), Fault> {
    let bytes_max = (connection.packet / 2).min(TEXT_BYTES_MAX);
    let mut text = Text::default();
    for queued in statements {
        let sql = queued.statement.sql.as_str();
        let checked = connection.checked.get(sql).copied();
        if checked == Some(true) && literals(queued) {
            let one = written(queued);
            if one.sql.len() < bytes_max {
                if text.sql.len() + one.sql.len() >= bytes_max {
                    send(connection, &mut text).await?;
                }
                text.has_backslash |= one.has_backslash;
                text.sql.push_str(&one.sql);
                continue;
            }
        }
        send(connection, &mut text).await?;
        run(connection, sql, &queued.marked()).await?;
        if checked.is_none() && sql.len() <= STATEMENT_BYTES_MAX {
            if connection.checked.len() >= CHECKED_MAX {
                connection.checked.clear();
            }
            connection.checked.insert(sql.to_owned(), may_be_part(sql));
        }
    }
    send(connection, &mut text).await
}

async fn send(connection: &mut Connected, text: &mut Text) -> Result<(), Fault> {
    let Text { mut sql, has_backslash } = std::mem::take(text);
    if sql.is_empty() {
        return Ok(());
    }
    // The last one without its `;`, after which the server would expect another statement.
    sql.truncate(sql.len() - SEPARATOR.len());
    if has_backslash {
        sql.insert_str(0, &format!("SET {SQL_MODE};\n"));
    }
    connection.execute(AssertSqlSafe(sql)).await.map(drop).map_err(fault)
}

/// On a line of its own, because the statement may end with a comment.
const SEPARATOR: &str = "\n;\n";

/// Whether a statement that the server has prepared may be part of a text with others.
fn may_be_part(sql: &str) -> bool {
    !["/*!", "/*M!", ";"].iter().any(|mark| sql.contains(mark))
}

/// Whether all of its values have literals.
fn literals(queued: &Queued) -> bool {
    queued.values.iter().all(|value| match value {
        // Negative zero, subnormal numbers, infinity and NaN: the meaning of their literals depends on the
        // server.
        Value::Real(number) => number.is_normal() || number.to_bits() == 0,
        Value::Null | Value::Integer(_) | Value::Text(_) | Value::Blob(_) => true,
    })
}

fn written(queued: &Queued) -> Text {
    let statement = &*queued.statement;
    let mut text = Text { sql: String::with_capacity(statement.sql.len() * 2), has_backslash: false };
    let mut from = 0;
    for (mark, place) in statement.marks.iter().zip(&statement.places) {
        text.sql.push_str(&statement.sql[from..*mark]);
        write_value(&mut text, &queued.values[*place]);
        from = mark + "?".len();
    }
    text.sql.push_str(&statement.sql[from..]);
    text.sql.push_str(SEPARATOR);
    text
}

/// Writes a literal as a separate token, whatever precedes it.
fn write_value(text: &mut Text, value: &Value) {
    let sql = &mut text.sql;
    // Two minus signs and a blank begin a comment.
    let is_after_minus = sql.ends_with("--");
    sql.push(if is_after_minus { '(' } else { ' ' });
    let done = match value {
        Value::Null => write!(sql, "NULL"),
        Value::Integer(number) if *number < 0 => write!(sql, "({number})"),
        Value::Integer(number) => write!(sql, "{number}"),
        // Without an exponent it would be an exact number.
        Value::Real(number) if *number < 0.0 => write!(sql, "({number:e})"),
        Value::Real(number) => write!(sql, "{number:e}"),
        Value::Text(words) => {
            text.has_backslash |= words.contains('\\');
            // A string in the character set and collation of the connection, like a value that is sent
            // separately.
            write!(sql, "'{}'", words.replace('\'', "''"))
        }
        Value::Blob(bytes) => {
            // Without `_binary`, the digits would be a number in a numeric context.
            sql.push_str("_binary ");
            write_hex(sql, bytes);
            Ok(())
        }
    };
    done.expect("a text takes everything");
    sql.push(if is_after_minus { ')' } else { ' ' });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use annals_state::Dialect;

    use super::*;

    fn of(sql: &str, values: Vec<Value>) -> Queued {
        Queued { statement: Arc::new(Dialect::MySql.translate(sql, values.len()).unwrap()), values }
    }

    #[test]
    fn values_are_literals() {
        let values = vec![
            Value::Integer(-5),
            Value::Text("it's \\ ?2".to_owned()),
            Value::Blob(vec![0, 255]),
            Value::Real(2.0),
            Value::Null,
        ];
        let text = written(&of("INSERT INTO `?1` VALUES (?2, ?1, 5-?1, ?3, ?4,?5) -- ?1", values));
        let expected = "INSERT INTO `?1` VALUES ( 'it''s \\ ?2' ,  (-5) , 5- (-5) ,  _binary x'00ff' ,  2e0 , NULL ) -- ?1";
        assert_eq!(text.sql, format!("{expected}{SEPARATOR}"));
        assert!(text.has_backslash);
    }

    #[test]
    fn what_may_be_several_statements_is_no_part_of_a_text() {
        for sql in [
            "INSERT INTO t VALUES (1); COMMIT",
            "INSERT INTO t VALUES (1) /*! + 1 */",
            "SELECT 1 /*M! , 2 */",
        ] {
            assert!(!may_be_part(sql), "{sql}");
        }
        assert!(may_be_part("INSERT INTO t VALUES (1) -- one"));
    }

    #[test]
    fn a_value_after_a_minus_begins_no_comment() {
        let text = written(&of("SELECT 5--?1, 5-?1", vec![Value::Integer(2)]));
        assert_eq!(text.sql, format!("SELECT 5--(2), 5- 2 {SEPARATOR}"));
    }

    #[test]
    fn numbers_that_literals_do_not_keep_go_alone() {
        for number in [-0.0, f64::NAN, f64::INFINITY, 5e-324] {
            assert!(!literals(&of("SELECT ?1", vec![Value::Real(number)])), "{number}");
        }
        assert!(literals(&of("SELECT ?1, ?2", vec![Value::Real(0.0), Value::Real(-1.5e300)])));
    }
}
