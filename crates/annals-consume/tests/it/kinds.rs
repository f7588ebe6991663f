//! Sources of several kinds, that can be written to, lose what was written, and fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_consume::{Checkpoints, Ladder, LogReader, Read, Resumed, Source, WriteError};
use annals_core::{
    Append, Cause, EventStore, Expected, MemoryStore, NewEvent, Query, RecordedEvent, StreamId, Witness,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What a test needs of a source: items are pairs of a key and a number.
pub trait Kind: Clone + Send + Sync + 'static {
    type Source: Source;

    fn new() -> Self;
    /// Adds items. Those of one key have numbers that grow.
    fn add(&self, items: &[(&str, u64)]) -> impl Future<Output = ()> + Send;
    /// What an item is.
    fn read(item: &<Self::Source as Source>::Item) -> (String, u64);
    /// Opens the source where nothing was consumed, or at this checkpoint.
    fn open(
        &self,
        at: Option<&<Self::Source as Source>::Checkpoint>,
    ) -> impl Future<Output = Resumed<Self::Source>> + Send;
    /// A copy of the checkpoint, as a store would keep it.
    fn copy(checkpoint: &<Self::Source as Source>::Checkpoint) -> <Self::Source as Source>::Checkpoint;
}

/// A log in memory.
#[derive(Clone)]
pub struct Log(Arc<MemoryStore>);

impl Kind for Log {
    type Source = LogReader;

    fn new() -> Self {
        Self(Arc::new(MemoryStore::new()))
    }

    async fn add(&self, items: &[(&str, u64)]) {
        for (key, number) in items {
            let event = NewEvent::new("counted", number.to_string()).unwrap();
            let append = Append::to(StreamId::new(format!("key-{key}")).unwrap(), Expected::Any, [event]);
            self.0.append(append).await.unwrap();
        }
    }

    fn read(event: &RecordedEvent) -> (String, u64) {
        let key = event.stream().strip_prefix("key-").unwrap().to_owned();
        (key, std::str::from_utf8(event.data()).unwrap().parse().unwrap())
    }

    async fn open(&self, at: Option<&Ladder>) -> Resumed<LogReader> {
        let checkpoint = at.cloned().unwrap_or_default();
        let seen = checkpoint.newest().unwrap_or(Witness::origin(self.0.id()));
        let store: Arc<dyn EventStore> = self.0.clone();
        Resumed { source: LogReader::new(store, seen, Query::all(), 7), checkpoint, notice: None }
    }

    fn copy(ladder: &Ladder) -> Ladder {
        Ladder::from_bytes(&ladder.to_bytes()).unwrap()
    }
}

/// Two partitions, each with an order of its own. Its cursors are names, and its checkpoint has one for each
/// partition.
#[derive(Clone)]
pub struct Partitions(Arc<Parts>);

#[derive(Default)]
pub struct Parts {
    records: Mutex<[Vec<(String, u64)>; 2]>,
    added: Notify,
    fails: AtomicBool,
}

pub struct PartitionReader {
    parts: Arc<Parts>,
    /// The partition that is read next, so that both are.
    turn: usize,
    next: [usize; 2],
}

/// `left/17`: the eighteenth record of the left partition.
pub type Name = String;

fn partition(key: &[u8]) -> usize {
    usize::from(key.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 2 == 0)
}

fn name(partition: usize, offset: usize) -> Name {
    format!("{}/{offset}", ["left", "right"][partition])
}

/// A record with its name.
#[derive(Clone)]
pub struct Record(Name, String, u64);

impl Source for PartitionReader {
    type Item = Record;
    type Cursor = Name;
    type Checkpoint = BTreeMap<String, Name>;

