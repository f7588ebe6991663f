//! Snapshots: taken when they are due, used when they fit, and never believed more than the log.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::contract::Cause;
use annals::snapshot::{every, older_than};
use annals::{
    Aggregate, Annals, Append, EventStore, Expected, MemorySnapshots, MemoryStore, NewEvent, Snapshot,
    SnapshotStore, State, StoredSnapshot, StreamId, TestClock, Version,
};
use serde::{Deserialize, Serialize};

use crate::bank::{Account, AccountEvent, Bank, bank, bank_on, open_with};
use crate::faulty::FaultyStore;

/// Snapshots in memory that remember what was put.
pub struct Noted {
    pub kept: MemorySnapshots,
    pub put: Mutex<Vec<u64>>,
}

impl Noted {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { kept: MemorySnapshots::new(100), put: Mutex::default() })
    }
}

#[async_trait::async_trait]
impl SnapshotStore for Noted {
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause> {
        self.put.lock().unwrap().push(snapshot.version.get());
        self.kept.put(snapshot).await
    }
    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause> {
        self.kept.nearest(stream, schema, up_to).await
    }
    async fn forget(&self, stream: &StreamId) -> Result<(), Cause> {
        self.kept.forget(stream).await
    }
}

/// A store of snapshots that does not work at all.
struct Broken;

#[async_trait::async_trait]
impl SnapshotStore for Broken {
    async fn put(&self, _snapshot: StoredSnapshot) -> Result<(), Cause> {
        Err("broken".into())
    }
    async fn nearest(&self, _: &StreamId, _: &str, _: Version) -> Result<Option<StoredSnapshot>, Cause> {
        Err("broken".into())
    }
    async fn forget(&self, _stream: &StreamId) -> Result<(), Cause> {
        Err("broken".into())
    }
}

fn a1() -> StreamId {
    StreamId::new("account-a1").unwrap()
}

async fn counted() -> (Arc<FaultyStore>, Annals) {
    let store = FaultyStore::new([]);
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    (store, annals)
}

#[tokio::test]
async fn with_and_without_snapshots_the_state_is_the_same_at_every_version() {
    let annals = bank().await;
    let snapshots = Noted::new();
    let plain = annals.repository::<Account>();
    let quick = annals.repository::<Account>().snapshots_in(snapshots.clone(), every(3));
    quick.execute("a1", Bank::Open("kim")).await.unwrap();
    for amount in 1..=20 {
        quick.execute("a1", Bank::Deposit(amount)).await.unwrap();
        let (with, without) = (quick.load("a1").await.unwrap(), plain.load("a1").await.unwrap());
        assert_eq!(with, without);
        for version in 0..=with.version.get() {
            assert_eq!(quick.at("a1", version).await.unwrap(), plain.at("a1", version).await.unwrap());
        }
    }
    assert_eq!(*snapshots.put.lock().unwrap(), [3, 6, 9, 12, 15, 18, 21]);
}

