//! Stores, appends and what to expect of them.

use std::sync::Arc;

use annals_core::{
    Append, Appended, EventStore, EventStoreExt, Expected, NewEvent, Position, Query, RecordedEvent, StreamId,
};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::disk::{Disk, File};
use annals_engine::{EngineStore, Options};

pub fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

pub fn event(text: &str) -> NewEvent {
    NewEvent::new("thing.happened", format!("\"{text}\"")).unwrap()
}

/// Options under which a few dozen events fill a segment.
pub fn small_segments() -> Options {
    Options { segment_bytes: 2 << 10, ..Options::default() }
}

pub fn open(disk: &FaultyDisk, options: Options) -> annals_core::Result<EngineStore> {
    EngineStore::on(Arc::new(disk.clone()), options)
}

/// An append of `count` events whose texts tell where they belong.
pub fn append(name: &str, number: usize, count: usize) -> Append {
    let events = (0..count).map(|index| event(&format!("{name} {number}.{index}")));
    Append::to(stream(name), Expected::Any, events.collect::<Vec<_>>())
}

pub async fn all(store: &EngineStore) -> Vec<RecordedEvent> {
    store.log_events(Query::all()).await.unwrap()
}

/// Checks that the log holds these appends, in order, and after them at most whole others; and that every way
/// to read it agrees.
pub async fn check(store: &EngineStore, acknowledged: &[(Append, Appended)]) {
    let log = all(store).await;
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.position(), Position::new(index as u64 + 1), "positions have no gaps");
    }
    for (append, outcome) in acknowledged {
        let from = outcome.first.get() as usize - 1;
        for (offset, write) in append.writes.iter().enumerate() {
            let found = log.get(from + offset).unwrap_or_else(|| {
                panic!("lost: position {} of {}, which was acknowledged", from + offset + 1, log.len())
            });
            assert_eq!((found.stream(), found.to_new()), (write.stream.as_str(), write.event.clone()));
            assert_eq!(found.append(), outcome.first);
        }
    }
    for name in log.iter().map(RecordedEvent::stream_id).collect::<std::collections::BTreeSet<_>>() {
        let of_log: Vec<_> = log.iter().filter(|event| event.stream() == name).cloned().collect();
        assert_eq!(
            store.stream_events(&name).await.unwrap(),
            of_log,
            "the stream {name} reads as in the log"
        );
        for (index, event) in of_log.iter().enumerate() {
            assert_eq!(event.version().get(), index as u64 + 1, "versions of {name} have no gaps");
        }
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Waits for all of them, going on with each whenever it can.
pub async fn join<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().any(Option::is_none) {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(outputs.iter_mut().map(|output| output.take().unwrap()).collect())
    })
    .await
}

/// What is asked before each read: the file's name, and the first byte that is read and the one behind the
/// last.
pub type OnRead = Arc<dyn Fn(&str, u64, u64) -> std::io::Result<()> + Send + Sync>;

/// A disk whose reads are looked at, and may fail.
pub struct Observed(pub FaultyDisk, pub OnRead);

struct ObservedFile(Arc<dyn File>, String, OnRead);

impl Observed {
    fn observe(&self, file: std::io::Result<Arc<dyn File>>, name: &str) -> std::io::Result<Arc<dyn File>> {
        Ok(Arc::new(ObservedFile(file?, name.to_owned(), self.1.clone())))
    }
}

impl Disk for Observed {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn File>> {
        self.observe(self.0.open(name), name)
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn File>> {
        self.observe(self.0.create(name), name)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn sync_directory(&self) -> std::io::Result<()> {
        self.0.sync_directory()
    }
}

impl File for ObservedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        (self.2)(&self.1, offset, offset + buffer.len() as u64)?;
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn allocate(&self, end: u64) -> std::io::Result<()> {
        self.0.allocate(end)
    }
    fn truncate(&self, length: u64) -> std::io::Result<()> {
        self.0.truncate(length)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn length(&self) -> std::io::Result<u64> {
        self.0.length()
    }
}

/// A closed log of several segments: its disk and its events.
pub async fn several_segments(appends: usize) -> (FaultyDisk, Vec<RecordedEvent>) {
    let disk = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    for number in 0..appends {
        let key = annals_core::IdempotencyKey::new(format!("key {number}")).unwrap();
        let append = append(&format!("account-{}", number % 5), number, 1 + number % 3).once(key);
        store.append(append).await.unwrap();
    }
    let events = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    (disk, events)
}

/// Names of the segments on a disk, in order.
pub fn segments(disk: &FaultyDisk) -> Vec<String> {
    disk.files().into_keys().filter(|name| name.ends_with(".seg")).collect()
}
