//! The nouns of Annals and the contract of its stores.
//!
//! A store keeps events in streams, in one log, forever. The contract of every store is documented at
//! [`EventStore`]; the clauses G1 to G10 are in `docs/guarantees.md`, and `annals-testkit` tests a store
//! against them. This crate does no I/O and starts no thread: it contains the types, the rules and one store
//! in memory.
//!
//! ```
//! use annals_core::{Append, EventStore, EventStoreExt, Expected, MemoryStore, NewEvent, StreamId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let account = StreamId::new("account-42")?;
//! let opened = NewEvent::new("account.opened", r#"{"owner":"kim"}"#)?;
//!
//! let done = store.append(Append::to(&account, Expected::NoStream, [opened])).await?;
//! assert_eq!(done.version().get(), 1);
//! assert_eq!(store.stream_events(&account).await?[0].event_type(), "account.opened");
//! # Ok(())
//! # }
//! ```
//!
//! The files, in reading order: `stream`, `event`, `body`, `recorded`, `query`, `key`, `append`, `read`,
//! `invalid`, `error`, `witness`, `store`, `admission`, `reuse`, `memory`, and for the domain side
//! `aggregate`, `upcast`, `derived` (called by derived code); `json` checks data that is declared as JSON.
#![forbid(unsafe_code)]

mod text;

mod invalid;
mod name;

mod number;
mod stream;
mod time;

pub mod body;
mod event;
mod query;
mod recorded;

mod append;
mod key;
mod limits;
mod read;

mod caught;
mod chain;
mod error;

mod store;
mod witness;

mod admission;
mod memory;
mod reuse;

mod aggregate;
mod backoff;
#[doc(hidden)]
pub mod derived;
mod json;
mod redaction;
mod refusal;
mod reserved;
mod serialize;
mod upcast;
mod url;

/// Implements [`Event`](trait@Event) for an enum: see `annals_macros::Event`.
pub use annals_macros::CoreEvent as Event;

/// The trait without the derive of the same name, for `annals`, which has a derive of its own.
#[doc(hidden)]
pub mod without_derive {
    pub use crate::aggregate::Event;
}

pub use admission::{Admission, LogView, admit};
pub use aggregate::{
    Aggregate, CodecError, CommandOf, Context, Decide, Decision, Event, Events, emit, emit_all, no_events,
    reject,
};
pub use append::{Append, Appended, Condition, Expected, Write};
pub use backoff::Backoff;
pub use bytes::Bytes;
pub use caught::{caught, panic_text};
pub use chain::{Cause, chain};
pub use error::{Conflict, Error, Location, Result, Violated, Violation};
pub use event::{ContentType, EventId, EventMetadata, EventType, Metadata, NewEvent, Tag};
pub use invalid::Invalid;
pub use json::{InvalidJson, JSON_DEPTH_MAX, check_json};
pub use key::{IdempotencyKey, KeyReuse, Reused};
pub use limits::Limits;
pub use memory::MemoryStore;
pub use number::{Position, Version};
pub use query::{Query, QueryItem};
pub use read::{Direction, LogPage, LogRead, StreamInfo, StreamList, StreamPage, StreamRead};
pub use recorded::RecordedEvent;
pub use redaction::{redacted, without_secrets};
pub use refusal::refusal_code;
pub use reserved::refuse_reserved;
pub use store::{EventStore, EventStoreExt, StoreId};
pub use stream::{Category, StreamId};
pub use text::{Text, shortened};
pub use time::{Clock, SystemClock, TestClock, Timestamp, UtcOffset};
pub use upcast::{RawEvent, Upcaster};
pub use url::{DatabaseUrl, StoreUrl};
pub use witness::{Seen, Witness};
