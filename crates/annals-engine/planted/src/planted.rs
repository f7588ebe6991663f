//! Bugs that are planted on purpose, to see that the tests catch them. The engine has none: this file and the
//! patches beside it are applied to a copy of it, by `cargo xtask planted`.
//!
//! All are in the copy, and none is active unless it is planted on a thread: each store that is opened there
//! has it from then on, on all threads that it starts. `tests/it/planted.rs` and `src/model/planted.rs` plant
//! them one by one.

use std::cell::Cell;

/// A bug that somebody might write. The patch of each has its name: `forgets_to_wake.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Appends are acknowledged when they are written; the next group syncs them.
    AcknowledgesBeforeTheSync,
    /// Readers see what is written and not synced yet.
    PublishesBeforeTheSync,
    /// Appends are acknowledged a moment before readers see them.
    PublishesAfterTheAnswers,
    /// A failed sync is reported, and the store keeps writing after it.
    GoesOnAfterAFailedSync,
    /// A failed write is reported, and the tail has moved on although nothing is there.
    GoesOnAfterAFailedWrite,
    /// The next segment begins while the last group of this one is under way.
    RollsBeforeAllIsDurable,
    /// The index of a run is written while events of it are under way.
    SealsBeforeAllIsDurable,
    /// An append that is refused on a full disk has used up its positions.
    KeepsThePositionsOfTheRefused,
    /// The version of a stream that was looked up stays in memory although the stream grows.
    KeepsOldVersions,
    /// The end of a segment is marked before the next one is there.
    MarksTheEndFirst,
    /// Event ids of runs that were sealed are forgotten when a store is opened.
    ForgetsIdsAtOpen,
    /// Keys of the walked tail are forgotten when a store is opened.
    ForgetsKeysAtOpen,
    /// A frame is taken without a look at its checksums.
    TakesFramesUnchecked,
    /// Whatever follows it, a broken frame is the end of the log.
    TakesDamageForTheEnd,
    /// A torn tail stays there.
    LeavesTheTornTail,
    /// The last group, which may never have been synced, is not written again.
    DoesNotWriteAgain,
    /// What was found, and may never have been synced, is not synced.
    DoesNotSyncWhatItFound,
    /// A merged index lacks the terms of the last of its runs.
    MergesWithoutTheLastRun,
    /// It is written down that events are durable before their sync.
    NotesBeforeTheSync,
    /// A log that ends before what was durable is taken as it is.
    IgnoresALostEnd,
    /// Reads see what is staged.
    ShowsWhatIsStaged,
    /// A view takes the lists first, and then the head.
    TakesTheListsFirst,
    /// An append that comes alone is executed by its caller although there is a leader.
    HasTwoLeaders,
    /// A caller that calls the thread does not wake it.
    ForgetsToWake,
}

thread_local!(static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) });

/// Gives this bug, or none, to what is opened on this thread from now on.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted on this thread.
pub fn has(bug: Bug) -> bool {
    Planted::here().is(bug)
}

/// The bug of a store, if it has one: callers of a store may be on any thread.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    bug: Option<Bug>,
}

impl Planted {
    /// What is planted on this thread.
    pub fn here() -> Self {
        Self { bug: PLANTED.get() }
    }

    /// Whether it is this one.
    pub fn is(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Plants the same on this thread.
    pub fn take_along(self) {
        plant(self.bug);
    }
}
