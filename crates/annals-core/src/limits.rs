//! Limits on sizes. A request beyond a limit is refused with the limit in the message.

use std::collections::HashSet;

use crate::{Append, Condition, ContentType, Invalid, NewEvent, Query, Tag};

/// Limits on the size of an append and of a query. The lengths of names are fixed by their types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event: data, tags and metadata together. 16 MiB by default.
    pub event_bytes_max: usize,
    /// Bytes of one append: all of its events together. 64 MiB by default.
    pub append_bytes_max: usize,
    /// Events of one append. 65,536 by default.
    pub append_events_max: usize,
    /// Tags of one event. 64 by default.
    pub event_tags_max: usize,
    /// Bytes of one event's metadata, keys and values together. 64 KiB by default.
    pub metadata_bytes_max: usize,
    /// Conditions of one append. 1,024 by default.
    pub append_conditions_max: usize,
    /// Alternatives of one query. 128 by default.
    pub query_items_max: usize,
    /// Tags of one alternative of a query. 64 by default, as many as an event may have.
    pub query_item_tags_max: usize,
    /// Names of one read or one append: the types, tags, categories, processes, initiators, predecessors and
    /// ids of all of its queries together. 512 by default.
    pub query_names_max: usize,
    /// Bytes of these names together. 64 KiB by default.
    pub query_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes_max: 16 << 20,
            append_bytes_max: 64 << 20,
            append_events_max: 65_536,
            event_tags_max: 64,
            metadata_bytes_max: 64 << 10,
            append_conditions_max: 1_024,
            query_items_max: 128,
            query_item_tags_max: 64,
            query_names_max: 512,
            query_bytes_max: 64 << 10,
        }
    }
}

/// Longest process, initiator or predecessor, in bytes: they are indexed like names.
const CAUSE_BYTES_MAX: usize = 1_024;

/// Most different events that the conditions of one append may name as seen by the caller: each is read and
/// compared.
const SEEN_EVENTS_MAX: usize = 64;

/// The size of the queries of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QuerySize {
    names: usize,
    bytes: usize,
}

impl Append {
    /// Checks everything that needs no store: that there are events, that no stream is reserved for Annals,
    /// and that sizes are within the limits.
    ///
    /// # Errors
    /// [`Invalid`], naming the field.
    pub fn validate(&self, limits: &Limits) -> Result<(), Invalid> {
        limits.check(self)
    }
}

impl Limits {
    fn check(&self, append: &Append) -> Result<(), Invalid> {
        if append.writes.is_empty() {
            return Err(Invalid::new("events", "is empty: an append needs at least one event"));
        }
        let count = append.writes.len();
        if count > self.append_events_max {
            let problem = format!("has {count} events, the limit is {}", self.append_events_max);
            return Err(Invalid::new("events", problem));
        }
        let count = append.conditions.len();
        if count > self.append_conditions_max {
            let problem = format!("has {count} conditions, the limit is {}", self.append_conditions_max);
            return Err(Invalid::new("conditions", problem));
        }
        let (mut queries, mut seen) = (QuerySize::default(), HashSet::new());
        for (index, condition) in append.conditions.iter().enumerate() {
            if let Condition::NoMatch { query, after } = condition {
                self.check_query(&format!("conditions[{index}].query"), query, &mut queries)?;
                seen.extend(after.witness());
                if seen.len() > SEEN_EVENTS_MAX {
                    let problem = format!(
                        "is one more than the {SEEN_EVENTS_MAX} different events that conditions may name"
                    );
                    return Err(Invalid::new(format!("conditions[{index}].after"), problem));
                }
            }
        }
        let mut append_bytes = 0;
        for (index, write) in append.writes.iter().enumerate() {
            if write.stream.is_reserved() {
                let problem = format!("`{}` starts with `$`, which is reserved for Annals", write.stream);
                return Err(Invalid::new(format!("events[{index}].stream"), problem));
            }
            append_bytes += self.check_event(&write.event).map_err(|invalid| {
                let field = format!("events[{index}].{}", invalid.field);
                Invalid::new(field, invalid.problem)
            })?;
        }
        if append_bytes > self.append_bytes_max {
            let problem =
                format!("has {append_bytes} bytes, the limit of an append is {}", self.append_bytes_max);
            return Err(Invalid::new("events", problem));
        }
        Ok(())
    }

