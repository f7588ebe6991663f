//! Plans of queries: which index serves each alternative, and what is filtered, independently of the planner
//! of the database.
//!
//! The alternatives of a query become arms. Each arm scans one index that has positions in order, and filters
//! by the rest: so it stops at the limit, and no plan has to sort. An item with several types is an arm for
//! each of them, unless it has a more selective property. The positions of all arms are one ordered set.
//!
//! Knows no SQL: the stores translate the arms.

use annals_core::{Direction, EventId, Query, QueryItem};

/// Events that have one property and all of the others.
#[derive(Clone, Debug)]
pub struct Arm<'a> {
    /// What is looked up in an index.
    pub by: Property<'a>,
    /// What must hold as well.
    pub filters: Vec<Property<'a>>,
}

/// Something that an event may have.
#[derive(Clone, Copy, Debug)]
pub enum Property<'a> {
    /// This id.
    Id(EventId),
    /// This predecessor.
    Predecessor(&'a str),
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

/// The direction in SQL.
pub fn order(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "ASC",
        Direction::Backward => "DESC",
    }
}

/// The arms of a query that does not match every event.
pub fn arms(query: &Query) -> Vec<Arm<'_>> {
    query.items.iter().flat_map(of_item).collect()
}

/// The arms of one item. The property that is likely to be the most selective comes first.
fn of_item(item: &QueryItem) -> Vec<Arm<'_>> {
    let id = item.id.iter().map(|id| Property::Id(*id));
    let predecessor = item.predecessor.iter().map(|name| Property::Predecessor(name.as_str()));
    let tags = item.tags.iter().map(|tag| Property::Tag(tag.as_str()));
    let process = item.process.iter().map(|process| Property::Process(process.as_str()));
    let initiator = item.initiator.iter().map(|initiator| Property::Initiator(initiator.as_str()));
    let category = item.category.iter().map(|category| Property::Category(category.as_str()));
    let rare: Vec<_> = id.chain(predecessor).chain(tags).chain(process).chain(initiator).collect();
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
