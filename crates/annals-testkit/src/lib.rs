//! The contract of Annals' stores, as tests.
//!
//! A store must keep the guarantees G1 to G10 (`docs/guarantees.md`). This crate defines them as clauses, one
//! function each, and tests any store against them: those of Annals and yours. It depends on the contract
//! (`annals-core`) and on no store.
//!
//! Implement how your store is opened, and generate the tests, in `tests/it/contract.rs` of your crate:
//!
//! ```no_run
//! # mod tests {
//! # use annals_core::MemoryStore as EngineStore;
//! use std::sync::Arc;
//! use annals_core::TestClock;
//! use annals_testkit::Subject;
//! # struct TempDir;
//!
//! /// A directory of its own for each clause.
//! struct Directory(TempDir);
//!
//! impl Subject for Directory {
//!     type Store = EngineStore;
//!
//!     async fn open(&self, clock: Arc<TestClock>) -> EngineStore {
//!         // For the embedded engine:
//!         //   let options = Options { clock, ..Options::default() };
//!         //   EngineStore::open(self.0.path(), options).expect("the store opens")
//! #       EngineStore::with(annals_core::Limits::default(), clock)
//!     }
//!
//!     async fn close(&self, store: EngineStore) {
//!         //   store.close().await.expect("the store closes");
//!     }
//! }
//!
//! annals_testkit::contract!(open: Directory(tempfile()));
//! # fn tempfile() -> TempDir { TempDir }
//! # }
//! ```
//!
//! Each clause becomes a test with its name. A clause that your store cannot keep is skipped with a reason,
//! and is listed as an ignored test: see [`contract!`]. The last clause runs random concurrent histories
//! against a simple model; when it fails it prints the seed, and `ANNALS_SEED` repeats it.
//!
//! The files, in reading order: `trial` (how a store is opened for a clause), `contract` (the list), the
//! files under `contract/` (the clauses), `history` (random histories and their checker); for stores on
//! databases `hostile` (several processes, and cut connections), `outages` (servers that stop or block) and
//! `hot` (calls whose cost must not grow with the log); and `failover`, a store that loses events. This crate
//! starts no server: your tests do.
//!
//! State beside a log has a contract of its own, in the same form: `state_trial`, `state_contract` and
//! [`state_contract!`].
#![forbid(unsafe_code)]

mod state_trial;
mod trial;

pub mod failover;
pub mod hostile;
pub mod hot;
pub mod outages;

mod contract;
mod given;
mod history;
mod state_contract;

pub use contract::{CLAUSES, clause};
pub use history::History;
pub use state_contract::{STATE_CLAUSES, state_clause};
pub use state_trial::{StateSubject, StateTrial, hold_state};
pub use trial::{Another, Subject, Trial, hold};
