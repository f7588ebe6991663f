//! A query as a database can answer it from its indexes, whatever it believes of its tables.
//!
//! The alternatives of a query become arms. Each arm goes along one index that gives positions in order, and filters by
//! the rest: so it can stop at the limit, and no plan has to sort. An item with several types is an arm for each type
//! unless it has something rarer to go by. The positions of all arms are one ordered set.

use annals_core::{Query, QueryItem};

/// What a query means, as arms that are OR-ed; nothing if it means every event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant<'a> {
    /// The arms; none if every event is meant.
    pub arms: Vec<Arm<'a>>,
}

/// Events that have this property and all of these others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm<'a> {
    /// What is looked up in an index.
    pub by: Property<'a>,
    /// What must hold as well.
    pub filters: Vec<Property<'a>>,
}

/// Something that an event may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
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

impl<'a> Meant<'a> {
    /// What this query means.
    pub fn by(query: &'a Query) -> Self {
        if query.is_all() {
            return Self { arms: Vec::new() };
        }
        Self { arms: query.items.iter().flat_map(arms).collect() }
    }
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
        None if item.types.is_empty() => {
            category.map(|by| Arm { by, filters: Vec::new() }).collect()
        }
        None => {
            let filters: Vec<_> = category.collect();
            let types = item.types.iter().map(|name| Property::Type(name.as_str()));
            types.map(|by| Arm { by, filters: filters.clone() }).collect()
        }
    }
}
