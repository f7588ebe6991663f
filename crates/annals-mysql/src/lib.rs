//! The store on MariaDB and MySQL: the contract of `annals_core::EventStore` on tables that any SQL client can read.
//!
//! - P1  An append is one transaction and one round trip. It locks the row of `log` before it takes positions, and
//!       holds the lock until its end. InnoDB takes a transaction out of the list of those that are under way, which
//!       makes it visible, before it lets go of its locks; and who waits for the lock has written nothing yet, so has
//!       no transaction number yet, and no view of the data knows it without knowing the one before. So the order of
//!       positions is the order of commit and of visibility, there are no gaps, and what is rolled back has taken
//!       nothing (G4).
//! - P2  With the binary log (`log_bin`, `sync_binlog=1`) a commit is durable before it is visible. Without it, InnoDB
//!       makes it visible and then writes it to disk: what is acknowledged is durable, but a reader may see an event
//!       some moments before it is, and if the machine stops just then, the event that was read is gone. The store
//!       says so when it opens, and does the same about `innodb_flush_log_at_trx_commit`.
//! - P3  Everything that is read in one call is read in one statement, so in one view of the data.
//! - P4  A connection lost while a commit may have been under way is `Indeterminate`, never `Unavailable`.
//! - P5  Statements of a transaction see what was committed before each (READ COMMITTED, set on every connection): what
//!       is read after the lock is what the one who held it before has left.
//!
//! What becomes of an append is judged by `annals_core::admit`, in `annals_sql`. The SQL is in `sql/`. MySQL's own
//! server has the same syntax and the same locks; the tests run on MariaDB.
//!
//! The files, in the order in which they are best read: `store`, `append` (what the writer of `annals_sql` says to write
//! groups), `group` (as text), `read`, `matching` (queries), `statement` (text and values), `watch` (wakes who waits),
//! `schema` (migrations), `relocation` (to another database), `owner` (whose place it is), `backend` (what `annals` opens),
//! `options`, `session`, `row`, `error`; `state` (for what lies beside a log, and for projections in the transaction of an
//! append), `state/queue` (statements whose answers nobody asks for, as text) and `value`.
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
