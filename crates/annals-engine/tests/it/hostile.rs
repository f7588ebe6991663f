//! Callers that come, give up and close in the wrong moment, on disks that fill, fail and stall.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::{
    Append, Appended, Error, EventStore, EventStoreExt, EventType, IdempotencyKey, NewEvent, Query,
    QueryItem, Tag, Write,
};
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::disk::{Disk, File};
use annals_engine::{EngineStore, Options, verify_disk};

use crate::common::{Random, all, append, check, open, stream};

/// What is done before a file is created or synced.
type Before = Arc<dyn Fn(&'static str, &str) + Send + Sync>;

/// A disk that may be held up.
struct Slow(FaultyDisk, Before);

struct SlowFile(Arc<dyn File>, String, Before);

impl Disk for Slow {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SlowFile(self.0.open(name)?, name.to_owned(), self.1.clone())))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        (self.1)("create", name);
        Ok(Arc::new(SlowFile(self.0.create(name)?, name.to_owned(), self.1.clone())))
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

impl File for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn allocate(&self, end: u64) -> io::Result<()> {
        self.0.allocate(end)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
    fn sync(&self) -> io::Result<()> {
        (self.2)("sync", &self.1);
        self.0.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

/// One life of a store in which everything happens at once.
async fn one_life(seed: u64) {
    let mut random = Random::new(seed);
    let options = Options {
        segment_bytes: [400, 2 << 10, 64 << 10, 3 << 20][random.below(4) as usize],
        run_events: [1, 2, 5, 1 << 16][random.below(4) as usize],
        callers_may_wait: random.below(4) > 0,
        ..Options::default()
    };
    let disk = FaultyDisk::new();
    let store = Arc::new(open(&disk, options.clone()).unwrap());
    let (fails, fills, closes) = (random.below(3) == 0, random.below(3) == 0, random.below(2) == 0);
    let large = random.below(6) == 0;
    let sync_micros = [0, 0, 50, 700][random.below(4) as usize];
    let fail_at = fails.then(|| disk.operations() + 1 + random.below(60));
    disk.plan(Plan { fail_at, seed, sync_micros, ..Plan::default() });
    let tasks: Vec<_> = (0..6_u64)
        .map(|task| {
            let (store, disk) = (store.clone(), disk.clone());
            let mut random = Random::new(seed * 100 + task);
            tokio::spawn(async move {
                let mut done: Vec<(Append, Appended)> = Vec::new();
                for number in 0..12 {
                    let name = format!("account-{}", random.below(3));
                    let mut append = append(&name, number, 1 + random.below(3) as usize);
                    if large && random.below(6) == 0 {
                        append.writes[0].event.data = text_of(2_300_000).into();
                    }
                    if random.below(3) == 0 {
                        append = append.once(IdempotencyKey::new(format!("{task} {number}")).unwrap());
                    }
                    let given = append.clone();
                    let answer = if random.below(4) == 0 {
                        let patience = Duration::from_micros(random.below(400));
                        let Ok(answer) = tokio::time::timeout(patience, store.append(append)).await else {
                            continue;
                        };
                        answer
                    } else {
                        store.append(append).await
                    };
                    match answer {
                        Ok(appended) => {
                            // Nobody is answered before it is durable.
                            if !large && number % 4 == 0 {
                                let text = given.writes[0].event.data.clone();
                                let files = disk.restart(0).files();
                                let found = files.iter().any(|(name, bytes)| {
                                    name.ends_with(".seg")
                                        && bytes.windows(text.len()).any(|window| *window == *text)
                                });
                                assert!(found, "answered, and not durable");
                            }
                            assert!(store.head().await.unwrap() >= appended.last);
                            done.push((given, appended));
                        }
                        Err(
                            Error::Unavailable(_)
                            | Error::Closed
                            | Error::Poisoned(_)
                            | Error::Indeterminate(_),
                        ) => {}
                        Err(other) => panic!("{}", other.chain()),
                    }
                    if random.below(5) == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                done
            })
        })
        .collect();
    let upheaval = {
        let (store, disk) = (store.clone(), disk.clone());
        tokio::spawn(async move {
            for _ in 0..random.below(30) {
                tokio::task::yield_now().await;
            }
            if fills {
                let used: usize = disk.files().values().map(Vec::len).sum();
                let capacity = Some(used as u64 + random.below(600));
                disk.plan(Plan { capacity, sync_micros, ..Plan::default() });
                tokio::time::sleep(Duration::from_millis(random.below(4))).await;
                disk.plan(Plan { sync_micros, ..Plan::default() });
            }
            for _ in 0..random.below(30) {
                tokio::task::yield_now().await;
            }
            if closes {
                let _ = store.close().await;
                assert!(store.append(append("account-1", 0, 1)).await.is_err());
            }
        })
    };
    let reader = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut before = Vec::new();
            for _ in 0..10 {
                let log = all(&store).await;
                assert!(log.len() >= before.len() && log[..before.len()] == before[..]);
                before = log;
                tokio::task::yield_now().await;
            }
        })
    };
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap());
    }
    upheaval.await.unwrap();
    reader.await.unwrap();
    // Appends that were given up may still be under way.
    let _ = store.close().await;
    check(&store, &done).await;
    drop(store);
    disk.plan(Plan::default());
    let disk = disk.restart(seed % 5);
    let again = open(&disk, options).unwrap();
    check(&again, &done).await;
    for (append, appended) in &done {
        let second = again.append(append.clone()).await.unwrap();
        assert!(second.duplicate && (second.first, second.last) == (appended.first, appended.last));
    }
    again.close().await.unwrap();
    drop(again);
    let found = verify_disk(&disk, &mut |_, _| {}).unwrap();
    assert_eq!(found.damage, vec![]);
}