    fn key(Record(_, key, _): &Record) -> impl std::hash::Hash + '_ {
        key
    }

    fn name(Record(name, ..): &Record) -> String {
        name.clone()
    }

    fn cursor(Record(name, ..): &Record) -> Name {
        name.clone()
    }

    fn bytes(_: &Record) -> usize {
        100
    }

    fn advance(checkpoint: &mut BTreeMap<String, Name>, applied: &[Name]) {
        for name in applied {
            let (partition, _) = name.split_once('/').unwrap();
            checkpoint.insert(partition.to_owned(), name.clone());
        }
    }

    async fn read(&mut self) -> Result<Read<Self>, Cause> {
        if self.parts.fails.swap(false, Ordering::Relaxed) {
            return Err("the partitions are away".into());
        }
        let records = self.parts.records.lock();
        let mut items = Vec::new();
        for partition in [self.turn, 1 - self.turn] {
            for _ in 0..3 {
                let offset = self.next[partition];
                let Some((key, number)) = records[partition].get(offset) else { break };
                items.push(Record(name(partition, offset), key.clone(), *number));
                self.next[partition] += 1;
            }
        }
        self.turn = 1 - self.turn;
        let is_end = (0..2).all(|partition| self.next[partition] == records[partition].len());
        Ok(Read::Page { items, through: None, is_end })
    }

    async fn wait(&mut self) -> Result<(), Cause> {
        loop {
            let added = self.parts.added.notified();
            if (0..2).any(|partition| self.next[partition] < self.parts.records.lock()[partition].len()) {
                return Ok(());
            }
            added.await;
        }
    }
}

impl Kind for Partitions {
    type Source = PartitionReader;

    fn new() -> Self {
        Self(Arc::default())
    }

    async fn add(&self, items: &[(&str, u64)]) {
        for (key, number) in items {
            self.0.records.lock()[partition(key.as_bytes())].push(((*key).to_owned(), *number));
        }
        self.0.added.notify_one();
    }

    fn read(Record(_, key, number): &Record) -> (String, u64) {
        (key.clone(), *number)
    }

    async fn open(&self, at: Option<&BTreeMap<String, Name>>) -> Resumed<PartitionReader> {
        let checkpoint = at.cloned().unwrap_or_default();
        let mut next = [0; 2];
        for name in checkpoint.values() {
            let (partition, offset) = name.split_once('/').unwrap();
            next[usize::from(partition == "right")] = offset.parse::<usize>().unwrap() + 1;
        }
        self.0.fails.store(true, Ordering::Relaxed);
        let source = PartitionReader { parts: self.0.clone(), turn: 0, next };
        Resumed { source, checkpoint, notice: None }
    }

    fn copy(checkpoint: &BTreeMap<String, Name>) -> BTreeMap<String, Name> {
        checkpoint.clone()
    }
}

/// Keeps checkpoints in memory.
pub struct Kept<K: Kind> {
    pub kind: K,
    pub stored: Arc<Mutex<Option<<K::Source as Source>::Checkpoint>>>,
    /// How often a checkpoint was stored.
    pub writes: Arc<Mutex<usize>>,
    /// How the next ones fail.
    pub failures: Arc<Mutex<Vec<WriteError>>>,
    /// Whether writes do not end.
    pub hangs: Arc<AtomicBool>,
}

impl<K: Kind> Kept<K> {
    pub fn new(kind: &K) -> Self {
        Self {
            kind: kind.clone(),
            stored: Arc::default(),
            writes: Arc::default(),
            failures: Arc::default(),
            hangs: Arc::default(),
        }
    }
}

impl<K: Kind> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind.clone(),
            stored: self.stored.clone(),
            writes: self.writes.clone(),
            failures: self.failures.clone(),
            hangs: self.hangs.clone(),
        }
    }
}

impl<K: Kind> Checkpoints<K::Source> for Kept<K> {
    async fn resume(&self) -> Result<Resumed<K::Source>, Cause> {
        let stored = self.stored.lock().as_ref().map(K::copy);
        Ok(self.kind.open(stored.as_ref()).await)
    }

    async fn write(&self, checkpoint: &mut <K::Source as Source>::Checkpoint) -> Result<(), WriteError> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.failures.lock().pop() {
            return Err(error);
        }
        *self.stored.lock() = Some(K::copy(checkpoint));
        *self.writes.lock() += 1;
        Ok(())
    }
}
