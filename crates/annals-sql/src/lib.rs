//! What the stores on SQL databases have in common: an append is judged in Rust, by `annals_core::admit`, and
//! committed by the database, together with those that came in while the last ones were committed.
//!
//! ```text
//! append -> committer -> stage (admit) -> writer -> Database::append     one round trip, one transaction
//!                          ^                          | what was assumed of the log is not so
//!                          +------- facts <- Database::lock              read under the lock
//! ```
//!
//! - Q1  An append is judged on facts: on what is assumed of the log, which the database checks under its
//!       lock, or on what was read under that lock. Either way nothing can come between the judgement and the
//!       rows.
//! - Q2  The rows of a group are one transaction: all of its appends are durable or none is. Each append was
//!       judged by itself; one that is refused takes no row and no position.
//! - Q3  Only what may have been committed is [`Failure::Indeterminate`].
//!
//! Knows no database and no SQL but the shape of a query; those are in `annals-postgres` and
//! `annals-mysql`.
//!
//! The files, in the order in which they are best read: `committer`, `batch`, `stage`, `facts`, `writer`,
//! `database` (what a store says in its database's words), `line` (connections), `lineage` (which log it is),
//! `failure`, `stopped`, `cause`; `row`, `page`, `matching`, `predecessors`, `progress`; `replicated` (reads
//! from a replica); `inline` (projections in the transaction of an append); `held` (a connection as
//! `annals-state` sees it); `backend` (how a log is opened by its address).
#![forbid(unsafe_code)]

mod backend;
mod batch;
mod cause;
mod committer;
mod database;
mod facts;
mod failure;
mod inline;
mod line;
mod lineage;
mod stage;
mod stopped;
mod writer;

mod matching;
mod page;
mod parameters;
mod predecessors;
mod progress;
mod replicated;
mod row;

mod held;

pub use backend::open_replicated;
pub use batch::{Batch, Pending};
pub use committer::{Committer, GROUP_BYTES_MAX, outcome_at, weight};
pub use database::{Database, How};
pub use facts::{Asked, Facts, Tail};
pub use failure::{Failure, Step, Verdict};
pub use held::{Held, Speaks};
pub use line::{Borrowed, Cancels, Driver, IDLE, Lent, Line, Pool, answered};
pub use lineage::{Found, Lineage, Role};
pub use matching::{Arm, Property, arms, order};
pub use page::{PAGE_BYTES, damaged, log_page, log_span, stream_page, stream_span};
pub use parameters::check_parameters;
pub use predecessors::{Predecessors, conditions_name_predecessor, names_predecessor};
pub use progress::{Poll, Progress};
pub use replicated::{OpenReplica, Replicated, split_replica};
pub use row::{EventRow, Stored, own_to_json, tags_to_json};
pub use stage::{Staged, StagedEvent, StagedStream};
pub use stopped::{Stopped, has_moved, of_opening};
