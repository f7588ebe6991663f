//! The contract of state, on the kinds of it that are here. `annals-postgres` and `annals-mysql` run it on
//! servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use annals_core::{Result, StoreId, TestClock};
use annals_state::{MemoryState, StateStore};
use annals_testkit::StateSubject;

/// State in memory, which outlives the handles of a clause.
#[derive(Default)]
struct Memory(Mutex<HashMap<StoreId, MemoryState>>);

impl StateSubject for Memory {
    async fn open(&self, log: StoreId, clock: Arc<TestClock>) -> Result<Arc<dyn StateStore>> {
        let mut states = self.0.lock().unwrap();
        Ok(Arc::new(states.entry(log).or_insert_with(|| MemoryState::with_clock(log, clock)).clone()))
    }
}

mod memory {
    annals_testkit::state_contract!(open: super::Memory::default());
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;

    /// A directory of its own for each clause.
    struct Directory(tempfile::TempDir);

    impl StateSubject for Directory {
        async fn open(&self, log: StoreId, clock: Arc<TestClock>) -> Result<Arc<dyn StateStore>> {
            let path = self.0.path().join("state.sqlite");
            Ok(Arc::new(annals_state::SqliteState::open_with_clock(path, log, clock).await?))
        }
    }

    annals_testkit::state_contract!(open: Directory(tempfile::tempdir().unwrap()));
}
