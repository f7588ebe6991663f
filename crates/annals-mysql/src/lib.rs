//! The store on MariaDB and MySQL: the contract of `annals_core::EventStore` on tables that any SQL client
//! can read.
//!
//! - P1  An append is one transaction and one round trip. It locks the row of `log` before it takes
//!       positions, and holds the lock until it ends. InnoDB removes a transaction from the list of active
//!       ones, which makes it visible, before it releases its locks; and a transaction that waits for the
//!       lock has not written yet, so it has no transaction number yet, and no read view includes it without
//!       including the previous one. So the order of positions is the order of commit and of visibility,
//!       there are no gaps, and an append that is rolled back takes no position (G4).
//! - P2  With the binary log (`log_bin`, `sync_binlog=1`) a commit is durable before it is visible. Without
//!       it, InnoDB makes it visible and then writes it to disk: an acknowledged append is durable, but a
//!       reader may see an event shortly before it is durable, and if the machine fails in between, the event
//!       that was read is lost. The store logs a warning about this when it opens, and one about
//!       `innodb_flush_log_at_trx_commit`.
//! - P3  All data of one call is read in one statement, so in one read view.
//! - P4  A connection lost while a commit may have been in progress is `Indeterminate`, never `Unavailable`.
//! - P5  Each statement of a transaction sees what was committed before it (READ COMMITTED, set on every
//!       connection): a read under the lock sees what the previous holder committed.
//!
//! `annals_core::admit` decides on an append, in `annals_sql`. The SQL is in `sql/`. MySQL's own server has
//! the same syntax and the same locks; the tests run on MariaDB.
//!
//! The files, in reading order: `store`, `append` (writes the groups of the writer in `annals_sql`), `group`
//! (a group as text), `read`, `matching` (queries), `statement` (text and values), `watch` (wakes waiting
//! readers), `schema` (migrations), `relocation` (to another database), `owner` (the tenant of a database),
//! `backend` (opened by `annals`), `options`, `session`, `row`, `error`; `state` (for data beside a log, and
//! for projections in the transaction of an append), `state/queue` (queued statements as text) and `value`.
#![forbid(unsafe_code)]

mod backend;
mod store;

mod append;
mod group;
mod matching;
mod read;
mod statement;
mod watch;

mod state;
mod value;

mod options;
mod schema;
mod session;

mod error;
mod owner;
mod relocation;
mod row;

pub use backend::MySqlBackend;
pub use options::Options;
pub use schema::migrate;
pub use state::MySqlState;
pub use store::MySqlStore;
