//! A key, or an event id, that is used again: by the same append, which gets its original outcome, or by another
//! one, which is refused.
//!
//! A key stands for one append. A client that gives it to another one by mistake must not be answered as if its
//! events were written. So an append that was found to be a duplicate is compared with the events at the original
//! positions. Every store calls [`Appended::checked`] with the outcome of a duplicate, outside of its locks.

use crate::json::is_same_json;
use crate::{
    Append, Appended, Error, EventStore, IdempotencyKey, LogRead, Metadata, NewEvent, Position,
    RecordedEvent, Result, StreamId, Tag, Write,
};

/// What a used idempotency key means to an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyReuse {
    /// The append is refused with [`Error::Reused`], unless it is the same as the one that used the key: the same
    /// number of events with the same streams, types, content types, data, tags, times of occurrence and metadata
    /// (without the trace, which each attempt may have of its own), and the same ids where the caller gave them. Data
    /// that is JSON is the same if it means the same value.
    #[default]
    Refuse,
    /// The append gets the original outcome, whatever its events are. For callers whose key names a command, which
    /// may decide otherwise when it is repeated.
    Original,
}

/// Which key or ids an append has used again, and where they were used first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reused {
    /// The key; `None` if the append was found by the ids of its events.
    pub key: Option<IdempotencyKey>,
    /// Position of the first event of the original append.
    pub first: Position,
    /// Stream of that event.
    pub stream: StreamId,
    /// The part of the append that differs from the original one, as a path: `events[0].data`.
    pub field: String,
}

impl std::fmt::Display for Reused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key {
            Some(key) => write!(f, "the key `{key}` belongs to")?,
            None => f.write_str("the ids of these events belong to")?,
        }
        let Self { first, stream, field, .. } = self;
        write!(
            f,
            " the append at position {first} (stream `{stream}`), which is another one: {field} differs"
        )
    }
}

impl Appended {
    /// This outcome of an earlier append, if `append` is the same as that one or asks for the outcome in any case.
    /// For those who implement a store.
    ///
    /// # Errors
    /// [`Error::Reused`] if it is another append; otherwise as the store's reads.
    pub async fn checked<S: EventStore + ?Sized>(self, store: &S, append: &Append) -> Result<Self> {
        if append.key.is_some() && append.key_reuse == KeyReuse::Original {
            let page = store.read_log(LogRead::forward(self.first).limit(1)).await?;
            if page.events.first().is_some_and(|event| event.idempotency_key == append.key) {
                return Ok(self);
            }
        }
        let reused = |field: String, key: bool| {
            let key = append.key.clone().filter(|_| key);
            let stream = self.streams[0].0.clone();
            Error::Reused(Box::new(Reused { key, first: self.first, stream, field }))
        };
        if append.writes.len() as u64 != self.count() {
            return Err(reused("the number of events".to_owned(), true));
        }
        let (mut compared, mut by_key) = (0, false);
        while compared < append.writes.len() {
            let from = self.first.plus(compared as u64);
            let page = store.read_log(LogRead::forward(from).limit(append.writes.len() - compared)).await?;
            if page.events.is_empty() {
                return Err(Error::Unavailable(
                    format!("the event at position {from} cannot be read yet").into(),
                ));
            }
            for event in &page.events {
                by_key |= append.key.is_some() && event.idempotency_key == append.key;
                if let Some(field) = difference(&append.writes[compared], event) {
                    return Err(reused(format!("events[{compared}].{field}"), by_key));
                }
                compared += 1;
            }
        }
        Ok(self)
    }
}

/// The first part of the event that differs from the recorded one.
fn difference(write: &Write, recorded: &RecordedEvent) -> Option<&'static str> {
    let event = &write.event;
    let set = |tags: &[Tag]| {
        let mut tags = tags.to_vec();
        tags.sort();
        tags.dedup();
        tags
    };
    [
        ("stream", write.stream == recorded.stream),
        ("id", event.id == recorded.id || event.id.is_made()),
        ("type", event.event_type == recorded.event_type),
        ("schema_version", event.schema_version == recorded.schema_version),
        ("content_type", event.content_type == recorded.content_type),
        ("data", is_same_data(event, recorded)),
        ("tags", event.tags == recorded.tags || set(&event.tags) == set(&recorded.tags)),
        ("occurred_at", event.occurred_at == recorded.occurred_at),
        ("metadata", is_same_metadata(&event.metadata, &recorded.metadata)),
    ]
    .into_iter()
    .find(|(_, same)| !same)
    .map(|(field, _)| field)
}

/// Whether the data is the same: a client that repeats a request may write its JSON in another form.
fn is_same_data(event: &NewEvent, recorded: &RecordedEvent) -> bool {
    event.data == recorded.data || (event.content_type.is_json() && is_same_json(&event.data, &recorded.data))
}

/// Whether the metadata is the same. The trace belongs to the request, and a request that is repeated has another.
fn is_same_metadata(one: &Metadata, other: &Metadata) -> bool {
    let event = |metadata: &Metadata| {
        let Metadata { process, initiator, predecessor, trace: _, own } = metadata.clone();
        (process, initiator, predecessor, own)
    };
    event(one) == event(other)
}
