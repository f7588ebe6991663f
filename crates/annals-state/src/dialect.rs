//! The SQL of users, which is written once, and how it differs between databases.
//!
//! - W1  Values are `?1`, `?2`, … everywhere. Quoted text and comments are not changed, nor is a `?` without
//!       a number, which is an operator in PostgreSQL.
//! - W2  Only statements that read or change rows are accepted. None of them begins or ends a transaction,
//!       not even implicitly, as `CREATE TABLE` does in MariaDB and MySQL.
//!
//! Knows the syntax of the databases, and no statement.

use std::fmt;

/// The SQL dialect of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// SQLite: beside an embedded log.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MariaDB and MySQL.
    MySql,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MariaDB or MySQL",
        })
    }
}

/// Most values of a statement, by the protocols of PostgreSQL, MariaDB and MySQL. One that is named twice
/// counts twice.
const VALUES_MAX: usize = 65_535;

/// What a statement may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Read rows.
    Read,
    /// Read and change rows.
    Write,
}

/// A statement in the dialect of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// The text.
    pub sql: String,
    /// The values that it takes, in order, as indexes from 0 into those that are given.
    pub places: Vec<usize>,
    /// Where each of their marks begins in the text.
    pub marks: Vec<usize>,
}

impl Dialect {
    /// The statement with the placeholders of this database instead of `?1`, `?2`, …, for that many values.
    ///
    /// # Errors
    /// A message, if it names other values than it is given.
    pub fn translate(self, sql: &str, values: usize) -> Result<Translated, String> {
        let mut translated = Translated::default();
        translated.sql.reserve(sql.len() + 8);
        let (mut rest, mut most) = (sql, 0);
        while !rest.is_empty() {
            let verbatim = self.verbatim(rest, translated.sql.chars().next_back());
            if verbatim > 0 {
                translated.sql.push_str(&rest[..verbatim]);
                rest = &rest[verbatim..];
                continue;
            }
            let number = rest.strip_prefix('?').map_or("", |behind| {
                let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
                &behind[..digits]
            });
            if number.is_empty() {
                let next = rest.chars().next().map_or(0, char::len_utf8);
                translated.sql.push_str(&rest[..next]);
                rest = &rest[next..];
                continue;
            }
            let number: usize = number.parse().unwrap_or(usize::MAX);
            if number == 0 || number > values {
                return Err(format!("`{sql}` names ?{number} but {values} values are given"));
            }
            most = most.max(number);
            self.mark(&mut translated, number);
            rest = rest[1..].trim_start_matches(|c: char| c.is_ascii_digit());
        }
        if most < values {
            return Err(format!("`{sql}` names {most} values, as ?1, ?2, …, but {values} are given"));
        }
        if self == Self::MySql && self.orders_by_a_value(&translated.sql) {
            return Err(format!(
                "`{sql}` has a value as a term of ORDER BY or GROUP BY. A value is the same for all rows, and {self} \
                 does not take it there: write the column"
            ));
        }
        if self == Self::Sqlite {
            translated.places = (0..values).collect();
        } else if translated.places.len() > VALUES_MAX {
            return Err(format!(
                "`{}…` names {} values, and {self} takes at most {VALUES_MAX} in a statement: write fewer rows by each",
                sql.chars().take(60).collect::<String>(),
                translated.places.len()
            ));
        }
        Ok(translated)
    }

    fn mark(self, translated: &mut Translated, number: usize) {
        translated.marks.push(translated.sql.len());
        match self {
            Self::Sqlite => translated.sql.push_str(&format!("?{number}")),
            Self::Postgres => {
                // Each placeholder has its own type, even for the same value.
                translated.places.push(number - 1);
                translated.sql.push_str(&format!("${}", translated.places.len()));
            }
            Self::MySql => {
                translated.places.push(number - 1);
                translated.sql.push('?');
            }
        }
    }

