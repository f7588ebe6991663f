//! Tables of a projection that could lose rows which its checkpoint covers: tables of storage engines without
//! transactions, unlogged and temporary ones.

use crate::Dialect;

/// The statement that finds such tables in the schema `?1`: their names and what they are.
pub fn tables(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MySql => {
            "SELECT t.table_name, CONCAT('of the engine ', t.engine) FROM information_schema.tables AS t
            WHERE t.table_schema = ?1 AND t.table_type = 'BASE TABLE' AND t.engine NOT IN (
                SELECT e.engine FROM information_schema.engines AS e WHERE e.transactions = 'YES')
            ORDER BY t.table_name"
        }
        // Sequences too: one that is set back returns numbers twice.
        _ => {
            "SELECT c.relname::text, CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'temporary' END
            FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 'p'
                AND (n.nspname = ?1 OR c.relnamespace = pg_my_temp_schema())
            ORDER BY c.relname"
        }
    }
}

/// The first temporary table that a definition makes: MariaDB and MySQL do not list them.
pub fn temporary(dialect: Dialect, definition: &str) -> Option<String> {
    let words = dialect.words(definition);
    let is =
        |at: usize, word: &str| words.get(at).is_some_and(|found: &&str| found.eq_ignore_ascii_case(word));
    (0..words.len()).find_map(|at| {
        let after_create = if is(at + 1, "OR") && is(at + 2, "REPLACE") { at + 3 } else { at + 1 };
        let makes = is(at, "CREATE") && (is(after_create, "TEMPORARY") || is(after_create, "TEMP"));
        if !makes || !(is(after_create + 1, "TABLE") || is(after_create + 1, "SEQUENCE")) {
            return None;
        }
        let unless = is(after_create + 2, "IF");
        let name = words.get(after_create + if unless { 5 } else { 2 })?;
        Some(name.trim_matches(['"', '`']).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(definition: &str) -> Option<String> {
        temporary(Dialect::MySql, definition)
    }

    #[test]
    fn temporary_tables_are_seen_in_a_definition() {
        for definition in [
            "CREATE TABLE a (b INT); create temporary table c(d INT)",
            "CREATE OR REPLACE TEMPORARY TABLE IF NOT EXISTS \"c\" (d INT)",
            "CREATE/* for now */TEMPORARY\n-- for now\nTABLE `c` (d INT)",
            "CREATE TEMPORARY SEQUENCE c",
            "/*!50000 CREATE TEMPORARY TABLE c (d INT) */",
            "/*M! CREATE */ TEMPORARY TABLE c (d INT)",
            "INSERT INTO a VALUES ('it''s --'); CREATE TEMPORARY TABLE c (d INT)",
        ] {
            assert_eq!(found(definition).as_deref(), Some("c"), "{definition}");
        }
    }

    #[test]
    fn what_is_commented_or_quoted_makes_no_table() {
        for definition in [
            "-- CREATE TEMPORARY TABLE a\nCREATE TABLE temporary_table (a INT)",
            "# CREATE TEMPORARY TABLE a\nCREATE TABLE a (a INT)",
            "/* not a\n CREATE TEMPORARY TABLE c */ CREATE TABLE c (a INT)",
            "CREATE TABLE a (b TEXT COMMENT 'from CREATE TEMPORARY TABLE c')",
            "CREATE TABLE \"CREATE TEMPORARY TABLE c\" (a INT)",
            "CREATE TABLE a (\"create\" INT, temporary INT)",
        ] {
            assert_eq!(found(definition), None, "{definition}");
        }
    }
}
