//! Durable state beside a log: checkpoints and leases of its consumers, snapshots, and the rows of
//! projections.
//!
//! All of it is derived from the log and can be rebuilt. It is bound to the log's identity.
//!
//! Knows the contract (`annals-core`) and no aggregate, no projection and no library for databases but
//! SQLite's: a database is a [`Sessions`], which `annals-postgres` and `annals-mysql` implement. The files,
//! in reading order:
//!
//! - what is stored: `store` (the whole), `checkpoint`, `lease`, `snapshot`, and where: `memory` (the
//!   reference), `sqlite`;
//! - what a database is: `value`, `cell` (types of Rust in columns), `dialect`, `words`, `session`, `error`,
//!   `name`;
//! - `database` (state in a database that processes share), `lease_row` and `leases` (which of them runs a
//!   consumer);
//! - rows that are made of events: `row`, `rows` (the statements of one transaction), `channel` (from code
//!   that is not async to a connection), `file` (SQLite), `bound` (whether they can be resumed), `place` (a
//!   schema of a database), `volatile`;
//! - `backend` (a kind of store, with the place of its state), `claim` (whose a place is), `inline` (rows in
//!   the transaction of an append).
#![forbid(unsafe_code)]

mod cell;
mod dialect;
mod error;
mod name;
mod session;
mod value;
mod words;

mod checkpoint;
mod lease;
mod snapshot;
mod store;

mod database;
mod lease_row;
mod leases;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

mod bound;
mod channel;
#[cfg(feature = "sqlite")]
mod file;
mod place;
mod row;
mod rows;
mod volatile;

mod backend;
mod claim;
mod inline;

pub use backend::{Backend, Maintenance, OpenOptions, OpenSessions, Opened, Relocation, StatePlace};
pub use bound::{Bound, Checked, Unusable};
pub use cell::{FromValue, Params, ToValue};
pub use channel::{StatementChannel, execute, run_blocking, translate};
pub use checkpoint::{Advanced, Checkpoint, CheckpointStore};
pub use claim::{Claim, Claimed};
pub use database::{SqlState, Transaction, id_of, position_of};
pub use dialect::{Allowed, Dialect, Translated};
#[cfg(feature = "sqlite")]
pub use error::is_broken;
pub use error::{SqlError, StateError, state_failed, whole};
#[cfg(feature = "sqlite")]
pub use file::{Database, Place, blocking, remove};
pub use inline::{Group, InlineProjection, Inlines, NotTaken, Registration};
pub use lease::{Acquired, Lease, LeaseStore};
pub use leases::{HeldLease, Leases};
pub use memory::MemoryState;
pub use name::NAME_BYTES_MAX;
pub use place::{AWAY_MAX, SchemaLock, ViewPlace};
pub use row::{Column, FromRow, Row, read};
pub use rows::Tx;
#[cfg(feature = "sqlite")]
pub use rows::select;
pub use session::{Answer, Fault, Queued, Session, Sessions, run};
pub use snapshot::{MemorySnapshots, SNAPSHOTS_KEPT, SnapshotStore, StoredSnapshot};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteState;
pub use store::StateStore;
pub use value::Value;
