//! What is under way when a group fails, and when the store is closed.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use annals_core::{Error, EventStore, Expected};
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::disk::{Disk, File};
use annals_engine::{EngineStore, Options};

use crate::common::{all, append};

/// A disk whose syncs wait while its gate is shut.
#[derive(Clone)]
struct Gated {
    disk: FaultyDisk,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    waiting: bool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting = true;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.shut).unwrap();
        state.waiting = false;
    }
}

impl Gated {
    fn new() -> Self {
        Self { disk: FaultyDisk::new(), gate: Arc::default() }
    }

    fn shut(&self, shut: bool) {
        self.gate.state.lock().unwrap().shut = shut;
        self.gate.changed.notify_all();
    }

    /// Waits until the writer stands before the gate.
    fn await_sync(&self) {
        let state = self.gate.state.lock().unwrap();
        drop(self.gate.changed.wait_while(state, |state| !state.waiting).unwrap());
    }

    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GatedFile { file, gate: self.gate.clone() })
    }
}

impl Disk for Gated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.disk.open(name)?))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.disk.create(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GatedFile {
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
        self.gate.pass();
        self.file.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

fn open(disk: &Gated) -> Arc<EngineStore> {
    // The one thread of a test must not wait before the gate.
    let options = Options { callers_may_wait: false, ..Options::default() };
    Arc::new(EngineStore::on(Arc::new(disk.clone()), options).unwrap())
}

/// Lets every task go as far as it can by itself.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// W1, G9: an outcome that rests on an earlier append is reported once that one is durable, and not if it
/// failed.
#[tokio::test]
async fn nothing_is_answered_from_what_fails() {
    let disk = Gated::new();
    let store = open(&disk);
    store.append(append("account-1", 0, 1)).await.unwrap();
    disk.shut(true);
    let send = |append| {
        let store = store.clone();
        tokio::spawn(async move { store.append(append).await })
    };
    let first = send(append("account-1", 1, 1));
    settle().await;
    disk.await_sync();
    // These are the next group.
    let staged = append("account-1", 2, 1);
    let mut reused = append("account-1", 3, 2);
    reused.writes[1].event.id = staged.writes[0].event.id;
    let mut stale = append("account-1", 4, 1);
    stale = stale.expecting(crate::common::stream("account-1"), Expected::NoStream);
    let (staged, repeated) = (send(staged.clone()), send(staged));
    settle().await;
    let (reused, stale) = (send(reused), send(stale));
    settle().await;
    // The first's sync, then the write and the sync of the group.
    let operations = disk.disk.operations();
    disk.disk.plan(Plan { fail_at: Some(operations + 3), ..Plan::default() });
    disk.shut(false);
    first.await.unwrap().unwrap();
    assert!(matches!(staged.await.unwrap(), Err(Error::Indeterminate(_))));
    for answer in [repeated, reused, stale] {
        let answer = answer.await.unwrap();
        assert!(matches!(answer, Err(Error::Poisoned(_))), "{answer:?}");
    }
    assert_eq!(all(&store).await.len(), 2);
}

/// More appends than any queue of the store should be short for.
const CROWD: usize = 6_000;

/// A store is closed by the only thread that its callers run on, while thousands wait: each is executed or
/// refused.
#[tokio::test]
async fn a_store_closes_under_a_crowd() {
    let disk = Gated::new();
    let store = open(&disk);
    store.append(append("account-1", 0, 1)).await.unwrap();
    disk.shut(true);
    let started = Arc::new(AtomicUsize::new(0));
    let crowd: Vec<_> = (0..CROWD)
        .map(|number| {
            let (store, started) = (store.clone(), started.clone());
            tokio::spawn(async move {
                started.fetch_add(1, Ordering::SeqCst);
                store.append(append("account-1", number, 1)).await
            })
        })
        .collect();
    while started.load(Ordering::SeqCst) < CROWD {
        tokio::task::yield_now().await;
    }
    let opener = {
        let disk = disk.clone();
        std::thread::spawn(move || disk.shut(false))
    };
    // The one thread that the tasks run on is taken by the close.
    store.close().await.unwrap();
    opener.join().unwrap();
    let mut written = 1;
    for task in crowd {
        match task.await.unwrap() {
            Ok(_) => written += 1,
            Err(Error::Closed) => {}
            Err(other) => panic!("{}", other.chain()),
        }
    }
    assert_eq!(all(&store).await.len(), written);
}