/// A JSON string of this many bytes.
fn text_of(bytes: usize) -> Vec<u8> {
    let mut text = vec![b'x'; bytes];
    (text[0], text[bytes - 1]) = (b'"', b'"');
    text
}

/// Ends the process if this takes too long: what waits forever cannot be waited for.
fn within(seconds: u64, what: String) -> impl Drop {
    struct Watch(Arc<AtomicBool>);
    impl Drop for Watch {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let over = Arc::new(AtomicBool::new(false));
    let watch = over.clone();
    std::thread::spawn(move || {
        for _ in 0..seconds * 10 {
            std::thread::sleep(Duration::from_millis(100));
            if watch.load(Ordering::SeqCst) {
                return;
            }
        }
        let _ = io::Write::write_all(&mut io::stderr(), format!("{what} did not end\n").as_bytes());
        std::process::abort();
    });
    Watch(over)
}

#[test]
fn everything_at_once_on_one_thread() {
    for seed in 0..40 {
        let _watch = within(100, format!("life {seed}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(one_life(seed));
    }
}

#[test]
fn everything_at_once_on_many_threads() {
    for seed in 0..40 {
        let _watch = within(100, format!("life {seed}"));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
        runtime.block_on(one_life(seed));
    }
}

/// Every event is found by just its terms, whether it was indexed with those of the one before or not.
#[tokio::test]
async fn what_is_alike_is_found_by_its_own_terms() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let run_events = [3, 40, 1 << 16][random.below(3) as usize];
        let options = Options { segment_bytes: 16 << 10, run_events, ..Options::default() };
        let disk = FaultyDisk::new();
        let store = open(&disk, options.clone()).unwrap();
        let mut keys = Vec::new();
        for number in 0..40 {
            let mut append = append("a", number, 1);
            append.writes.clear();
            for index in 0..1 + random.below(6) {
                let kind = ["thing.happened", "thing.ended"][random.below(2) as usize];
                let mut event = NewEvent::new(kind, format!("\"{number}.{index}\"")).unwrap();
                let pick =
                    |random: &mut Random, of: &[&'static str]| of[random.below(of.len() as u64) as usize];
                for _ in 0..random.below(3) {
                    event = event.with_tag(Tag::new(pick(&mut random, &["x:1", "y:2"])).unwrap());
                }
                if random.below(3) == 0 {
                    event.metadata.process = Some(pick(&mut random, &["p", "q"]).into());
                }
                if random.below(3) == 0 {
                    event.metadata.initiator = Some(pick(&mut random, &["p", "q"]).into());
                }
                let stream = stream(pick(&mut random, &["a-1", "a-1", "a-1", "a-2", "b"]));
                append.writes.push(Write { stream, event });
            }
            if random.below(2) == 0 {
                let key = IdempotencyKey::new(format!("key {number}")).unwrap();
                append = append.once(key.clone());
                keys.push((key, store.append(append).await.unwrap()));
            } else {
                store.append(append).await.unwrap();
            }
        }
        let look = async |store: &EngineStore| {
            check(store, &[]).await;
            let log = all(store).await;
            let tag = |name| QueryItem { tags: vec![Tag::new(name).unwrap()], ..QueryItem::default() };
            let of_type =
                |name| QueryItem { types: vec![EventType::new(name).unwrap()], ..QueryItem::default() };
            let process = QueryItem { process: Some("p".into()), ..QueryItem::default() };
            let initiator = QueryItem { initiator: Some("p".into()), ..QueryItem::default() };
            let items = [
                of_type("thing.ended"),
                of_type("thing.happened"),
                tag("x:1"),
                tag("y:2"),
                process,
                initiator,
            ];
            for item in items {
                let query = Query::item(item);
                let found = store.log_events(query.clone()).await.unwrap();
                let wanted: Vec<_> = log.iter().filter(|event| query.matches(event)).cloned().collect();
                assert_eq!(found, wanted, "{query:?}");
            }
            for (key, appended) in &keys {
                let found = store.outcome(key).await.unwrap().unwrap();
                assert_eq!((found.first, found.last), (appended.first, appended.last));
            }
        };
        look(&store).await;
        drop(store);
        let found = verify_disk(&disk, &mut |_, _| {}).unwrap();
        assert_eq!(found.damage, vec![]);
        look(&open(&disk, options).unwrap()).await;
    }
}

/// An append that comes alone is executed by its caller; the thread of a runtime is not held up by background
/// work: here runs cannot be sealed until another task of the thread has its turn.
#[test]
fn a_caller_does_not_wait_for_runs_to_be_sealed() {
    let _watch = within(20, "an append on the only thread of a runtime".into());
    let shut = Arc::new((Mutex::new(true), std::sync::Condvar::new()));
    let before: Before = {
        let shut = shut.clone();
        Arc::new(move |what, name| {
            if what == "create" && name.contains(".idx") {
                drop(shut.1.wait_while(shut.0.lock().unwrap(), |shut| *shut).unwrap());
            }
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let options = Options { run_events: 1, ..Options::default() };
        let disk = Slow(FaultyDisk::new(), before);
        let store = Arc::new(EngineStore::on(Arc::new(disk), options).unwrap());
        let ends = Arc::new(AtomicBool::new(false));
        let writer = {
            let (store, ends) = (store.clone(), ends.clone());
            tokio::spawn(async move {
                for number in 0..20 {
                    store.append(append("account-1", number, 1)).await.unwrap();
                }
                ends.store(true, Ordering::SeqCst);
            })
        };
        let mut turns = 0;
        while !ends.load(Ordering::SeqCst) && turns < 2_000 {
            turns += 1;
            std::thread::sleep(Duration::from_micros(50));
            tokio::task::yield_now().await;
        }
        *shut.0.lock().unwrap() = false;
        shut.1.notify_all();
        writer.await.unwrap();
    });
}

/// A store that is closed is at rest: all that ended is sealed.
#[tokio::test]
async fn runs_are_sealed_when_a_store_is_closed() {
    let before: Before = Arc::new(|what, name| {
        if what == "create" && name.contains(".idx") {
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    let disk = FaultyDisk::new();
    let options = Options { run_events: 2, ..Options::default() };
    let store = EngineStore::on(Arc::new(Slow(disk.clone(), before)), options).unwrap();
    for number in 0..7 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    store.close().await.unwrap();
    let indexes = |disk: &FaultyDisk| disk.files().into_keys().filter(|name| name.ends_with(".idx")).count();
    let found = indexes(&disk);
    drop(store);
    assert_eq!(found, indexes(&disk), "runs were sealed behind the close");
}
