//! Queries in SQL: the positions of the events that match.
//!
//! Each arm is a `SELECT` along its index, with a limit. The statement names the index, because the database
//! might otherwise scan an index from the beginning of a type, not from the position. Further conditions are
//! looked up for each event as a scalar subquery: `EXISTS` would become part of the plan, and planning takes
//! unbounded time and memory when there are many.

use annals_core::{Direction, Position, Query};
use annals_sql::{Arm, Property, arms, order};

use crate::statement::write_hex;

/// The positions between `$2` and `$3` that match this query, in this direction, at most `$4`. `None` if the
/// query matches every event.
pub(crate) fn page(query: &Query, direction: Direction) -> Option<String> {
    let order = order(direction);
    let arms = union(query, "BETWEEN $2 AND $3", order, "$4")?;
    Some(format!("SELECT position FROM ({arms}) AS arms ORDER BY position {order} LIMIT $4"))
}

/// The first match of each query after its position, with the number of the query: texts of at most
/// `text_max` bytes, unless a single query needs more.
pub(crate) fn first_of_all(queries: &[(usize, &Query, Position)], text_max: usize) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for (number, query, after) in queries {
        let after = i64::try_from(after.get()).unwrap_or(i64::MAX);
        let Some(arms) = union(query, &format!("> {after}"), "ASC", "1") else { continue };
        let first =
            format!("SELECT {number} AS number, position FROM ({arms}) AS arms ORDER BY position LIMIT 1");
        match texts.last_mut() {
            Some(text) if text.len() + first.len() < text_max => {
                text.push_str(";\n");
                text.push_str(&first);
            }
            _ => texts.push(first),
        }
    }
    texts
}

fn union(query: &Query, range: &str, order: &str, limit: &str) -> Option<String> {
    if query.is_all() {
        return None;
    }
    let arms = arms(query);
    Some(arms.iter().map(|arm| select(arm, range, order, limit)).collect::<Vec<_>>().join(" UNION "))
}

fn select(arm: &Arm<'_>, range: &str, order: &str, limit: &str) -> String {
    let (from, place) = match arm.by {
        // In this index the few events of an id are not in the order of positions: they are sorted.
        Property::Id(_) => ("events AS e FORCE INDEX (events_id)", "e.position"),
        Property::Predecessor(_) => ("events AS e FORCE INDEX (events_by_predecessor)", "e.position"),
        // The event of a tag is read only if there are filters.
        Property::Tag(_) if arm.filters.is_empty() => ("event_tags AS t", "t.position"),
        Property::Tag(_) => ("event_tags AS t JOIN events AS e ON e.position = t.position", "t.position"),
        Property::Process(_) => ("events AS e FORCE INDEX (events_by_process)", "e.position"),
        Property::Initiator(_) => ("events AS e FORCE INDEX (events_by_initiator)", "e.position"),
        Property::Type(_) | Property::TypeOf(_) => ("events AS e FORCE INDEX (events_by_type)", "e.position"),
        Property::Category(_) => ("events AS e FORCE INDEX (events_by_category)", "e.position"),
    };
    let mut sql = format!("(SELECT {place} FROM {from} WHERE {place} {range} AND ");
    match arm.by {
        Property::Tag(tag) => equals(&mut sql, "t.tag", tag),
        other => filter(&mut sql, other),
    }
    for property in &arm.filters {
        sql.push_str(" AND ");
        filter(&mut sql, *property);
    }
    sql.push_str(&format!(" ORDER BY {place} {order} LIMIT {limit})"));
    sql
}

fn filter(sql: &mut String, property: Property<'_>) {
    match property {
        Property::Tag(tag) => {
            sql.push_str("(SELECT 1 FROM event_tags AS x WHERE ");
            equals(sql, "x.tag", tag);
            sql.push_str(" AND x.position = e.position) = 1");
        }
        Property::Id(id) => {
            sql.push_str("e.event_id = ");
            write_hex(sql, id.as_bytes());
        }
        Property::Predecessor(predecessor) => equals(sql, "e.predecessor", predecessor),
        Property::Process(process) => equals(sql, "e.process_id", process),
        Property::Initiator(initiator) => equals(sql, "e.initiator", initiator),
        Property::Type(name) => equals(sql, "e.event_type", name),
        Property::Category(category) => equals(sql, "e.entity_type", category),
        Property::TypeOf(item) => {
            sql.push_str("e.event_type IN (");
            for (index, name) in item.types.iter().enumerate() {
                sql.push_str(if index == 0 { "" } else { ", " });
                write_hex(sql, name.as_str().as_bytes());
            }
            sql.push(')');
        }
    }
}

fn equals(sql: &mut String, column: &str, name: &str) {
    sql.push_str(column);
    sql.push_str(" = ");
    write_hex(sql, name.as_bytes());
}