    /// Whether a term of `ORDER BY` or `GROUP BY` is made of values alone. MySQL drops such a term with its
    /// values when it prepares the statement, and the driver waits for their descriptions; written as a
    /// literal, a value is the number of a column.
    fn orders_by_a_value(self, sql: &str) -> bool {
        /// Words after a whole term.
        const NEXT: [&str; 14] = [
            "", "ASC", "DESC", "HAVING", "WITH", "WINDOW", "ORDER", "LIMIT", "UNION", "INTO", "FOR", "LOCK",
            "ROWS", "RANGE",
        ];
        // Nearly no statement of a projection has any of them, and each is translated whenever it is
        // executed.
        if !sql.as_bytes().windows(2).any(|two| two.eq_ignore_ascii_case(b"BY")) {
            return false;
        }
        let mut plain = String::with_capacity(sql.len());
        let mut rest = sql;
        while let Some(next) = rest.chars().next() {
            let verbatim = self.verbatim(rest, None);
            // A comment separates words; what is quoted is an operand.
            match (verbatim, next) {
                (0, next) => plain.push(next.to_ascii_uppercase()),
                (_, '\'' | '"' | '`') => plain.push('Q'),
                _ => plain.push(' '),
            }
            rest = &rest[verbatim.max(next.len_utf8())..];
        }
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '@' | '.');
        let is_value = |term: &str| {
            let word = term.find(|c: char| is_word(c) && !c.is_ascii_digit()).unwrap_or(term.len());
            let (values, behind) = (term[..word].trim_end(), &term[word..]);
            let next = behind.split(|c: char| !is_word(c)).next().unwrap_or_default();
            values.contains('?') && values.ends_with(['?', ')']) && NEXT.contains(&next)
        };
        let is_by = |before: &str| {
            let before = before.trim_end();
            let word = before.rsplit(|c: char| !is_word(c)).next().unwrap_or_default();
            matches!(word, "ORDER" | "GROUP" | "PARTITION")
        };
        plain.match_indices("BY").any(|(at, by)| {
            let behind = &plain[at + by.len()..];
            if behind.starts_with(is_word)
                || !plain[..at].ends_with(char::is_whitespace)
                || !is_by(&plain[..at])
            {
                return false;
            }
            let (mut depth, mut begin) = (0_u32, 0);
            for (end, next) in behind.char_indices() {
                match next {
                    '(' => depth += 1,
                    ')' if depth == 0 => return is_value(&behind[begin..end]),
                    ')' => depth -= 1,
                    ',' if depth == 0 => {
                        if is_value(&behind[begin..end]) {
                            return true;
                        }
                        begin = end + 1;
                    }
                    _ => {}
                }
            }
            is_value(&behind[begin..])
        })
    }

    /// The words of some statements, without what is commented. A string or a quoted name is a word, with its
    /// quotes.
    pub fn words(self, sql: &str) -> Vec<&str> {
        let (mut words, mut rest, mut before) = (Vec::new(), sql, None);
        while let Some(next) = rest.chars().next() {
            let executed = if self == Self::MySql { executed(rest) } else { 0 };
            let verbatim = if executed > 0 { executed } else { self.verbatim(rest, before) };
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '@');
            let length = match verbatim {
                0 => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                verbatim => verbatim,
            };
            let is_comment = verbatim > 0 && !matches!(next, '\'' | '"' | '`' | '$');
            if length > 0 && !is_comment {
                words.push(&rest[..length]);
            }
            let taken = length.max(next.len_utf8());
            before = rest[..taken].chars().next_back();
            rest = &rest[taken..];
        }
        words
    }

    /// How many bytes at the beginning of this are quoted or commented.
    fn verbatim(self, sql: &str, before: Option<char>) -> usize {
        let until =
            |end: &str, from: usize| sql[from..].find(end).map_or(sql.len(), |at| from + at + end.len());
        let bytes = sql.as_bytes();
        match bytes[0] {
            b'\'' if self == Self::Postgres && matches!(before, Some('e' | 'E')) => escaped(sql),
            quote @ (b'\'' | b'"' | b'`') => until(&char::from(quote).to_string(), 1),
            // MariaDB takes it for two signs of minus if nothing blank follows.
            b'-' if sql.starts_with("--")
                && (self != Self::MySql || bytes.get(2).is_none_or(u8::is_ascii_whitespace)) =>
            {
                until("\n", 2)
            }
            b'#' if self == Self::MySql => until("\n", 1),
            b'/' if sql.starts_with("/*") => comment(sql, self == Self::Postgres),
            b'$' if self == Self::Postgres && !before.is_some_and(|c| c.is_alphanumeric() || c == '_') => {
                let tag = sql[1..]
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .map_or(sql.len(), |at| at + 1);
                let is_tag = bytes.get(tag) == Some(&b'$') && !bytes[1].is_ascii_digit();
                if is_tag { until(&sql[..=tag], tag + 1) } else { 0 }
            }
            _ => 0,
        }
    }

    /// Returns a message if this statement is not accepted.
    pub fn refuses(self, sql: &str, allowed: Allowed) -> Option<String> {
        let mut rest = sql;
        let begins = loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
            match rest.chars().next() {
                // MariaDB and MySQL execute the text of these comments.
                _ if self == Self::MySql && executed(rest) > 0 => break "",
                Some('-' | '/' | '#') => match self.verbatim(rest, None) {
                    0 => break "",
                    comment => rest = &rest[comment..],
                },
                _ => break rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default(),
            }
        };
        let (reads, writes) =
            (["SELECT", "WITH", "VALUES"], ["INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"]);
        let is_one = |words: &[&str]| words.iter().any(|word| begins.eq_ignore_ascii_case(word));
        match allowed {
            _ if is_one(&reads) => None,
            Allowed::Write if is_one(&writes) => None,
            Allowed::Write => Some(format!(
                "`{sql}` is not for here: a projection reads and changes rows; transactions are the framework's, and \
                 tables are made by its SCHEMA"
            )),
            Allowed::Read => Some(format!("`{sql}` is not for here: a view only reads")),
        }
    }
}

