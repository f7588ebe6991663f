//! A reused key or event id: the same append gets its original outcome, and another append is refused.
//!
//! A key identifies one append. If a client reuses it for another one by mistake, the response must not look
//! as if the new events were written. So an append that was found to be a duplicate is compared with the
//! events at the original positions. Every store calls [`Appended::checked`] with the outcome of a duplicate,
//! outside its locks.

use std::collections::BTreeSet;

use crate::json::is_same_json;
use crate::{
    Append, Appended, Error, EventStore, KeyReuse, LogRead, Metadata, NewEvent, RecordedEvent, Result,
    Reused, Tag, Write,
};

impl Appended {
    /// Returns this outcome of an earlier append, if `append` equals that append or requests the outcome in
    /// any case. For store implementers.
    ///
    /// # Errors
    /// [`Error::Reused`] if it is another append; otherwise those of the store's reads.
    pub async fn checked<S: EventStore + ?Sized>(self, store: &S, append: &Append) -> Result<Self> {
        if append.key.is_some() && append.key_reuse == KeyReuse::Original {
            let page = store.read_log(LogRead::forward(self.first).limit(1)).await?;
            if page.events.first().is_some_and(|event| event.idempotency_key() == append.key) {
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
                by_key |= append.key.is_some() && event.idempotency_key() == append.key;
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
    let given = || event.tags.iter().map(Tag::as_str);
    [
        ("stream", write.stream == recorded.stream()),
        ("id", event.id == recorded.id() || event.id.is_made()),
        ("type", event.event_type == recorded.event_type()),
        ("schema_version", event.schema_version == recorded.schema_version()),
        ("content_type", event.content_type == recorded.content_type()),
        ("data", is_same_data(event, recorded)),
        ("tags", given().eq(recorded.tags()) || BTreeSet::from_iter(given()) == recorded.tags().collect()),
        ("occurred_at", event.occurred_at == recorded.occurred_at()),
        ("metadata", is_same_metadata(&event.metadata, &recorded.metadata())),
    ]
    .into_iter()
    .find(|(_, same)| !same)
    .map(|(field, _)| field)
}

/// Whether the data is equal: a client may format its JSON differently in a retry.
fn is_same_data(event: &NewEvent, recorded: &RecordedEvent) -> bool {
    event.data == recorded.data()
        || (event.content_type.is_json() && is_same_json(&event.data, recorded.data()))
}

/// Whether the metadata is equal. The trace belongs to the request and differs in a retry, so it is not
/// compared.
fn is_same_metadata(one: &Metadata, other: &Metadata) -> bool {
    let event = |metadata: &Metadata| {
        let Metadata { process, initiator, predecessor, trace: _, own } = metadata.clone();
        (process, initiator, predecessor, own)
    };
    event(one) == event(other)
}
