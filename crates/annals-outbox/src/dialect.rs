//! The SQL dialects. A statement is written once, with these placeholders where the databases differ:
//!
//! | written | means |
//! |---|---|
//! | `?` | the next value |
//! | `@now` | the time now, by the clock of the database |
//! | `@later` | the time now and a value, in microseconds |
//! | `@micros(x)` | a time as microseconds since 1970 |
//! | `@id` | a value that is an id |
//! | `@text(x)` | an id as text |
//! | `@pending` | after `outbox o`: a hint to use the index of pending messages, whatever the planner estimates |
//! | `@aggregate` | after `UPDATE outbox`: a hint to use the index of aggregates, so that no row of another one is locked |
//! | `outbox` | the name of the table, with which the names of all others begin |

/// The SQL dialect of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "a build may have some of them only")]
pub(crate) enum Dialect {
    Postgres,
    MySql,
    Sqlite,
}

impl Dialect {
    /// Translates a statement for this database and the outbox of this name.
    pub(crate) fn spell(self, name: &str, statement: &str) -> String {
        let [now, later, micros, id, text, pending, aggregate] = match self {
            Self::Postgres => [
                "now()",
                "now() + ? * interval '1 microsecond'",
                "(extract(epoch FROM {}) * 1000000)::bigint",
                "CAST(? AS uuid)",
                "CAST({} AS text)",
                // PostgreSQL has no hints; with `ORDER BY o.held` only this index has the right order.
                "",
                "",
            ],
            Self::MySql => [
                "UTC_TIMESTAMP(6)",
                "TIMESTAMPADD(MICROSECOND, ?, UTC_TIMESTAMP(6))",
                "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {})",
                "?",
                "{}",
                "FORCE INDEX (outbox_pending)",
                "FORCE INDEX (outbox_sequence)",
            ],
            Self::Sqlite => [
                "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
                "CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?",
                "{}",
                "?",
                "{}",
                "INDEXED BY outbox_pending",
                "",
            ],
        };
        let spelt = around(&around(statement, "@micros(", micros), "@text(", text);
        let spelt = spelt.replace("@now", now).replace("@later", later).replace("@id", id);
        let spelt = spelt.replace("@pending", pending).replace("@aggregate", aggregate);
        self.numbered(&spelt.replace("outbox", name))
    }

    /// Numbers the values, if this is PostgreSQL.
    fn numbered(self, statement: &str) -> String {
        if self != Self::Postgres {
            return statement.to_owned();
        }
        let mut parts = statement.split('?');
        let mut numbered = parts.next().unwrap_or_default().to_owned();
        for (index, part) in parts.enumerate() {
            numbered.push_str(&format!("${}{part}", index + 1));
        }
        numbered
    }
}

/// Replaces each `begin … )` by `form`, with the text in between for `{}`.
fn around(statement: &str, begin: &str, form: &str) -> String {
    let mut parts = statement.split(begin);
    let mut spelt = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inner, rest) = part.split_once(')').expect("what is opened is closed");
        spelt.push_str(&form.replace("{}", inner));
        spelt.push_str(rest);
    }
    spelt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_spelt_for_each_database() {
        let statement =
            "SELECT @text(id), @micros(o.at) FROM outbox_x WHERE id = @id AND at < @later AND n = ?";
        assert_eq!(
            Dialect::Postgres.spell("shop", statement),
            "SELECT CAST(id AS text), (extract(epoch FROM o.at) * 1000000)::bigint FROM shop_x \
             WHERE id = CAST($1 AS uuid) AND at < now() + $2 * interval '1 microsecond' AND n = $3"
        );
        assert_eq!(
            Dialect::MySql.spell("shop", statement),
            "SELECT id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', o.at) FROM shop_x \
             WHERE id = ? AND at < TIMESTAMPADD(MICROSECOND, ?, UTC_TIMESTAMP(6)) AND n = ?"
        );
        let sqlite = Dialect::Sqlite.spell("shop", statement);
        assert!(sqlite.starts_with("SELECT id, o.at FROM shop_x WHERE id = ? AND at < CAST("), "{sqlite}");
    }
}
