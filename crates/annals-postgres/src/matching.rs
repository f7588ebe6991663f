//! Queries in SQL: the positions of the events that match.
//!
//! The text does not depend on the names or their number: they are one value, a JSON array of arms, so that there are few
//! statements to prepare and to plan. Each arm is looked up separately in its index (`LATERAL`, `LIMIT`).

use annals_core::{Direction, Position, Query};
use annals_sql::{Arm, Property, arms, order};
use serde_json::{Map, Value, json};

/// The text of a statement that gives positions, and its one value.
pub(crate) struct Matching {
    pub(crate) sql: String,
    pub(crate) arms: String,
}

/// The kinds of arms: the name of the kind, the table and the condition.
const KINDS: [(&str, &str, &str); 8] = [
    // The event of a tag is read only if there are filters.
    ("tag alone", "event_tags AS e", "e.tag = i.name"),
    ("tag", "event_tags AS t JOIN events AS e ON e.position = t.position", "t.tag = i.name"),
    ("process", "events AS e", "e.process_id = i.name"),
    ("initiator", "events AS e", "e.initiator = i.name"),
    ("type", "events AS e", "e.event_type = i.name"),
    ("category", "events AS e", "e.entity_type = i.name"),
    // As in the index, which contains only events with a predecessor.
    (
        "predecessor",
        "events AS e",
        "e.triggering_event COLLATE \"C\" = i.name AND e.triggering_event IS NOT NULL",
    ),
    // The index of ids is not in the order of positions: without the optimization fence (`OFFSET`) the planner would scan
    // the table in that order.
    ("id", "(SELECT * FROM events AS x WHERE x.event_id = i.id OFFSET 0) AS e", "true"),
];

const FILTERS: &str = "
    AND (i.types IS NULL OR e.event_type = ANY (i.types)) AND (i.category IS NULL OR e.entity_type = i.category)
    AND (i.id IS NULL OR e.event_id = i.id)
    AND (i.predecessor IS NULL OR e.triggering_event COLLATE \"C\" = i.predecessor)
    AND (i.process IS NULL OR e.process_id = i.process) AND (i.initiator IS NULL OR e.initiator = i.initiator)
    AND (i.tags IS NULL OR NOT EXISTS (
        SELECT FROM unnest(i.tags) AS w (tag)
        WHERE NOT EXISTS (SELECT FROM event_tags AS x WHERE x.tag = w.tag AND x.position = e.position)
    ))";

impl Matching {
    /// The positions between `$2` and `$3` that match this query, in this direction, at most `$4`. The arms are `$6`.
    /// `None` if the query matches every event.
    pub(crate) fn page(query: &Query, direction: Direction) -> Option<Self> {
        if query.is_all() {
            return None;
        }
        let arms: Vec<_> = arms(query).iter().map(|arm| of_arm(arm, Map::new())).collect();
        let order = order(direction);
        let found = looked_up(&arms, "$6", "BETWEEN $2 AND $3", order, "$4");
        let sql =
            format!("SELECT DISTINCT position FROM ({found}) AS found ORDER BY position {order} LIMIT $4");
        Some(Self { sql, arms: Value::from(arms).to_string() })
    }

    /// The first match of each query after its position, with the number of the query. The arms are `$1`. `None` if there
    /// is nothing to look up.
    pub(crate) fn first(queries: &[(usize, &Query, Position)]) -> Option<Self> {
        let of_query = |(number, query, after): &(usize, &Query, Position)| {
            let after = i64::try_from(after.get()).unwrap_or(i64::MAX);
            let own =
                Map::from_iter([("query".to_owned(), json!(number)), ("after".to_owned(), json!(after))]);
            arms(query).iter().map(|arm| of_arm(arm, own.clone())).collect::<Vec<_>>()
        };
        let arms: Vec<_> = queries.iter().flat_map(of_query).collect();
        if arms.is_empty() {
            return None;
        }
        let found = looked_up(&arms, "$1", "> i.after", "ASC", "1");
        let sql = format!("SELECT query, min(position) FROM ({found}) AS found GROUP BY query");
        Some(Self { sql, arms: Value::from(arms).to_string() })
    }
}

/// The positions of all arms.
fn looked_up(arms: &[Value], place: &str, range: &str, order: &str, limit: &str) -> String {
    let is_there = |kind: &str| arms.iter().any(|arm| arm["kind"] == kind);
    let kinds = KINDS.iter().filter(|(kind, ..)| is_there(kind)).map(|(kind, from, holds)| {
        let table = if *kind == "tag" { "t" } else { "e" };
        let filters = if *kind == "tag alone" { "" } else { FILTERS };
        format!(
            "SELECT i.query, m.position FROM jsonb_to_recordset({place}::text::jsonb) AS i (
                kind text, name text, query bigint, after bigint, tags text[], types text[], category text, process text,
                initiator text, id uuid, predecessor text)
            CROSS JOIN LATERAL (
                SELECT {table}.position FROM {from}
                WHERE {holds} AND {table}.position {range}{filters}
                ORDER BY {table}.position {order} LIMIT {limit}
            ) AS m
            WHERE i.kind = '{kind}'"
        )
    });
    kinds.collect::<Vec<_>>().join(" UNION ALL ")
}

/// An arm as JSON, with additional fields.
fn of_arm(arm: &Arm<'_>, mut own: Map<String, Value>) -> Value {
    let (kind, name) = match arm.by {
        Property::Tag(tag) if arm.filters.is_empty() => ("tag alone", tag),
        Property::Tag(tag) => ("tag", tag),
        Property::Process(process) => ("process", process),
        Property::Initiator(initiator) => ("initiator", initiator),
        Property::Type(name) => ("type", name),
        Property::Category(category) => ("category", category),
        Property::Predecessor(predecessor) => ("predecessor", predecessor),
        Property::Id(id) => {
            own.insert("id".to_owned(), id.to_string().into());
            ("id", "")
        }
        Property::TypeOf(_) => unreachable!("several types are no way into an index"),
    };
    own.insert("kind".to_owned(), kind.into());
    own.insert("name".to_owned(), name.into());
    let mut tags = Vec::new();
    for filter in &arm.filters {
        match *filter {
            Property::Tag(tag) => tags.push(tag),
            Property::Process(process) => drop(own.insert("process".to_owned(), process.into())),
            Property::Initiator(initiator) => drop(own.insert("initiator".to_owned(), initiator.into())),
            Property::Category(category) => drop(own.insert("category".to_owned(), category.into())),
            Property::Id(id) => drop(own.insert("id".to_owned(), id.to_string().into())),
            Property::Predecessor(name) => drop(own.insert("predecessor".to_owned(), name.into())),
            Property::Type(name) => drop(own.insert("types".to_owned(), json!([name]))),
            Property::TypeOf(item) => {
                let types = item.types.iter().map(|name| name.as_str());
                own.insert("types".to_owned(), Value::from_iter(types));
            }
        }
    }
    if !tags.is_empty() {
        own.insert("tags".to_owned(), tags.into());
    }
    Value::Object(own)
}
