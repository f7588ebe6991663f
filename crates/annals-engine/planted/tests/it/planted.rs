//! The tests of the tests: bugs are planted in the engine, or between it and its disk, and the simulation
//! that finds nothing in the engine as it is must find each of them, on the same schedules.
//!
//! Run by `cargo xtask planted`, and so by `cargo xtask test`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::disk::{Disk, File};
use annals_engine::planted::{Bug, plant};

use crate::histories;
use crate::sim::{self, Family, Schedule};

/// Lives by the schedules of these families until one shows that something is wrong; thrice, because a
/// machine that is busy with other things may not give threads their turns as they need them to go wrong.
fn catch(families: &[Family]) -> Option<(Schedule, String, u64)> {
    let mut before = 0;
    for family in [families; 3].concat() {
        match sim::first_failure(sim::of(family)) {
            Ok(count) => before += count.schedules,
            Err((schedule, problem, count)) => return Some((schedule, problem, before + count.schedules)),
        }
    }
    None
}

fn is_caught(name: &str, families: &[Family]) {
    quietly();
    let caught = catch(families);
    plant(None);
    let (schedule, problem, count) = caught.unwrap_or_else(|| panic!("{name} was not caught"));
    let line = problem.lines().find(|line| !line.trim().is_empty()).unwrap_or("it panicked");
    sim::say(&format!("caught {name}: schedule {count}, {schedule}: {line}"));
}

/// What goes wrong here is meant to: only what is said to be wrong is printed.
fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<String>();
            if text.is_some_and(|text| text.ends_with("was not caught")) {
                loud(panic);
            }
        }));
    });
}

macro_rules! planted {
    ($($(#[$doc:meta])* $test:ident: $bug:ident by $($family:ident),+;)+) => {$(
        $(#[$doc])*
        #[test]
        fn $test() {
            plant(Some(Bug::$bug));
            is_caught(stringify!($bug), &[$(Family::$family),+]);
        }
    )+};
}

planted! {
    an_acknowledgement_before_the_sync_is_caught: AcknowledgesBeforeTheSync by Stops;
    events_that_are_shown_before_the_sync_are_caught: PublishesBeforeTheSync by Failures, Stops;
    a_store_that_continues_after_a_failed_sync_is_caught: GoesOnAfterAFailedSync by Failures;
    a_store_that_continues_after_a_failed_write_is_caught: GoesOnAfterAFailedWrite by Failures;
    a_segment_that_begins_before_the_last_group_is_durable_is_caught: RollsBeforeAllIsDurable by Groups;
    an_index_before_its_events_is_caught: SealsBeforeAllIsDurable by Groups;
    positions_that_a_refused_append_keeps_are_caught: KeepsThePositionsOfTheRefused by Full;
    versions_that_stay_in_memory_are_caught: KeepsOldVersions by Stops;
    a_mark_of_the_end_before_the_next_segment_is_caught: MarksTheEndFirst by Stops;
    ids_that_are_forgotten_at_open_are_caught: ForgetsIdsAtOpen by Stops;
    keys_that_are_forgotten_at_open_are_caught: ForgetsKeysAtOpen by Stops;
    frames_that_are_taken_unchecked_are_caught: TakesFramesUnchecked by Groups, Flips, Lives, Stops;
    damage_that_is_taken_for_the_end_is_caught: TakesDamageForTheEnd by Flips;
    a_torn_tail_that_is_left_is_caught: LeavesTheTornTail by Groups;
    a_last_group_that_is_not_written_again_is_caught: DoesNotWriteAgain by Failures, Lives;
    what_is_found_and_not_synced_is_caught: DoesNotSyncWhatItFound by Stops, Failures, Lives;
    what_is_noted_to_be_durable_before_the_sync_is_caught: NotesBeforeTheSync by Stops, Failures;
    a_lost_end_that_is_taken_for_the_end_is_caught: IgnoresALostEnd by Cuts;
    a_merge_that_drops_a_run_is_caught: MergesWithoutTheLastRun by Stops, Lives;
}

fn history_is_caught(name: &str) {
    quietly();
    let found = histories::without_order(30, false);
    plant(None);
    let which = found.err().unwrap_or_else(|| panic!("{name} was not caught"));
    sim::say(&format!("caught {name}: {which}"));
}

#[test]
fn reads_that_see_what_is_staged_have_no_order() {
    plant(Some(Bug::ShowsWhatIsStaged));
    history_is_caught("ShowsWhatIsStaged");
}

#[test]
fn versions_that_stay_in_memory_have_no_order() {
    plant(Some(Bug::KeepsOldVersions));
    history_is_caught("KeepsOldVersions");
}

/// A disk that leaves something out.
struct Lax {
    disk: FaultyDisk,
    directory_syncs: bool,
    file_syncs: bool,
    segment_was_named: AtomicBool,
}

impl Disk for Lax {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(LaxFile { file: self.disk.open(name)?, syncs: self.file_syncs }))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(LaxFile { file: self.disk.create(name)?, syncs: self.file_syncs }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.segment_was_named.store(to.ends_with(".seg"), Ordering::SeqCst);
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        if self.segment_was_named.swap(false, Ordering::SeqCst) && !self.directory_syncs {
            return Ok(());
        }
        self.disk.sync_directory()
    }
}

struct LaxFile {
    file: Arc<dyn File>,
    syncs: bool,
}

impl File for LaxFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn allocate(&self, end: u64) -> io::Result<()> {
        self.file.allocate(end)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
    fn sync(&self) -> io::Result<()> {
        if self.syncs { self.file.sync() } else { Ok(()) }
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

#[test]
fn a_segment_whose_directory_is_not_synced_is_caught() {
    sim::wrap(|disk| {
        let segment_was_named = AtomicBool::new(false);
        Arc::new(Lax { disk: disk.clone(), directory_syncs: false, file_syncs: true, segment_was_named })
    });
    is_caught("a segment without a sync of its directory", &[Family::Stops]);
}

#[test]
fn a_disk_whose_syncs_lie_is_caught() {
    sim::wrap(|disk| {
        let segment_was_named = AtomicBool::new(false);
        Arc::new(Lax { disk: disk.clone(), directory_syncs: true, file_syncs: false, segment_was_named })
    });
    is_caught("a disk whose syncs do nothing", &[Family::Stops]);
}
