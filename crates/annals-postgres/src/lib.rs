//! The store on PostgreSQL: the contract of `annals_core::EventStore` on tables that any SQL client can read.
//!
//! - P1  An append is one transaction and one round trip. It locks the log (an advisory lock of the transaction) before
//!       it takes positions, and holds the lock until its end. PostgreSQL makes a commit durable (on synchronous
//!       standbys as well), then visible to new snapshots, and only then releases its locks. So the next append takes
//!       its positions when those before are durable and visible: the order of positions is the order of commit and of
//!       visibility, there are no gaps, and what is rolled back has taken nothing (G4). A standby replays commits in
//!       the same order.
//! - P2  Everything that is read in one call is read in one statement, so in one snapshot.
//! - P3  A connection lost while a commit may have been under way is `Indeterminate`, never `Unavailable`.
//! - P4  Statements of a transaction see what was committed before each (READ COMMITTED, set on every connection): what
//!       is read after the lock is what the one who held it before has left.
//!
//! What becomes of an append is judged by `annals_core::admit`, in `annals_sql`. The SQL is in `sql/`.
//!
//! The files, in the order in which they are best read: `store`, `append` (what the writer of `annals_sql` says to write
//! groups), `read`, `matching` (queries), `watch` (wakes who waits), `schema` (migrations), `relocation` (to another database),
//! `owner` (whose place it is), `backend` (what `annals` opens), `options`, `session`, `row`, `error`; `state` (for what is kept beside
//! a log, and for projections in the transaction of an append), `state/queue` (queued statements as text), `prepared`, `literal` and
//! `value`.
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