/// How long the beginning of a comment is whose text MariaDB or MySQL executes; 0 if this is none.
fn executed(sql: &str) -> usize {
    let mark = ["/*!", "/*M!"].into_iter().find(|mark| sql.starts_with(mark));
    mark.map_or(0, |mark| mark.len() + sql[mark.len()..].bytes().take_while(u8::is_ascii_digit).count())
}

/// How long a string is in which a backslash escapes.
fn escaped(sql: &str) -> usize {
    let (mut bytes, mut skipped) = (sql.bytes().enumerate().skip(1), false);
    bytes
        .find(|(_, byte)| {
            let ends = !skipped && *byte == b'\'';
            skipped = !skipped && *byte == b'\\';
            ends
        })
        .map_or(sql.len(), |(at, _)| at + 1)
}

/// How long a comment is that begins here.
fn comment(sql: &str, nested: bool) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < sql.len() {
        let rest = &sql.as_bytes()[at..];
        if rest.starts_with(b"/*") && (nested || depth == 0) {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    sql.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_marked_as_each_database_wants() {
        let sql = "UPDATE t SET a = a + ?2, b = ?2 WHERE id = ?1";
        let of = |dialect: Dialect| dialect.translate(sql, 2).unwrap();
        assert_eq!(of(Dialect::Sqlite).sql, sql);
        assert_eq!(of(Dialect::Postgres).sql, "UPDATE t SET a = a + $1, b = $2 WHERE id = $3");
        assert_eq!(of(Dialect::Postgres).places, [1, 1, 0]);
        assert_eq!(of(Dialect::MySql).sql, "UPDATE t SET a = a + ?, b = ? WHERE id = ?");
        assert_eq!(of(Dialect::MySql).places, [1, 1, 0]);
        let marked = of(Dialect::MySql);
        assert!(marked.marks.iter().all(|at| marked.sql[*at..].starts_with('?')), "{:?}", marked.marks);
        assert_eq!(marked.marks.len(), 3);
        let many = "SELECT ?10, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9";
        let many = Dialect::Postgres.translate(many, 10).unwrap();
        assert!(many.sql.starts_with("SELECT $1, $2, ") && many.places.starts_with(&[9, 0, 1]));
    }

    #[test]
    fn what_is_quoted_or_commented_is_left() {
        for (dialect, sql, translated) in [
            (Dialect::Postgres, "SELECT '?1', 'it''s ?1', ?1", "SELECT '?1', 'it''s ?1', $1"),
            (Dialect::Postgres, r"SELECT E'\'?1', '\', ?1", r"SELECT E'\'?1', '\', $1"),
            (Dialect::Postgres, "SELECT \"?1\", ?1 -- ?1\n, ?1", "SELECT \"?1\", $1 -- ?1\n, $2"),
            (Dialect::Postgres, "SELECT $$ ?1 $$, $a$ ?1 $$ $a$, ?1", "SELECT $$ ?1 $$, $a$ ?1 $$ $a$, $1"),
            (Dialect::Postgres, "/* /* ?1 */ ?1 */ SELECT ?1", "/* /* ?1 */ ?1 */ SELECT $1"),
            (Dialect::Postgres, "SELECT tags ? 'a' AND n = ?1", "SELECT tags ? 'a' AND n = $1"),
            (Dialect::Postgres, "SELECT '한글 ?1', ?1", "SELECT '한글 ?1', $1"),
            (Dialect::MySql, "SELECT `?1`, '\\', ?1 # ?1", "SELECT `?1`, '\\', ? # ?1"),
            (Dialect::MySql, "/* /* ?1 */ SELECT 5--?1 -- ?1", "/* /* ?1 */ SELECT 5--? -- ?1"),
            (Dialect::MySql, "SELECT '?1 unended, ?1", "SELECT '?1 unended, ?1"),
        ] {
            let values = usize::from(sql != translated);
            assert_eq!(dialect.translate(sql, values).unwrap().sql, translated);
        }
    }

    #[test]
    fn a_value_as_a_term_of_an_order_is_refused_where_the_database_does_not_take_it() {
        for sql in [
            "SELECT a FROM t ORDER BY ?1",
            "SELECT a FROM t WHERE b > 1 order  by a, ?1 desc",
            "SELECT a FROM t ORDER BY ?1 /* x */ LIMIT 3",
            "SELECT a FROM t ORDER BY -?1, a",
            "SELECT a FROM t ORDER BY (?1)",
            "SELECT MAX(a) FROM t GROUP BY ?1",
            "SELECT MAX(a) FROM t GROUP BY b, ?1 HAVING MAX(a) > 1",
            "INSERT INTO u SELECT a FROM (SELECT a FROM t ORDER BY ?1) AS s",
        ] {
            let refused = Dialect::MySql.translate(sql, 1).unwrap_err();
            assert!(refused.contains("write the column") && refused.contains(sql), "{refused}");
            assert!(Dialect::Postgres.translate(sql, 1).is_ok(), "{sql}");
            assert!(Dialect::Sqlite.translate(sql, 1).is_ok(), "{sql}");
        }
        for sql in [
            "SELECT a FROM t ORDER BY a LIMIT ?1",
            "SELECT a FROM t ORDER BY a = ?1 DESC, a",
            "SELECT a FROM t ORDER BY ?1 + a",
            "SELECT a FROM t ORDER BY ?1 IN (a, b)",
            "SELECT a FROM t ORDER BY FIELD(a, ?1, 'x')",
            "SELECT a FROM t ORDER BY CASE WHEN a > ?1 THEN a ELSE b END",
            "SELECT a FROM t ORDER BY `?1`, ABS(a - ?1)",
            "SELECT a FROM t WHERE 'ORDER BY ?1' = ?1",
            "SELECT a FROM reorder_by WHERE standby = ?1",
            "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b), ?1 FROM t",
            "SELECT (SELECT a FROM t ORDER BY a), ?1 FROM t",
        ] {
            assert!(Dialect::MySql.translate(sql, 1).is_ok(), "{sql}");
        }
    }

    #[test]
    fn other_values_than_are_named_are_refused() {
        for (sql, values) in
            [("SELECT ?2", 1), ("SELECT ?0", 1), ("SELECT ?1", 2), ("SELECT ?", 1), ("SELECT 1", 1)]
        {
            for dialect in [Dialect::Postgres, Dialect::MySql] {
                let refused = dialect.translate(sql, values).unwrap_err();
                assert!(refused.contains(sql), "{refused}");
            }
        }
    }

    #[test]
    fn more_values_than_a_statement_takes_are_refused_in_few_words() {
        let marks =
            |count: usize| (1..=count).map(|number| format!("?{number}")).collect::<Vec<_>>().join(",");
        for dialect in [Dialect::Postgres, Dialect::MySql] {
            assert!(dialect.translate(&format!("SELECT {}", marks(65_535)), 65_535).is_ok());
            let refused = dialect.translate(&format!("SELECT {}", marks(65_536)), 65_536).unwrap_err();
            assert!(refused.contains("names 65536 values") && refused.len() < 250, "{refused}");
        }
    }

    #[test]
    fn an_executable_comment_does_not_begin_a_statement() {
        for sql in ["/*! CREATE TABLE t AS */ SELECT 1", "-- x\n/*M!100000 COMMIT */ SELECT 1"] {
            for allowed in [Allowed::Read, Allowed::Write] {
                assert!(Dialect::MySql.refuses(sql, allowed).is_some(), "{sql}");
                assert_eq!(Dialect::Postgres.refuses(sql, allowed), None, "{sql}");
            }
        }
    }

    #[test]
    fn only_rows_are_read_and_changed() {
        for dialect in [Dialect::Postgres, Dialect::MySql] {
            for sql in [
                "select 1",
                " (SELECT 1) UNION (SELECT 2)",
                "-- x\nWITH a AS (SELECT 1) SELECT 1",
                "/* x */ SELECT 1",
            ] {
                assert_eq!(dialect.refuses(sql, Allowed::Read), None, "{sql}");
                assert_eq!(dialect.refuses(sql, Allowed::Write), None, "{sql}");
            }
            for sql in ["INSERT INTO t VALUES (1)", "update t set a = 1", "DELETE FROM t"] {
                assert_eq!(dialect.refuses(sql, Allowed::Write), None, "{sql}");
                assert!(dialect.refuses(sql, Allowed::Read).is_some(), "{sql}");
            }
            for sql in [
                "COMMIT",
                "/* SELECT */ ROLLBACK",
                "SAVEPOINT a",
                "CREATE TABLE t (a INT)",
                "",
                "-",
                "SET x = 1",
            ] {
                assert!(dialect.refuses(sql, Allowed::Write).is_some(), "{sql}");
            }
        }
    }
}
