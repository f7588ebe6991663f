//! Event-sourced services in Rust, on an event store that is database and message broker in one.
//!
//! ```
//! use annals::{Aggregate, Annals, Context, Decide, Decision, Event, emit, reject};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
//! #[event(prefix = "account")] // stored as account.deposited, account.withdrawn
//! enum AccountEvent {
//!     Deposited { amount: u64 },
//!     Withdrawn { amount: u64 },
//! }
//!
//! #[derive(Clone, Default)]
//! struct Account {
//!     balance: u64,
//! }
//!
//! impl Aggregate for Account {
//!     const NAME: &'static str = "account";
//!     type Event = AccountEvent;
//!     fn initial(_id: &str) -> Self {
//!         Self::default()
//!     }
//!     fn evolve(&mut self, event: &AccountEvent) {
//!         match event {
//!             AccountEvent::Deposited { amount } => self.balance += amount,
//!             AccountEvent::Withdrawn { amount } => self.balance -= amount,
//!         }
//!     }
//! }
//!
//! struct Deposit(u64);
//!
//! impl Decide<Deposit> for Account {
//!     type Error = std::convert::Infallible;
//!     fn decide(&self, command: &Deposit, _: &Context) -> Decision<Self, Self::Error> {
//!         emit(AccountEvent::Deposited { amount: command.0 })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let annals = Annals::open("memory:").await?; // or file:./data
//! let accounts = annals.repository::<Account>();
//! let done = accounts.execute("a1", Deposit(100)).by("user:7").once("request-123").await?;
//! assert_eq!((done.version.get(), done.state.balance), (1, 100));
//! # Ok(())
//! # }
//! ```
//!
//! See also:
//!
//! - [`guide`]: first steps, event sourcing for people who know SQL, tests, evolving events, failing
//!   handlers, unique names, embedding the server.
//! - [`Annals`]: the system as a whole, opened on a URL.
//! - [`Repository`]: aggregates and commands; [`Snapshot`] for long streams; [`Answer`] for commands that
//!   lead to no event.
//! - [`Projection`]: rows derived from events, queried through a [`View`].
//! - [`SubscriberBuilder`]: handlers of events, and the commands that follow from them ([`Delivery`]).
//! - [`testing`]: aggregates and projections without a store, and golden files of events.
//! - [`Tenants`]: a log for each tenant, moved while it is in use.
//! - [`backend`]: the kinds of store, and how to add one.
//! - [`Subscription`] and [`EventStore`]: the log itself.
#![forbid(unsafe_code)]

// The modules are in reading order. Only `backend` names the kinds of store.

// For `#[derive(Event)]` in this crate's own tests.
extern crate self as annals;

pub mod backend;
mod open;
mod system;

mod reports;
mod repository;
pub mod snapshot;

mod projection;
mod subscriber;

mod tenants;

pub mod testing;

pub mod guide;

mod codec;
mod failure;
mod fold;
mod follow;
mod handles;
mod progress;
mod recorded;
mod shared;
mod state;
mod stop;
mod stream_locks;
mod tasks;

#[doc(hidden)]
pub use annals_core::derived;

pub use annals_consume::{Ladder, Subscription};
pub use annals_core as contract;
pub use annals_core::without_derive::Event;
pub use annals_core::{
    Aggregate, Append, Appended, Backoff, Bytes, Category, Cause, Clock, CodecError, CommandOf, ContentType,
    Context, Decide, Decision, Error, EventId, EventMetadata, EventStore, EventStoreExt, EventType, Events,
    Expected, IdempotencyKey, Invalid, MemoryStore, Metadata, NewEvent, Position, Query, QueryItem, RawEvent,
    RecordedEvent, Result, Seen, StoreId, StoreUrl, StreamId, StreamInfo, StreamList, SystemClock, Tag,
    TestClock, Text, Timestamp, Upcaster, Version, Witness, emit, emit_all, no_events, reject,
};
pub use annals_macros::Event;

pub use annals_state::{Column, Dialect, FromRow, FromValue, Params, Row, SqlError, ToValue, Tx, Value};
pub use codec::Unreadable;
pub use failure::{HandlerError, Refused};
pub use fold::LoadError;
pub use open::{open_store, open_store_to_read, open_store_with};
pub use progress::{Kind, LastError, Phase, Status};
pub use projection::{Projection, ProjectionBuilder, ProjectionHandle, View, ViewError};
pub use recorded::Recorded;
pub use repository::{
    Answer, Change, CommandBuilder, Committed, ExecuteError, History, Loaded, Refusal, Repository,
};
pub use snapshot::{MemorySnapshots, Policy, Snapshot, SnapshotStore, StoredSnapshot};
pub use state::State;
pub use subscriber::{Delivery, SubscriberBuilder};
pub use system::Annals;
pub use tenants::{MoveProgress, Tenants};