#[tokio::test]
async fn a_snapshot_spares_the_events_before_it() {
    let (store, annals) = counted().await;
    open_with(&annals, "a1", 1).await;
    let deposits = (0..998).map(|_| NewEvent::new("account.deposited", r#"{"amount":1}"#).unwrap());
    annals.store().append(Append::to(a1(), Expected::Any, deposits)).await.unwrap();
    let accounts = annals.repository::<Account>().snapshots(every(100));
    accounts.load("a1").await.unwrap();
    let before = store.events_read.load(Ordering::SeqCst);
    assert_eq!(accounts.load("a1").await.unwrap().state.balance, 999);
    let read = store.events_read.load(Ordering::SeqCst) - before;
    assert_eq!(read, 1, "only the snapshot's own event is looked at");
    let before = store.events_read.load(Ordering::SeqCst);
    assert_eq!(accounts.execute("a1", Bank::Deposit(1)).await.unwrap().version.get(), 1_001);
    assert!(store.events_read.load(Ordering::SeqCst) - before <= 2);
}

#[tokio::test]
async fn several_snapshots_are_kept_so_that_the_past_is_near_too() {
    let (store, annals) = counted().await;
    let accounts = annals.repository::<Account>().snapshots(every(10));
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    for _ in 1..60 {
        accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    }
    let before = store.events_read.load(Ordering::SeqCst);
    assert_eq!(accounts.at("a1", 45).await.unwrap().state.balance, 44);
    let read = store.events_read.load(Ordering::SeqCst) - before;
    assert_eq!(read, 6, "from the snapshot at 40");
}

#[tokio::test]
async fn a_snapshot_is_taken_when_the_last_one_is_too_old() {
    let clock = Arc::new(TestClock::at("2024-01-01T00:00:00Z".parse().unwrap()));
    let store = MemoryStore::with(annals::contract::Limits::default(), clock.clone());
    let annals =
        Annals::with_store(Arc::new(store), State::memory()).await.unwrap().with_clock(clock.clone());
    let snapshots = Noted::new();
    let hour = Duration::from_secs(3_600);
    let policy = every(100).or(older_than(hour));
    let accounts = annals.repository::<Account>().snapshots_in(snapshots.clone(), policy);
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    clock.advance(hour);
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    assert!(snapshots.put.lock().unwrap().is_empty(), "an hour is not more than an hour");
    clock.advance(Duration::from_secs(1));
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    assert_eq!(*snapshots.put.lock().unwrap(), [3]);
    clock.advance(hour + hour);
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    assert_eq!(*snapshots.put.lock().unwrap(), [3, 5]);
}

#[tokio::test]
async fn without_a_store_of_snapshots_that_works_everything_else_does() {
    let annals = bank().await;
    let accounts = annals.repository::<Account>().snapshots_in(Arc::new(Broken), every(1));
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    accounts.execute("a1", Bank::Deposit(5)).await.unwrap();
    assert_eq!(accounts.load("a1").await.unwrap().state.balance, 5);
}

/// An account as a later program has it: more fields, the old ones renamed.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
struct LaterAccount {
    cents: u64,
}

impl Aggregate for LaterAccount {
    const NAME: &'static str = "account";
    type Event = AccountEvent;
    fn initial(_id: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &AccountEvent) {
        if let AccountEvent::Deposited { amount } = event {
            self.cents += amount * 100;
        }
    }
}

impl Snapshot for LaterAccount {
    const SNAPSHOT_VERSION: u32 = 2;
}

#[tokio::test]
async fn a_snapshot_of_another_schema_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    let accounts = annals.repository::<Account>().snapshots(every(1));
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    accounts.execute("a1", Bank::Deposit(5)).await.unwrap();
    assert_eq!(rows(directory.path(), "SELECT count(*) FROM snapshots WHERE schema = 'account/1'"), 2);
    let later = annals.repository::<LaterAccount>().snapshots(every(1));
    assert_eq!(later.load("a1").await.unwrap().state.cents, 500);
    assert_eq!(later.load("a1").await.unwrap().state.cents, 500);
    assert_eq!(accounts.load("a1").await.unwrap().state.balance, 5);
}

fn rows(directory: &std::path::Path, sql: &str) -> i64 {
    let file = rusqlite::Connection::open(directory.join("state.sqlite")).unwrap();
    file.query_row(sql, (), |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn snapshots_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    open_with(&annals, "a1", 5).await;
    annals.repository::<Account>().snapshots(every(1)).load("a1").await.unwrap();
    drop(annals);
    let counting = FaultyStore::over(store.clone(), store.id(), []);
    let annals = Annals::with_store(counting.clone(), State::directory(directory.path())).await.unwrap();
    let loaded = annals.repository::<Account>().snapshots(every(1)).load("a1").await.unwrap();
    assert_eq!((loaded.state.balance, counting.events_read.load(Ordering::SeqCst)), (5, 1));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_snapshot_the_events_are_replayed() {
    for damage in [
        "UPDATE snapshots SET state = x'00ff'",
        "UPDATE snapshots SET state = CAST('{\"balance\":-1}' AS BLOB)",
        "UPDATE snapshots SET version = 99",
        "UPDATE snapshots SET event_id = x'00112233445566778899aabbccddeeff'",
        "UPDATE snapshots SET event_id = x'00'",
        "UPDATE snapshots SET version = 1",
        "DELETE FROM snapshots",
        "DROP TABLE snapshots",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let annals = bank_on(&store, directory.path()).await;
        open_with(&annals, "a1", 5).await;
        let accounts = annals.repository::<Account>().snapshots(every(2));
        accounts.load("a1").await.unwrap();
        let file = rusqlite::Connection::open(directory.path().join("state.sqlite")).unwrap();
        file.execute_batch(damage).unwrap();
        let loaded = accounts.load("a1").await.unwrap();
        assert_eq!((loaded.version.get(), loaded.state.balance, loaded.state.folded), (2, 5, 2), "{damage}");
        let done = accounts.execute("a1", Bank::Withdraw(5)).await.unwrap();
        assert_eq!((done.version.get(), done.state.balance, done.state.folded), (3, 0, 3), "{damage}");
    }
}

#[tokio::test]
async fn snapshots_of_another_log_are_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let annals = bank_on(&Arc::new(MemoryStore::new()), directory.path()).await;
    open_with(&annals, "a1", 5).await;
    annals.repository::<Account>().snapshots(every(1)).load("a1").await.unwrap();
    assert_eq!(rows(directory.path(), "SELECT count(*) FROM snapshots"), 1);
    drop(annals);
    let annals = bank_on(&Arc::new(MemoryStore::new()), directory.path()).await;
    assert_eq!(rows(directory.path(), "SELECT count(*) FROM snapshots"), 0);
    let nobody = annals.repository::<Account>().snapshots(every(1)).load("a1").await.unwrap();
    assert!(!nobody.exists());
}

/// The log was brought back from a backup and went another way: same identity, other events.
#[tokio::test]
async fn a_snapshot_of_a_history_that_is_no_more_is_dropped() {
    let snapshots = Noted::new();
    let store = Arc::new(MemoryStore::new());
    let id = store.id();
    let annals = Annals::with_store(store, State::memory()).await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.repository::<Account>().snapshots_in(snapshots.clone(), every(2)).load("a1").await.unwrap();
    let restored = FaultyStore::over(Arc::new(MemoryStore::new()), id, []);
    let annals = Annals::with_store(restored, State::memory()).await.unwrap();
    let accounts = annals.repository::<Account>().snapshots_in(snapshots.clone(), every(100));
    assert!(!accounts.load("a1").await.unwrap().exists());
    open_with(&annals, "a1", 70).await;
    assert_eq!(accounts.load("a1").await.unwrap().state.balance, 70);
}

#[tokio::test]
async fn memory_holds_snapshots_of_a_limited_number_of_streams() {
    let snapshots = MemorySnapshots::new(2);
    let annals = bank().await;
    let snapshots = Arc::new(snapshots);
    let accounts = annals.repository::<Account>().snapshots_in(snapshots.clone(), every(1));
    for id in ["a1", "a2", "a3"] {
        accounts.execute(id, Bank::Open("kim")).await.unwrap();
    }
    let mut held = 0;
    for id in ["a1", "a2", "a3"] {
        let stream = StreamId::of("account", id).unwrap();
        held += usize::from(snapshots.nearest(&stream, "account/1", Version::MAX).await.unwrap().is_some());
    }
    assert_eq!(held, 2);
}

#[derive(annals::Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "probe")]
enum ProbeEvent {
    Begun,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Probe {
    lowest: Option<f64>,
    answered: Option<Option<String>>,
}

impl Aggregate for Probe {
    const NAME: &'static str = "probe";
    type Event = ProbeEvent;
    fn initial(_: &str) -> Self {
        Self { lowest: Some(f64::INFINITY), answered: None }
    }
    fn evolve(&mut self, _: &ProbeEvent) {
        self.answered = Some(None);
    }
}

impl Snapshot for Probe {}

struct Begin;

impl annals::Decide<Begin> for Probe {
    type Error = std::convert::Infallible;
    fn decide(&self, _: &Begin, _: &annals::Context) -> annals::Decision<Self, Self::Error> {
        annals::emit(ProbeEvent::Begun)
    }
}

/// N1: a state is what the log makes of it, with and without snapshots.
#[tokio::test]
async fn a_snapshot_that_says_less_than_the_state_is_not_used() {
    let annals = bank().await;
    let quick = annals.repository::<Probe>().snapshots(every(1));
    quick.execute("p", Begin).await.unwrap();
    let replayed = annals.repository::<Probe>().load("p").await.unwrap().state;
    assert_eq!(quick.load("p").await.unwrap().state, replayed);
}

#[test]
fn the_test_kit_says_which_field_cannot_be_kept() {
    annals::testing::given::<Account>([AccountEvent::Opened { owner: "kim".into() }]).then_snapshot();
    let message = std::panic::catch_unwind(|| {
        annals::testing::given::<Probe>([]).then_snapshot();
    });
    let message = *message.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("`lowest`"), "{message}");
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Sample {
    #[serde(skip)]
    taken: u32,
}

impl Aggregate for Sample {
    const NAME: &'static str = "sample";
    type Event = ProbeEvent;
    fn initial(_: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, _: &ProbeEvent) {
        self.taken += 1;
    }
}

impl Snapshot for Sample {
    fn is_same(&self, read_back: &Self) -> bool {
        self == read_back
    }
}

impl annals::Decide<Begin> for Sample {
    type Error = std::convert::Infallible;
    fn decide(&self, _: &Begin, _: &annals::Context) -> annals::Decision<Self, Self::Error> {
        annals::emit(ProbeEvent::Begun)
    }
}

#[tokio::test]
async fn a_snapshot_without_a_field_of_the_state_is_not_kept() {
    let annals = bank().await;
    let snapshots = Noted::new();
    let samples = annals.repository::<Sample>().snapshots_in(snapshots.clone(), every(1));
    for taken in 1..=3 {
        assert_eq!(samples.execute("s", Begin).await.unwrap().state.taken, taken);
    }
    assert!(snapshots.put.lock().unwrap().is_empty());
}

/// A clock that was ahead must not put off every snapshot until the time that it showed.
#[tokio::test]
async fn a_snapshot_from_the_future_does_not_put_off_the_next_one() {
    let clock = Arc::new(TestClock::at("2024-01-01T00:00:00Z".parse().unwrap()));
    let annals = bank().await.with_clock(clock.clone());
    let snapshots = Noted::new();
    let accounts = annals
        .repository::<Account>()
        .snapshots_in(snapshots.clone(), older_than(Duration::from_secs(3_600)));
    open_with(&annals, "a1", 10).await;
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    clock.set("2023-01-01T00:00:00Z".parse().unwrap());
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    assert_eq!(*snapshots.put.lock().unwrap(), [3, 4]);
}
