//! Queries in SQL: the positions that a query means, so that an index answers it whatever the database believes of its
//! tables.
//!
//! The alternatives of a query become arms. Each arm goes along one index that gives positions in order, and filters by
//! the rest: so it stops at the limit, and no plan has to sort. An item with several types is an arm for each of them,
//! unless it has something rarer to go by. The positions of all arms are one ordered set.
//!
//! Places for values are written `$1`, `$2`, ... as PostgreSQL has them, and may come more than once.

use std::fmt::Write as _;

use annals_core::{Direction, Query, QueryItem};

/// The text of a statement that gives positions, and the values that it has beside `$1` to `$3`.
#[derive(Clone, Debug)]
pub struct Matching {
    /// The statement.
    pub sql: String,
    /// The values, from the place on that was asked for; none if every event is meant.
    pub values: Vec<String>,
}

/// Whether the database is told which index to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// It finds it by itself.
    None,
    /// MariaDB and MySQL would go through an index from where the type begins, and not from the position.
    Force,
}

impl Matching {
    /// The positions between `$1` and `$2` that this query means, in this direction, at most `$3`. Its own values are
    /// bound from `$next` on; it has none if it means every event.
    pub fn of(query: &Query, direction: Direction, next: usize, hints: Hints) -> Self {
        let order = order(direction);
        let mut matching = Self { sql: "SELECT position FROM ".to_owned(), values: Vec::new() };
        if query.is_all() {
            matching.sql.push_str("events WHERE position BETWEEN $1 AND $2");
        } else {
            for (index, arm) in query.items.iter().flat_map(arms).enumerate() {
                matching.sql.push_str(if index == 0 { "(" } else { " UNION " });
                matching.arm(&arm, direction, next, hints);
            }
            matching.sql.push_str(") AS arms");
        }
        let _ = write!(matching.sql, " ORDER BY position {order} LIMIT $3");
        matching
    }

    fn arm(&mut self, arm: &Arm<'_>, direction: Direction, next: usize, hints: Hints) {
        let from = match arm.by {
            // The rest of a tag's event is needed only if there is something to filter by.
            Property::Tag(_) if arm.filters.is_empty() => "event_tags AS t",
            Property::Tag(_) => "event_tags AS t JOIN events AS e ON e.position = t.position",
            _ => "events AS e",
        };
        let hint = match (hints, arm.by) {
            (Hints::None, _) | (_, Property::Tag(_)) => "",
            (_, Property::Process(_)) => " FORCE INDEX (events_by_process)",
            (_, Property::Initiator(_)) => " FORCE INDEX (events_by_initiator)",
            (_, Property::Type(_) | Property::TypeOf(_)) => " FORCE INDEX (events_by_type)",
            (_, Property::Category(_)) => " FORCE INDEX (events_by_category)",
        };
        let place = if matches!(arm.by, Property::Tag(_)) { "t.position" } else { "e.position" };
        let _ = write!(self.sql, "(SELECT {place} FROM {from}{hint} WHERE {place} BETWEEN $1 AND $2 AND ");
        self.property(arm.by, true, next);
        for filter in &arm.filters {
            self.sql.push_str(" AND ");
            self.property(*filter, false, next);
        }
        let _ = write!(self.sql, " ORDER BY {place} {} LIMIT $3)", order(direction));
    }

    fn property(&mut self, property: Property<'_>, looked_up: bool, next: usize) {
        let (before, values, after) = match property {
            Property::Tag(tag) if looked_up => ("t.tag IN (", vec![tag], ")"),
            Property::Tag(tag) => (
                "EXISTS (SELECT 1 FROM event_tags AS x WHERE x.position = e.position AND x.tag IN (",
                vec![tag],
                "))",
            ),
            Property::Process(process) => ("e.process_id IN (", vec![process], ")"),
            Property::Initiator(initiator) => ("e.initiator IN (", vec![initiator], ")"),
            Property::Type(name) => ("e.event_type IN (", vec![name], ")"),
            Property::TypeOf(item) => {
                ("e.event_type IN (", item.types.iter().map(|name| name.as_str()).collect(), ")")
            }
            Property::Category(category) => ("e.entity_type IN (", vec![category], ")"),
        };
        self.sql.push_str(before);
        for (index, value) in values.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(self.sql, "{comma}${}", next + self.values.len());
            self.values.push(value.to_owned());
        }
        self.sql.push_str(after);
    }
}

/// The direction in SQL.
pub fn order(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "ASC",
        Direction::Backward => "DESC",
    }
}

/// Events that have this property and all of these others.
struct Arm<'a> {
    /// What is looked up in an index.
    by: Property<'a>,
    /// What must hold as well.
    filters: Vec<Property<'a>>,
}

/// Something that an event may have.
#[derive(Clone, Copy)]
enum Property<'a> {
    /// This tag, among others.
    Tag(&'a str),
    /// This process.
    Process(&'a str),
    /// This initiator.
    Initiator(&'a str),
    /// This type.
    Type(&'a str),
    /// One of the types of this item.
    TypeOf(&'a QueryItem),
    /// A stream of this category.
    Category(&'a str),
}

/// The arms of one item. What is likely to be rarest comes first.
fn arms(item: &QueryItem) -> Vec<Arm<'_>> {
    let tags = item.tags.iter().map(|tag| Property::Tag(tag.as_str()));
    let process = item.process.iter().map(|process| Property::Process(process.as_str()));
    let initiator = item.initiator.iter().map(|initiator| Property::Initiator(initiator.as_str()));
    let category = item.category.iter().map(|category| Property::Category(category.as_str()));
    let rare: Vec<_> = tags.chain(process).chain(initiator).collect();
    match rare.split_first() {
        Some((&by, rest)) => {
            let types = (!item.types.is_empty()).then_some(Property::TypeOf(item));
            let filters = rest.iter().copied().chain(types).chain(category).collect();
            vec![Arm { by, filters }]
        }
        None if item.types.is_empty() => category.map(|by| Arm { by, filters: Vec::new() }).collect(),
        None => {
            let filters: Vec<_> = category.collect();
            let types = item.types.iter().map(|name| Property::Type(name.as_str()));
            types.map(|by| Arm { by, filters: filters.clone() }).collect()
        }
    }
}