    /// Checks one query of a request; `total` is the size of the queries before it.
    pub(crate) fn check_query(
        &self,
        field: &str,
        query: &Query,
        total: &mut QuerySize,
    ) -> Result<(), Invalid> {
        let beyond = |field: String, count: usize, what: &str, limit: usize| {
            Err(Invalid::new(field, format!("has {count} {what}, the limit is {limit}")))
        };
        let items = query.items.len();
        if items > self.query_items_max {
            return beyond(format!("{field}.items"), items, "alternatives", self.query_items_max);
        }
        for (index, item) in query.items.iter().enumerate() {
            let tags = item.tags.len();
            if tags > self.query_item_tags_max {
                let field = format!("{field}.items[{index}].tags");
                return beyond(field, tags, "tags", self.query_item_tags_max);
            }
            for (name, text) in [
                ("process", &item.process),
                ("initiator", &item.initiator),
                ("predecessor", &item.predecessor),
            ] {
                if let Some(text) = text {
                    let field = format!("{field}.items[{index}].{name}");
                    crate::name::check_name(&field, text, CAUSE_BYTES_MAX)?;
                }
            }
            for bytes in item.names().map(str::len).chain(item.id.map(|id| id.as_bytes().len())) {
                total.names += 1;
                total.bytes += bytes;
            }
        }
        if total.names > self.query_names_max {
            let what = "names of types, tags, categories, processes, initiators, predecessors and ids in all of the request's queries";
            return beyond(field.to_owned(), total.names, what, self.query_names_max);
        }
        if total.bytes > self.query_bytes_max {
            let what = "bytes of names in all of the request's queries";
            return beyond(field.to_owned(), total.bytes, what, self.query_bytes_max);
        }
        Ok(())
    }

    /// Checks one event and returns its size.
    fn check_event(&self, event: &NewEvent) -> Result<usize, Invalid> {
        if event.tags.len() > self.event_tags_max {
            let problem = format!("has {} tags, the limit is {}", event.tags.len(), self.event_tags_max);
            return Err(Invalid::new("tags", problem));
        }
        let metadata = &event.metadata;
        let mut metadata_bytes = metadata.trace.as_ref().map_or(0, |trace| trace.len());
        for (field, value) in [
            ("metadata.process", &metadata.process),
            ("metadata.initiator", &metadata.initiator),
            ("metadata.predecessor", &metadata.predecessor),
        ] {
            if let Some(value) = value {
                crate::name::check_name(field, value, CAUSE_BYTES_MAX)?;
                metadata_bytes += value.len();
            }
        }
        metadata_bytes += metadata.own.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if metadata_bytes > self.metadata_bytes_max {
            let problem = format!("has {metadata_bytes} bytes, the limit is {}", self.metadata_bytes_max);
            return Err(Invalid::new("metadata", problem));
        }
        for text in metadata.own.keys().chain(metadata.own.values()).chain(&metadata.trace) {
            if text.contains('\0') {
                return Err(Invalid::new("metadata", "contains a NUL character"));
            }
        }
        if let ContentType::Other(name) = &event.content_type {
            crate::name::check_name("content_type", name, 256)?;
        }
        let tag_bytes: usize = event.tags.iter().map(|tag: &Tag| tag.as_str().len()).sum();
        let event_bytes = event.data.len() + metadata_bytes + tag_bytes;
        if event_bytes > self.event_bytes_max {
            let problem =
                format!("makes an event of {event_bytes} bytes, the limit is {}", self.event_bytes_max);
            return Err(Invalid::new("data", problem));
        }
        Ok(event_bytes)
    }
}
