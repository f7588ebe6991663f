//! The transactional outbox, for services that store state and not events. A message is written in the
//! transaction that changes the state, and published from there, in order and without loss.
//!
//! - O1  A message is published if, and only if, the transaction that wrote it is committed: at least once,
//!       with the same id each time.
//! - O2  The messages of one aggregate are published in the order in which they were committed. When a
//!       message is published again, so are those after it: a consumer that skips duplicates (by id, or by
//!       sequence) sees each once, in order.
//! - O3  A message that is refused blocks its aggregate, and no other. Refused too often it is a dead letter:
//!       it keeps its place, and its aggregate waits until it is retried or discarded.
//! - O4  Of all publishers of an outbox, the holder of the lease publishes. When it dies, another takes over.
//!
//! ```
//! use annals_outbox::{Message, NewMessage, Outbox};
//! use sqlx::SqlitePool;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let url = format!("sqlite:{}/shop.db?mode=rwc", directory.path().display());
//! let pool = SqlitePool::connect(&url).await?; // or a PgPool, or a MySqlPool
//! let outbox = Outbox::new(pool.clone());
//! outbox.migrate().await?;
//! # sqlx::query("CREATE TABLE orders (id TEXT, cents INTEGER)").execute(&pool).await?;
//! # let (published, mut receiver) = tokio::sync::mpsc::unbounded_channel();
//!
//! // Once, where the service starts.
//! let publisher = outbox.publisher(move |message: Message| {
//!     let published = published.clone();
//!     async move { Ok(published.send(message)?) }
//! });
//! let publisher = publisher.start().await?;
//!
//! // In each transaction that changes the state of the service.
//! let mut transaction = pool.begin().await?;
//! sqlx::query("INSERT INTO orders VALUES ('42', 1250)").execute(&mut *transaction).await?;
//! let placed = NewMessage::json("order", "42", "order.placed", &serde_json::json!({"cents": 1250}))?;
//! outbox.write(&mut *transaction, &placed).await?;
//! transaction.commit().await?;
//! publisher.waker().wake(); // otherwise within a second
//!
//! assert_eq!(receiver.recv().await.unwrap().id, placed.id);
//! publisher.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! When to use it and how to operate it is in `docs/outbox.md`. The SQL of the tables is in `sql/`.
//!
//! The files, in the order in which they are best read: `message`, `outbox` (tables, writing), `sink`,
//! `publisher` (starting and stopping) with its `options` and `health`, `run`, `source`, `publish` and
//! `in_flight` (publishing), `lease`, `pending` (the statements of a publisher), `dead_letters` (and the
//! status), `listen`, `database`, `dialect`, `error`.
#![forbid(unsafe_code)]

#[cfg(not(any(feature = "mysql", feature = "postgres", feature = "sqlite")))]
compile_error!("annals-outbox needs at least one of its features: `mysql`, `postgres`, `sqlite`");

mod message;
mod outbox;
mod sink;

mod health;
mod options;
mod publisher;

mod in_flight;
mod lease;
mod publish;
mod run;
mod source;

mod dead_letters;
mod pending;

#[cfg(feature = "postgres")]
mod listen;

mod database;
mod dialect;
mod error;

pub use database::{Pool, Session};
pub use dead_letters::{DeadLetter, RefusedMessage, Status};
pub use error::{Error, Result, SinkError};
pub use health::Health;
pub use lease::LeaseHolder;
pub use message::{DATA_BYTES_MAX, HEADERS_BYTES_MAX, Message, NAME_BYTES_MAX, NewMessage};
pub use options::Options;
pub use outbox::Outbox;
pub use publisher::{Publisher, PublisherHandle, PublisherWaker};
pub use sink::{LogSink, Sink};
