//! The model: the engine itself, run on the threads of a scheduler that tries thousands of random
//! interleavings of their steps. In every interleaving:
//!
//! - a reader never sees a head without the events below it;
//! - an append is answered only after all readers can read its events;
//! - groups become durable in the order in which they were staged, and the callers that wait for one wake up;
//! - closing a store terminates.
//!
//! Run by `cargo test -p annals-engine --features shuttle --lib model`, and by `cargo xtask planted` with
//! bugs that it must catch. With this feature no other test of the library can run.

use std::io;
use std::sync::Arc;

use annals_core::{
    Append, EventStore, EventStoreExt, Expected, LogRead, NewEvent, Position, Query, StreamId, TestClock,
    Timestamp,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, future, thread};

use crate::disk::faulty::FaultyDisk;
use crate::disk::{Disk, File};
use crate::{EngineStore, Options};

/// A disk that yields to other threads before each write and sync.
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

/// The seed of the random interleavings.
const SEED: u64 = 7;

/// Tries `orders` random interleavings, and as many in which few threads are delayed for long.
fn explore(orders: usize, body: fn()) {
    explore_from(SEED, orders, body);
}

fn explore_from(seed: u64, orders: usize, body: fn()) {
    run(RandomScheduler::new_from_seed(seed, orders), body);
    run(PctScheduler::new_from_seed(seed, 3, orders), body);
}

fn append(name: &str, number: usize) -> Append {
    let event = NewEvent::new("thing.happened", number.to_string()).expect("a fine event");
    Append::to(StreamId::new(name).expect("a fine name"), Expected::Any, [event])
}

