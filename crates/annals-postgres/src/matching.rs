//! Queries in SQL: the positions of the events that match.
//!
//! The text does not depend on the names or their number: they are one value, a JSON array of arms, so that
//! there are few statements to prepare and to plan. Each arm is looked up separately in its index (`LATERAL`,
//! `LIMIT`).

use annals_core::{Direction, Position, Query};
use annals_sql::{Arm, Property, arms, order};
use serde_json::{Map, Value, json};

/// The text of a statement that gives positions, and its one value.
pub(crate) struct Matching {
    pub(crate) sql: String,
    pub(crate) arms: String,
}

/// A kind of arm: how its events are found in an index of a property and the position.
struct Kind {
    name: &'static str,
    from: &'static str,
    /// The table of the index.
    table: &'static str,
    /// The property, the first column of the index.
    property: &'static str,
    /// The condition of a partial index, or empty.
    only: &'static str,
}

const fn kind(name: &'static str, property: &'static str, only: &'static str) -> Kind {
    Kind { name, from: "events AS e", table: "e", property, only }
}

/// The kinds of arms but that of ids.
const KINDS: [Kind; 7] = [
    // The event of a tag is read only if there are filters.
    Kind { from: "event_tags AS e", ..kind("tag alone", "e.tag", "") },
    Kind {
        from: "event_tags AS t JOIN events AS e ON e.position = t.position",
        table: "t",
        ..kind("tag", "t.tag", "")
    },
    kind("process", "e.process_id", "e.process_id IS NOT NULL AND "),
    kind("initiator", "e.initiator", "e.initiator IS NOT NULL AND "),
    kind("type", "e.event_type", ""),
    kind("category", "e.entity_type", ""),
    kind("predecessor", "e.triggering_event COLLATE \"C\"", "e.triggering_event IS NOT NULL AND "),
];

/// The positions after the lower bound and up to the upper one.
struct Range {
    lower: &'static str,
    /// The comparison with the lower bound.
    comparison: &'static str,
    upper: &'static str,
}

impl Kind {
    /// The positions of an arm in this range, in this order. Written so that the only index in the order of
    /// the result is that of the property. With `property = name ORDER BY position` the planner may choose
    /// the index of positions and read the whole log: when all events that it knows of have one and the same
    /// value of the property, it expects every event to match.
    fn positions(&self, range: &Range, order: &str, limit: &str) -> String {
        let Self { name, from, table, property, only } = self;
        let Range { lower, comparison, upper } = range;
        let filters = if *name == "tag alone" { "" } else { FILTERS };
        format!(
            "SELECT {table}.position FROM {from}
            WHERE {only}({property}, {table}.position) {comparison} (i.name, {lower})
                AND ({property}, {table}.position) <= (i.name, {upper}){filters}
            ORDER BY {property} {order}, {table}.position {order} LIMIT {limit}"
        )
    }
}

/// The events of an id in a range, one for each stream at most. The index of ids is not in the order of
/// positions: without the optimization fence (`OFFSET`) the planner would scan the table in that order.
fn of_id(range: &Range, order: &str, limit: &str) -> String {
    let Range { lower, comparison, upper } = range;
    format!(
        "SELECT e.position FROM (SELECT * FROM events AS x WHERE x.event_id = i.id OFFSET 0) AS e
        WHERE e.position {comparison} {lower} AND e.position <= {upper}{FILTERS}
        ORDER BY e.position {order} LIMIT {limit}"
    )
}

/// The conditions on the other properties of an arm.
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
    /// The positions between `$2` and `$3` that match this query, in this direction, at most `$4`. The arms
    /// are `$6`. `None` if the query matches every event.
    pub(crate) fn page(query: &Query, direction: Direction) -> Option<Self> {
        if query.is_all() {
            return None;
        }
        let arms: Vec<_> = arms(query).iter().map(|arm| of_arm(arm, Map::new())).collect();
        let order = order(direction);
        let range = Range { lower: "$2", comparison: ">=", upper: "$3" };
        let found = looked_up(&arms, "$6", &range, order, "$4");
        let sql =
            format!("SELECT DISTINCT position FROM ({found}) AS found ORDER BY position {order} LIMIT $4");
        Some(Self { sql, arms: Value::from(arms).to_string() })
    }

    /// The first match of each query after its position, with the number of the query. The arms are `$1`.
    /// `None` if there is nothing to look up.
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
        let range = Range { lower: "i.after", comparison: ">", upper: "9223372036854775807" };
        let found = looked_up(&arms, "$1", &range, "ASC", "1");
        let sql = format!("SELECT query, min(position) FROM ({found}) AS found GROUP BY query");
        Some(Self { sql, arms: Value::from(arms).to_string() })
    }
}

/// The positions of all arms.
fn looked_up(arms: &[Value], place: &str, range: &Range, order: &str, limit: &str) -> String {
    let of_kinds = KINDS.iter().map(|kind| (kind.name, kind.positions(range, order, limit)));
    let all = of_kinds.chain([("id", of_id(range, order, limit))]);
    let is_there = |kind: &str| arms.iter().any(|arm| arm["kind"] == kind);
    let looked_up = all.filter(|(kind, _)| is_there(kind)).map(|(kind, positions)| {
        format!(
            "SELECT i.query, m.position FROM jsonb_to_recordset({place}::text::jsonb) AS i (
                kind text, name text, query bigint, after bigint, tags text[], types text[], category text, process text,
                initiator text, id uuid, predecessor text)
            CROSS JOIN LATERAL ({positions}) AS m
            WHERE i.kind = '{kind}'"
        )
    });
    looked_up.collect::<Vec<_>>().join(" UNION ALL ")
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
