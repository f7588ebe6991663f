//! Queries: events selected by id, predecessor, category, type, tag, process and initiator.

use crate::{Category, EventId, EventType, RecordedEvent, Tag, Text};

/// A selection of events. The items are OR-ed; a query without items matches every event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    /// An event matches if any of these matches it.
    pub items: Vec<QueryItem>,
}

/// One alternative of a [`Query`]. All given fields must hold; an item without fields matches every event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct QueryItem {
    /// The event's stream is of this category.
    pub category: Option<Category>,
    /// The event is of one of these types; of any type if the list is empty.
    pub types: Vec<EventType>,
    /// The event has all of these tags.
    pub tags: Vec<Tag>,
    /// The event belongs to this process.
    pub process: Option<Text>,
    /// The event was started by this initiator.
    pub initiator: Option<Text>,
    /// The event has this id. Ids are unique in a stream: events of several streams may have the same one.
    pub id: Option<EventId>,
    /// The event was caused by this event or message: the predecessor in its [`Metadata`](crate::Metadata).
    pub predecessor: Option<Text>,
}

impl Query {
    /// Every event.
    pub fn all() -> Self {
        Self::default()
    }

    /// The events that match this one item.
    pub fn item(item: QueryItem) -> Self {
        Self { items: vec![item] }
    }

    /// Events of streams of this category.
    pub fn category(category: Category) -> Self {
        Self::item(QueryItem { category: Some(category), ..QueryItem::default() })
    }

    /// Events of any of these types.
    pub fn types(types: impl IntoIterator<Item = EventType>) -> Self {
        Self::item(QueryItem { types: types.into_iter().collect(), ..QueryItem::default() })
    }

    /// Events that have all of these tags.
    pub fn tags(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self::item(QueryItem { tags: tags.into_iter().collect(), ..QueryItem::default() })
    }

    /// Events with this id: at most one of each stream.
    pub fn id(id: EventId) -> Self {
        Self::item(QueryItem { id: Some(id), ..QueryItem::default() })
    }

    /// Events that were caused by this: the id of an event or of a message.
    pub fn predecessor(predecessor: impl Into<Text>) -> Self {
        Self::item(QueryItem { predecessor: Some(predecessor.into()), ..QueryItem::default() })
    }

    /// The events of either query.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        if self.is_all() || other.is_all() {
            return Self::all();
        }
        self.items.extend(other.items);
        self
    }

    /// Whether every event matches.
    pub fn is_all(&self) -> bool {
        self.items.is_empty() || self.items.iter().any(QueryItem::is_all)
    }

    /// Whether this recorded event matches.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        self.items.is_empty() || self.items.iter().any(|item| item.matches(event))
    }
}

impl QueryItem {
    /// Whether every event matches.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The names that an event must have; its id is not a name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let types = self.types.iter().map(|name| name.as_str());
        let tags = self.tags.iter().map(|tag| tag.as_str());
        let category = self.category.iter().map(|category| category.as_str());
        let causes =
            self.process.iter().chain(&self.initiator).chain(&self.predecessor).map(|text| text.as_str());
        types.chain(tags).chain(category).chain(causes)
    }

    /// Whether this recorded event matches.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        let body = event.body();
        let is = |wanted: &Option<Text>, text: Option<&[u8]>| {
            wanted.as_ref().is_none_or(|wanted| text == Some(wanted.as_bytes()))
        };
        self.category.as_ref().is_none_or(|category| event.category() == category.as_str())
            && (self.types.is_empty() || self.types.iter().any(|name| *name == event.event_type()))
            && self.tags.iter().all(|tag| body.tags().any(|name| name == tag.as_str().as_bytes()))
            && is(&self.process, body.process)
            && is(&self.initiator, body.initiator)
            && is(&self.predecessor, body.predecessor)
            && self.id.is_none_or(|wanted| event.id() == wanted)
    }
}
