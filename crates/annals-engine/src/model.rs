//! The model: the engine itself, on the threads of a scheduler that tries orders of their steps at random, thousands of
//! them. Whatever the order:
//!
//! - a reader never sees a head without the events below it;
//! - nobody is answered before everybody can read what was appended;
//! - groups become durable in the order in which they were staged, and whoever waits for one wakes up;
//! - a store that is closed comes to an end.
//!
//! Run by `cargo test -p annals-engine --features planted,shuttle --lib model`, as `cargo xtask test` does. With these
//! features no other test of the library can run.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_core::{
    Append, EventStore, EventStoreExt, Expected, LogRead, NewEvent, Position, Query, StreamId, TestClock,
    Timestamp,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, future, thread};

use crate::disk::faulty::FaultyDisk;
use crate::disk::{Disk, File};
use crate::planted::{Bug, plant};
use crate::{EngineStore, Options};

/// A disk before each of whose operations others may go first.
struct Yielding(FaultyDisk);

struct YieldingFile(Arc<dyn File>);

impl Disk for Yielding {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(YieldingFile(self.0.open(name)?)))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(YieldingFile(self.0.create(name)?)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }
}

impl File for YieldingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        thread::yield_now();
        self.0.write_at(bytes, offset)
    }
    fn allocate(&self, end: u64) -> io::Result<()> {
        self.0.allocate(end)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
    fn sync(&self) -> io::Result<()> {
        thread::yield_now();
        self.0.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

fn run(scheduler: impl Scheduler + 'static, body: fn()) {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(body);
}

/// Tries so many orders at random, and as many in which few threads are held up for long.
fn explore(orders: usize, body: fn()) {
    run(RandomScheduler::new_from_seed(7, orders), body);
    run(PctScheduler::new_from_seed(7, 3, orders), body);
}

fn is_caught(bug: Bug, orders: usize, body: fn()) {
    plant(Some(bug));
    let caught = catch_unwind(AssertUnwindSafe(|| explore(orders, body)));
    plant(None);
    let panic = caught.expect_err("the planted bug was not caught");
    let text = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
    use std::io::Write as _;
    let line = format!("caught {bug:?} in the model: {}\n", text.lines().next().unwrap_or_default());
    let _ = std::io::stdout().write_all(line.as_bytes());
}

fn append(name: &str, number: usize) -> Append {
    let event = NewEvent::new("thing.happened", number.to_string()).expect("a fine event");
    Append::to(StreamId::new(name).expect("a fine name"), Expected::Any, [event])
}

/// Two writers and a reader, on runs and segments so small that they are sealed and rolled meanwhile.
fn a_store() {
    let options = Options {
        segment_bytes: 400,
        run_events: 2,
        clock: Arc::new(TestClock::at(Timestamp::from_micros(0))),
        ..Options::default()
    };
    let disk = FaultyDisk::new();
    let store = Arc::new(EngineStore::on(Arc::new(Yielding(disk)), options).expect("an empty disk opens"));
    let writers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let store = store.clone();
            thread::spawn(move || {
                for number in 0..3 {
                    let done =
                        future::block_on(store.append(append(name, number))).expect("nothing fails here");
                    let head = future::block_on(store.head()).expect("a head is known");
                    assert!(head >= done.last, "{} was answered, and the head is {head}", done.last);
                    let read = LogRead::forward(done.first).limit(1);
                    let page = future::block_on(store.read_log(read)).expect("nothing fails here");
                    assert_eq!(page.events.first().map(|event| event.position), Some(done.first));
                }
            })
        })
        .collect();
    let reader = {
        let store = store.clone();
        thread::spawn(move || {
            for _ in 0..12 {
                let page = future::block_on(store.read_log(LogRead::forward(Position::FIRST)));
                let page = page.expect("nothing fails here");
                assert_eq!(page.events.len() as u64, page.head.get(), "a head, and not the events below it");
            }
        })
    };
    for thread in writers.into_iter().chain([reader]) {
        thread.join().expect("it ends");
    }
    future::block_on(store.close()).expect("nothing failed");
    let log = future::block_on(store.log_events(Query::all())).expect("nothing fails here");
    assert_eq!(log.len(), 6);
}

const ORDERS: usize = 1_000;

#[test]
fn a_store_is_right_in_every_order() {
    explore(ORDERS, a_store);
}

#[test]
fn answers_before_publication_are_caught() {
    is_caught(Bug::PublishesAfterTheAnswers, ORDERS, a_store);
}

#[test]
fn a_view_that_takes_the_lists_first_is_caught() {
    is_caught(Bug::TakesTheListsFirst, ORDERS * 20, a_store);
}

#[test]
fn two_who_write_at_once_are_caught() {
    is_caught(Bug::TakesATurnThatIsTaken, ORDERS * 20, a_store);
}

#[test]
fn a_wake_up_that_is_lost_is_caught() {
    is_caught(Bug::ForgetsToWake, ORDERS, a_store);
}