/// Two writers and a reader, with runs and segments so small that sealing and rolling run concurrently.
fn a_store() {
    let options = Options {
        segment_bytes: 600,
        run_events: 4,
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
                    assert_eq!(page.events.first().map(|event| event.position()), Some(done.first));
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

/// A store on this disk, with segments of 400 bytes and runs of `run_events` events.
fn tiny(disk: &FaultyDisk, run_events: u32) -> Arc<EngineStore> {
    let options = Options {
        segment_bytes: 400,
        run_events,
        clock: Arc::new(TestClock::at(Timestamp::from_micros(0))),
        ..Options::default()
    };
    Arc::new(EngineStore::on(Arc::new(Yielding(disk.clone())), options).expect("an empty disk opens"))
}

/// Two events with the same terms, whose data is a unique text.
fn pair(name: &str, number: usize) -> Append {
    let events = (0..2).map(|event| {
        NewEvent::new("thing.happened", format!("<{name} {number} {event}>")).expect("a fine event")
    });
    Append::to(StreamId::new(name).expect("a fine name"), Expected::Any, events.collect::<Vec<_>>())
}

/// Whether this text would be in a segment after a crash now.
fn is_durable(disk: &FaultyDisk, text: &str) -> bool {
    let files = disk.restart(0).files();
    let mut segments = files.iter().filter(|(name, _)| name.ends_with(".seg"));
    segments.any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// Writers with several concurrent appends each, of which one is cancelled, while the store is closed and
/// perhaps an operation of the disk fails.
fn a_store_that_is_closed_early() {
    use shuttle::rand::Rng as _;
    let mut random = shuttle::rand::thread_rng();
    let disk = FaultyDisk::new();
    let run_events = random.gen_range(1..5);
    let store = tiny(&disk, run_events);
    if random.gen_range(0..2) == 0 {
        let fail_at = Some(disk.operations() + random.gen_range(1..30));
        disk.plan(crate::disk::faulty::Plan { fail_at, seed: random.gen_range(0..5), ..Default::default() });
    }
    let writers: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let (store, disk) = (store.clone(), disk.clone());
            thread::spawn(move || {
                let mut done = 0;
                for number in 0..2 {
                    let numbers = [number * 10, number * 10 + 1, number * 10 + 2];
                    let mut appends = numbers.map(|number| Some(store.append(pair(name, number))));
                    let mut answers: Vec<(usize, annals_core::Result<annals_core::Appended>)> = Vec::new();
                    let mut polls = 0;
                    future::block_on(std::future::poll_fn(|context| {
                        polls += 1;
                        for (append, number) in appends.iter_mut().zip(numbers) {
                            let Some(waiting) = append else { continue };
                            if let std::task::Poll::Ready(answer) = waiting.as_mut().poll(context) {
                                answers.push((number, answer));
                                *append = None;
                            }
                        }
                        if number == 0 && name == "a" {
                            // The caller cancels the append.
                            appends[2] = None;
                        }
                        if appends.iter().all(Option::is_none) {
                            return std::task::Poll::Ready(());
                        }
                        std::task::Poll::Pending
                    }));
                    for (number, answer) in answers {
                        match answer {
                            Ok(appended) => {
                                for event in 0..2 {
                                    let text = format!("<{name} {number} {event}>");
                                    assert!(
                                        is_durable(&disk, &text),
                                        "{text} was answered, and is not durable"
                                    );
                                }
                                assert_eq!(appended.first.plus(1), appended.last);
                                let read = LogRead::forward(appended.first).limit(2);
                                let page = future::block_on(store.read_log(read)).expect("reads go on");
                                let found: Vec<_> = page.events.iter().map(|event| event.stream()).collect();
                                assert_eq!(found, [name, name]);
                                done += 1;
                            }
                            Err(
                                annals_core::Error::Unavailable(_)
                                | annals_core::Error::Closed
                                | annals_core::Error::Poisoned(_),
                            ) => {}
                            Err(annals_core::Error::Indeterminate(_)) => {}
                            Err(other) => panic!("{}", other.chain()),
                        }
                    }
                }
                done
            })
        })
        .collect();
    let reader = {
        let store = store.clone();
        thread::spawn(move || {
            for _ in 0..6 {
                let page = future::block_on(store.read_log(LogRead::forward(Position::FIRST)));
                let page = page.expect("reads go on");
                assert_eq!(page.events.len() as u64, page.head.get(), "a head, and not the events below it");
                assert!(page.events.len().is_multiple_of(2), "half of an append");
                for name in ["a", "b", "c"] {
                    let of_log = page.events.iter().filter(|event| event.stream() == name).count();
                    let stream = StreamId::new(name).expect("a fine name");
                    let read = annals_core::StreamRead::forward(&stream, annals_core::Version::FIRST);
                    let events = future::block_on(store.read_stream(read)).expect("reads go on").events;
                    assert!(events.len() >= of_log);
                    let versions: Vec<_> = events.iter().map(|event| event.version().get()).collect();
                    assert_eq!(versions, (1..=events.len() as u64).collect::<Vec<_>>());
                }
            }
        })
    };
    let closer = {
        let store = store.clone();
        thread::spawn(move || {
            for _ in 0..shuttle::rand::thread_rng().gen_range(0..40) {
                thread::yield_now();
            }
            let _ = future::block_on(store.close());
        })
    };
    let done: usize = writers.into_iter().map(|writer| writer.join().expect("it ends")).sum();
    reader.join().expect("it ends");
    closer.join().expect("it ends");
    let late = future::block_on(store.append(pair("d", 0)));
    assert!(late.is_err(), "an append to a store that is closed");
    let log = future::block_on(store.log_events(Query::all())).expect("reads go on");
    assert!(log.len() >= 2 * done);
    disk.plan(crate::disk::faulty::Plan::default());
    drop(store);
    let again = tiny(&disk.restart(0), run_events);
    let found = future::block_on(again.log_events(Query::all())).expect("reads go on");
    assert!(found.len() >= log.len() && found[..log.len()] == log[..], "what was read is gone");
}

const ORDERS: usize = 1_000;

#[test]
fn a_store_may_be_closed_at_any_time() {
    explore(ORDERS / 4, a_store_that_is_closed_early);
}

#[test]
fn a_store_is_right_in_every_order() {
    explore(ORDERS, a_store);
}
