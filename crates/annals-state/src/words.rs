//! Parts of statements that differ between databases.

use crate::Dialect;

/// The name of a schema in a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An insert that does not change an existing row with the same key; `key` is a column of that key.
pub(crate) fn insert_unless_there(dialect: Dialect, what: &str, key: &str) -> String {
    match dialect {
        // `INSERT IGNORE` would also truncate values that are too long.
        Dialect::MySql => format!("INSERT INTO {what} ON DUPLICATE KEY UPDATE {key} = {key}"),
        _ => format!("INSERT INTO {what} ON CONFLICT DO NOTHING"),
    }
}
