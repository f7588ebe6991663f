//! The store on PostgreSQL: the contract of `annals_core::EventStore` on tables that any SQL client can read.
//!
//! - P1  An append is one transaction and one round trip. It locks the log (an advisory lock of the
//!       transaction) before it takes positions, and holds the lock until it ends. PostgreSQL makes a commit
//!       durable (on synchronous standbys as well), then visible to new snapshots, and only then releases its
//!       locks. So the next append takes its positions when the previous ones are durable and visible: the
//!       order of positions is the order of commit and of visibility, there are no gaps, and an append that
//!       is rolled back takes no position (G4). A standby replays commits in the same order.
//! - P2  All data of one call is read in one statement, so in one snapshot.
//! - P3  A connection lost while a commit may have been in progress is `Indeterminate`, never `Unavailable`.
//! - P4  Each statement of a transaction sees what was committed before it (READ COMMITTED, set on every
//!       connection): a read under the lock sees what the previous holder committed.
//!
//! `annals_core::admit` decides on an append, in `annals_sql`. The SQL is in `sql/`.
//!
//! The files, in reading order: `store`, `append` (writes the groups of the writer in `annals_sql`), `read`,
//! `matching` (queries), `watch` (wakes waiting readers), `schema` (migrations), `relocation` (to another
//! database), `owner` (the tenant of a schema), `backend` (opened by `annals`), `options`, `session`, `row`,
//! `error`; `state` (for data beside a log, and for projections in the transaction of an append),
//! `state/queue` (queued statements as text), `prepared`, `literal` and `value`.
#![forbid(unsafe_code)]

mod backend;
mod store;

mod append;
mod matching;
mod read;
mod watch;

mod literal;
mod prepared;
mod state;
mod value;

mod options;
mod schema;
mod session;

mod error;
mod owner;
mod relocation;
mod row;

pub use backend::PostgresBackend;
pub use options::Options;
pub use schema::migrate;
pub use state::PostgresState;
pub use store::PostgresStore;
