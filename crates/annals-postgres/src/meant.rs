//! Queries in SQL: which positions an arm of a query gives.

use std::fmt::Write as _;

use annals_core::{Direction, Query};
use annals_sql::{Arm, Meant, Property};

/// The text of a statement and the texts that are bound to it, from `$N` on.
pub(crate) struct Matching {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

/// A value that is bound.
pub(crate) enum Value {
    Text(String),
    Texts(Vec<String>),
}

impl Matching {
    /// The positions between `$1` and `$2` that this query means, in this direction, at most `$3`. Its own values are
    /// bound from `$next` on; it has none if it means every event.
    pub(crate) fn of(query: &Query, direction: Direction, next: usize) -> Self {
        let Meant { arms } = Meant::by(query);
        let order = order(direction);
        let mut matching = Self { sql: "SELECT position FROM ".to_owned(), values: Vec::new() };
        if arms.is_empty() {
            matching.sql.push_str("events WHERE position BETWEEN $1 AND $2");
        } else {
            for (index, arm) in arms.iter().enumerate() {
                matching.sql.push_str(if index == 0 { "(" } else { " UNION " });
                matching.arm(arm, direction, next);
            }
            matching.sql.push_str(") AS arms");
        }
        let _ = write!(matching.sql, " ORDER BY position {order} LIMIT $3");
        matching
    }

    fn arm(&mut self, arm: &Arm<'_>, direction: Direction, next: usize) {
        let from = match arm.by {
            // The rest of a tag's event is needed only if there is something to filter by.
            Property::Tag(_) if arm.filters.is_empty() => "event_tags AS t",
            Property::Tag(_) => "event_tags AS t JOIN events AS e ON e.position = t.position",
            _ => "events AS e",
        };
        let place = if matches!(arm.by, Property::Tag(_)) { "t.position" } else { "e.position" };
        let _ = write!(self.sql, "(SELECT {place} FROM {from} WHERE {place} BETWEEN $1 AND $2 AND ");
        self.property(arm.by, true, next);
        for filter in &arm.filters {
            self.sql.push_str(" AND ");
            self.property(*filter, false, next);
        }
        let _ = write!(self.sql, " ORDER BY {place} {} LIMIT $3)", order(direction));
    }

    fn property(&mut self, property: Property<'_>, looked_up: bool, next: usize) {
        let place = next + self.values.len();
        let (sql, value) = match property {
            Property::Tag(tag) if looked_up => (format!("t.tag = ${place}"), tag),
            Property::Tag(tag) => (format!("e.tags ? ${place}"), tag),
            Property::Process(process) => (format!("e.process_id = ${place}"), process),
            Property::Initiator(initiator) => (format!("e.initiator = ${place}"), initiator),
            Property::Type(name) => (format!("e.event_type = ${place}"), name),
            Property::Category(category) => (format!("e.entity_type = ${place}"), category),
            Property::TypeOf(item) => {
                let _ = write!(self.sql, "e.event_type = ANY(${place})");
                let types = item.types.iter().map(|name| name.as_str().to_owned());
                self.values.push(Value::Texts(types.collect()));
                return;
            }
        };
        self.sql.push_str(&sql);
        self.values.push(Value::Text(value.to_owned()));
    }
}

/// The direction in SQL.
pub(crate) fn order(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "ASC",
        Direction::Backward => "DESC",
    }
}
