//! Sinks, to which messages are published: a trait with one method, closures, and a log of Annals.

use std::sync::Arc;

use annals_core::{
    Append, Error, EventStore, Expected, IdempotencyKey, Invalid, Metadata, NewEvent, StreamId, Text,
    refuse_reserved,
};
use async_trait::async_trait;

use crate::{Message, SinkError};

/// Publishes messages.
///
/// A message may be given to the sink again after it was published; consumers recognise it by its id.
/// Messages of one aggregate are given one after the other, in order; those of different aggregates
/// concurrently. A call that takes longer than [`Options::timeout`](crate::Options::timeout) is dropped.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Publishes a message, and returns when it is stored durably.
    ///
    /// # Errors
    /// [`SinkError`], with whether it counts against this message.
    async fn publish(&self, message: &Message) -> Result<(), SinkError>;
}

#[async_trait]
impl<F, Fut> Sink for F
where
    F: Fn(Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), SinkError>> + Send,
{
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        self(message.clone()).await
    }
}

/// A sink that appends messages to a log of Annals. Each is appended once, however often it is published: its
/// id is the idempotency key of the append, and the id of the event in its stream.
///
/// A message of the aggregate `42` of type `order` becomes an event of the stream `order-42`, with the
/// message's id, type and data. The headers `process`, `initiator`, `predecessor` and `trace` become the
/// metadata of these names; all others become [`Metadata::own`].
pub struct LogSink(Arc<dyn EventStore>);

impl LogSink {
    /// A sink that appends to this log.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self(store)
    }
}

#[async_trait]
impl Sink for LogSink {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        let append = append(message).map_err(SinkError::refused)?;
        let stream = append.writes[0].stream.clone();
        let mut answer = self.0.append(append.clone()).await;
        if matches!(&answer, Err(Error::Reused(reused)) if reused.stream != stream) {
            // Another message has the same id: one of another outbox, or about another aggregate. Ids are
            // unique within a stream, so the id of the event replaces the key here.
            answer = self.0.append(Append { key: None, ..append }).await;
        }
        match answer {
            Ok(_) => Ok(()),
            Err(error @ (Error::Conflict(_) | Error::Invalid(_) | Error::Reused(_))) => {
                Err(SinkError::refused(error))
            }
            // It may have been written; the next attempt has the same key.
            Err(error) => Err(SinkError::unavailable(error)),
        }
    }
}

fn append(message: &Message) -> Result<Append, Invalid> {
    let stream = StreamId::of(&message.aggregate_type, &message.aggregate_id)?;
    let mut metadata = Metadata::default();
    for (name, value) in &message.headers {
        let value = Text::from(value);
        match name.as_str() {
            "process" => metadata.process = Some(value),
            "initiator" => metadata.initiator = Some(value),
            "predecessor" => metadata.predecessor = Some(value),
            "trace" => metadata.trace = Some(value),
            name => drop(metadata.own.insert(Text::from(name), value)),
        }
    }
    refuse_reserved("type", &message.event_type)?;
    let mut event = NewEvent::new(message.event_type.as_str(), message.data.clone())?;
    event = event.with_id(message.id).with_metadata(metadata);
    event.content_type = message.content_type.clone();
    event.occurred_at = Some(message.created_at);
    let key = IdempotencyKey::new(message.id.to_string())?;
    Ok(Append::to(stream, Expected::Any, [event]).once(key))
}

#[cfg(test)]
mod tests {
    use annals_core::{Bytes, ContentType, EventId, EventStoreExt, MemoryStore, Timestamp};

    use super::*;

    fn message(aggregate_id: &str) -> Message {
        Message {
            id: EventId::from_name(b"transfer 7"),
            aggregate_type: "account".to_owned(),
            aggregate_id: aggregate_id.to_owned(),
            sequence: 1,
            event_type: "account.deposited".to_owned(),
            content_type: ContentType::Json,
            data: Bytes::from_static(b"{}"),
            headers: Default::default(),
            created_at: Timestamp::default(),
            attempt: 1,
            position: 1,
            unreadable: None,
            nameless: false,
        }
    }

    #[tokio::test]
    async fn a_message_with_a_name_that_is_kept_for_annals_is_refused() {
        let store = Arc::new(MemoryStore::new());
        let sink = LogSink::new(store.clone());
        let stream = Message { aggregate_type: "annals.answers".to_owned(), ..message("a") };
        let of_type = Message { event_type: "annals.command_refused".to_owned(), ..message("a") };
        for wrong in [stream, of_type] {
            let failure = sink.publish(&wrong).await.unwrap_err();
            assert!(failure.to_string().contains("which is reserved for"), "{failure}");
        }
        assert_eq!(store.head().await.unwrap().get(), 0);
    }

    /// Two services publish to one log, and both name their messages by what they belong to.
    #[tokio::test]
    async fn one_id_about_two_aggregates_is_two_messages() {
        let store = Arc::new(MemoryStore::new());
        let sink = LogSink::new(store.clone());
        for _ in 0..2 {
            for account in ["a", "b"] {
                sink.publish(&message(account)).await.unwrap();
            }
        }
        for account in ["account-a", "account-b"] {
            let stream = StreamId::new(account).unwrap();
            assert_eq!(store.stream_version(&stream).await.unwrap().get(), 1, "{account}");
        }
    }
}
