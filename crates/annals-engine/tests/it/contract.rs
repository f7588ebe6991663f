//! The engine, held to the contract of the stores: with segments as they are by default, and with such small
//! ones that every clause goes over many of them.

use std::sync::Arc;

use annals_core::TestClock;
use annals_engine::{EngineStore, Options};
use annals_testkit::Subject;

/// A directory of its own for each clause.
struct Directory {
    directory: tempfile::TempDir,
    segment_bytes: u64,
}

impl Directory {
    fn new(segment_bytes: u64) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), segment_bytes }
    }
}

impl Subject for Directory {
    type Store = EngineStore;

    async fn open(&self, clock: Arc<TestClock>) -> EngineStore {
        let options = Options { clock, segment_bytes: self.segment_bytes, ..Options::default() };
        EngineStore::open(self.directory.path(), options).unwrap()
    }

    async fn close(&self, store: EngineStore) {
        store.close().await.unwrap();
    }
}

mod large_segments {
    use super::Directory;
    annals_testkit::contract!(
        open: Directory::new(64 << 20),
        skip: {
            two_handles_share_one_log: "a directory is open once, in one process: the second opening is refused",
        },
    );
}

mod small_segments {
    use super::Directory;
    annals_testkit::contract!(
        open: Directory::new(2 << 10),
        skip: {
            two_handles_share_one_log: "a directory is open once, in one process: the second opening is refused",
        },
    );
}
