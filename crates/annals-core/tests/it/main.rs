//! The store in memory, held to the contract.

use std::sync::Arc;

use annals_core::{Limits, MemoryStore, TestClock};
use annals_testkit::Subject;

struct Memory;

impl Subject for Memory {
    type Store = MemoryStore;

    async fn open(&self, clock: Arc<TestClock>) -> MemoryStore {
        MemoryStore::with(Limits::default(), clock)
    }
}

annals_testkit::contract!(
    open: Memory,
    skip: {
        acknowledged_events_survive_reopening: "what is in memory ends with the process",
        versions_and_positions_continue_after_reopening: "what is in memory ends with the process",
        keys_survive_reopening: "what is in memory ends with the process",
        event_ids_survive_reopening: "what is in memory ends with the process",
        recorded_time_is_held_across_reopening: "what is in memory ends with the process",
        a_checkpoint_survives_reopening: "what is in memory ends with the process",
        the_identity_survives_reopening: "what is in memory ends with the process",
        recorded_times_are_unchanged_after_reopening: "what is in memory ends with the process",
        two_handles_share_one_log: "its only handles are clones of one",
    },
);
