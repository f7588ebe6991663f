//! Projections: rows and checkpoint together, retries, rebuilding, and reading what one wrote.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals::testing::given_view;
use annals::{
    Annals, Append, Backoff, Error, Event, EventStore, Expected, HandlerError, MemoryStore, NewEvent, Phase,
    Position, Projection, Recorded, SqlError, State, StreamId, Tx, ViewError,
};
use serde::{Deserialize, Serialize};

use crate::bank::{Account, AccountEvent, Balances, Bank, bank, bank_on, open_with, until};
use crate::faulty::FaultyStore;

const QUICKLY: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));

async fn balance(annals: &Annals, account: &str) -> Option<u64> {
    let view = annals.view::<Balances>();
    view.one("SELECT amount FROM balances WHERE account = ?1", (account,), |row| row.get(0)).await.unwrap()
}

/// Counts the events of each account; fails or panics at will.
struct Counted {
    applied: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
    panics: bool,
}

impl Counted {
    fn new() -> Self {
        Self { applied: Arc::default(), broken: Arc::default(), panics: false }
    }

    fn breaking(&self) -> Arc<AtomicBool> {
        self.broken.store(true, Ordering::SeqCst);
        self.broken.clone()
    }
}

impl Projection for Counted {
    const NAME: &'static str = "counted";
    const SCHEMA: &'static str = "CREATE TABLE seen (position INTEGER PRIMARY KEY, account TEXT)";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        rows.execute("INSERT INTO seen VALUES (?1, ?2)", (event.position(), event.aggregate_id()))?;
        if self.broken.load(Ordering::SeqCst) && matches!(event.event, AccountEvent::Blocked { .. }) {
            assert!(!self.panics, "it panics at a blocked account");
            return Err(HandlerError::new("it fails at a blocked account"));
        }
        self.applied.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn seen(annals: &Annals) -> Vec<u64> {
    let view = annals.view::<Counted>();
    view.query("SELECT position FROM seen ORDER BY position", (), |row| row.get(0)).await.unwrap()
}

#[tokio::test]
async fn a_writer_reads_its_own_writes() {
    let annals = bank().await;
    annals.project(Balances).start().await.unwrap();
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Open("kim")).await.unwrap();
    for amount in 1..50 {
        let done = accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
        let view = annals.view::<Balances>().at_least(&done);
        let rows = view.query("SELECT * FROM balances", (), |row| row.read::<(String, String, u64)>());
        assert_eq!(rows.await.unwrap(), [("a1".to_owned(), "kim".to_owned(), amount)]);
    }
}

#[tokio::test]
async fn a_view_that_is_behind_says_so_instead_of_answering() {
    let annals = bank().await;
    annals.project(Balances).start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    let view = annals.view::<Balances>().at_least(Position::new(3)).within(Duration::ZERO);
    let behind = view.rows("SELECT 1", ()).await.unwrap_err();
    assert!(
        matches!(behind, ViewError::Behind { wanted, position, .. } if (wanted.get(), position.get()) == (3, 2)),
        "{behind}"
    );
    assert_eq!(annals.view::<Balances>().position().unwrap(), Position::new(2));
}

#[tokio::test]
async fn only_the_events_that_it_takes_reach_a_projection() {
    let annals = bank().await;
    let counted = Counted::new();
    let applied = counted.applied.clone();
    annals.project(counted).start().await.unwrap();
    let other = (0..30).map(|_| NewEvent::new("invoice.sent", "not even JSON").unwrap());
    let stream = StreamId::new("invoice-1").unwrap();
    annals.store().append(Append::to(stream, Expected::Any, other)).await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    assert_eq!((applied.load(Ordering::SeqCst), seen(&annals).await), (2, vec![31, 32]));
}

#[tokio::test]
async fn after_a_restart_a_projection_resumes_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let mut accounts = 0;
    for round in 1..=3 {
        let annals = bank_on(&store, directory.path()).await;
        let counted = Counted::new();
        let applied = counted.applied.clone();
        annals.project(counted).start().await.unwrap();
        open_with(&annals, &format!("a{round}"), 5).await;
        annals.settle().await.unwrap();
        accounts += 2;
        assert_eq!(applied.load(Ordering::SeqCst), 2, "round {round}: only what is new is applied");
        assert_eq!(seen(&annals).await, (1..=accounts).collect::<Vec<_>>());
        annals.shutdown().await;
    }
}

#[tokio::test]
async fn an_event_that_fails_is_retried_and_holds_up_no_other_projection() {
    for panics in [false, true] {
        let annals = bank().await;
        let counted = Counted { panics, ..Counted::new() };
        let broken = counted.breaking();
        annals.project(counted).retry(QUICKLY).start().await.unwrap();
        annals.project(Balances).start().await.unwrap();
        open_with(&annals, "a1", 5).await;
        let accounts = annals.repository::<Account>();
        accounts.execute("a1", Bank::Block("fraud")).await.unwrap();
        open_with(&annals, "a2", 6).await;
        let failing = |status: &annals::Status| status.failing.as_ref().is_some_and(|f| f.attempts > 3);
        let status = until(&annals, "counted", failing).await;
        assert_eq!((status.phase, status.position.get(), status.lag()), (Phase::Retrying, 2, 3));
        let problem = status.failing.unwrap();
        assert_eq!(problem.position, Some(Position::new(3)));
        assert!(problem.error.contains("at a blocked account"), "{}", problem.error);
        assert_eq!(seen(&annals).await, [1, 2], "those before it are done, it left nothing, the rest waits");
        let of_two = annals.view::<Balances>().at_least(Position::new(5));
        let count = of_two.one("SELECT count(*) FROM balances", (), |row| row.get::<u64>(0)).await.unwrap();
        assert_eq!(count, Some(2), "the other projection has gone on");
        let behind = annals.view::<Counted>().at_least(Position::new(5)).within(Duration::ZERO);
        let behind = behind.rows("SELECT 1", ()).await.unwrap_err().to_string();
        assert!(behind.contains("at a blocked account"), "{behind}");
        broken.store(false, Ordering::SeqCst);
        annals.settle().await.unwrap();
        assert_eq!(seen(&annals).await, [1, 2, 3, 4, 5]);
        let status = until(&annals, "counted", |status| status.phase == Phase::Live).await;
        assert_eq!((&status.failing, status.lag()), (&None, 0));
    }
}

/// Their transactions, checkpoints and queries need the thread, and none waits on it for another one.
#[test]
fn projections_share_one_thread_for_blocking_work() {
    let one =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    one.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let state = State::directory(directory.path());
        let annals = Annals::with_store(Arc::new(MemoryStore::new()), state).await.unwrap();
        let counted = Counted::new();
        let broken = counted.breaking();
        annals.project(counted).batch(2).retry(QUICKLY).start().await.unwrap();
        annals.project(Balances).batch(3).start().await.unwrap();
        let accounts = annals.repository::<Account>();
        for number in 1..=100 {
            let account = format!("a{number}");
            open_with(&annals, &account, 5).await;
            if number == 50 {
                accounts.execute(account.as_str(), Bank::Block("fraud")).await.unwrap();
            }
        }
        until(&annals, "counted", |status| status.phase == Phase::Retrying).await;
        broken.store(false, Ordering::SeqCst);
        let settled = annals.settle_within(Duration::from_secs(60)).await;
        settled.expect("each gets the thread in turn");
        assert_eq!(seen(&annals).await.len(), 201);
        assert_eq!(balance(&annals, "a100").await, Some(5));
        annals.shutdown().await;
    });
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_a_failure_and_not_passed_over() {
    let annals = bank().await;
    annals.project(Counted::new()).retry(QUICKLY).start().await.unwrap();
    let strange = NewEvent::new("account.opened", r#"{"holder":"kim"}"#).unwrap();
    let stream = StreamId::new("account-a1").unwrap();
    annals.store().append(Append::to(stream, Expected::Any, [strange])).await.unwrap();
    let status = until(&annals, "counted", |status| status.phase == Phase::Retrying).await;
    assert!(status.failing.unwrap().error.contains("missing field `owner`"));
    let unsettled = annals.settle_within(Duration::from_millis(50)).await.unwrap_err().chain();
    assert!(unsettled.contains("`counted` at 0 of 1") && unsettled.contains("missing field"), "{unsettled}");
}

#[tokio::test]
async fn a_projection_of_several_aggregates_takes_a_union() {
    #[derive(Event, Serialize, Deserialize, Clone, Debug)]
    #[event(prefix = "member")]
    enum MemberEvent {
        Joined { name: String },
    }
    #[derive(Event, Clone, Debug)]
    #[event(union)]
    enum Either {
        Account(AccountEvent),
        Member(MemberEvent),
    }
    struct Log;
    impl Projection for Log {
        const NAME: &'static str = "log";
        const SCHEMA: &'static str = "CREATE TABLE lines (position INTEGER, line TEXT)";
        type Event = Either;
        fn apply(&self, event: &Recorded<Either>, rows: &Tx<'_>) -> Result<(), HandlerError> {
            let line = match &event.event {
                Either::Account(AccountEvent::Opened { owner }) => {
                    format!("{owner} opened {}", event.stream())
                }
                Either::Account(_) => return Ok(()),
                Either::Member(MemberEvent::Joined { name }) => format!("{name} joined"),
            };
            rows.execute("INSERT INTO lines VALUES (?1, ?2)", (event.position(), line))?;
            Ok(())
        }
    }
    given_view(
        Log,
        [
            ("member-1", Either::Member(MemberEvent::Joined { name: "kim".into() })),
            ("account-a1", Either::Account(AccountEvent::Deposited { amount: 1 })),
            ("account-a1", Either::Account(AccountEvent::Opened { owner: "kim".into() })),
        ],
    )
    .then_rows("SELECT * FROM lines ORDER BY position", [(1, "kim joined"), (3, "kim opened account-a1")]);
}

// Rebuilding.

#[tokio::test]
async fn rows_of_another_log_are_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    for amount in [5, 6] {
        let annals = bank_on(&Arc::new(MemoryStore::new()), directory.path()).await;
        annals.project(Balances).start().await.unwrap();
        open_with(&annals, "a1", amount).await;
        annals.settle().await.unwrap();
        assert_eq!(balance(&annals, "a1").await, Some(amount));
        annals.shutdown().await;
    }
}

/// A backup was brought back: the same log, but shorter; or shorter and gone another way since.
#[tokio::test]
async fn rows_of_a_restored_log_are_rebuilt() {
    for written_since in [0, 5] {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let id = store.id();
        let annals = bank_on(&store, directory.path()).await;
        annals.project(Balances).start().await.unwrap();
        open_with(&annals, "lost", 5).await;
        open_with(&annals, "lost too", 5).await;
        annals.settle().await.unwrap();
        annals.shutdown().await;
        let restored = FaultyStore::over(Arc::new(MemoryStore::new()), id, []);
        let annals = Annals::with_store(restored, State::directory(directory.path())).await.unwrap();
        for account in 0..written_since {
            open_with(&annals, &format!("a{account}"), 7).await;
        }
        annals.project(Balances).start().await.unwrap();
        annals.settle().await.unwrap();
        assert_eq!(balance(&annals, "lost").await, None);
        let count = annals.view::<Balances>();
        let count = count.one("SELECT count(*) FROM balances", (), |row| row.get::<u64>(0)).await.unwrap();
        assert_eq!(count, Some(written_since));
    }
}

/// A backup holds the newest event that was applied, but not what came after it; what has been written since
/// stands where the projection has looked before.
#[tokio::test]
async fn events_after_a_restore_are_not_skipped() {
    for others in [8, 10_001] {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let annals = bank_on(&store, directory.path()).await;
        open_with(&annals, "a1", 5).await;
        let other = || Append::to(StreamId::new("invoice-1").unwrap(), Expected::Any, invoices(others));
        store.append(other()).await.unwrap();
        annals.project(Counted::new()).start().await.unwrap();
        annals.settle().await.unwrap();
        annals.shutdown().await;
        let restored = FaultyStore::brought_back(&store, 4).await;
        let annals = Annals::with_store(restored.clone(), State::directory(directory.path())).await.unwrap();
        open_with(&annals, "a2", 5).await;
        restored.append(other()).await.unwrap();
        annals.project(Counted::new()).start().await.unwrap();
        annals.settle().await.unwrap();
        assert_eq!(seen(&annals).await, [1, 2, 5, 6]);
    }
}

fn invoices(count: usize) -> impl Iterator<Item = NewEvent> {
    (0..count).map(|_| NewEvent::new("invoice.sent", "{}").unwrap())
}

/// Events that a projection does not take move its checkpoint too.
#[tokio::test]
async fn a_checkpoint_beyond_the_end_of_the_log_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let id = store.id();
    let stream = StreamId::new("invoice-1").unwrap();
    let others = (0..10_001).map(|_| NewEvent::new("invoice.sent", "{}").unwrap());
    store.append(Append::to(stream, Expected::Any, others)).await.unwrap();
    let annals = bank_on(&store, directory.path()).await;
    annals.project(Balances).batch(20_000).start().await.unwrap();
    annals.settle().await.unwrap();
    annals.shutdown().await;
    let file = rusqlite::Connection::open(directory.path().join("views/balances.v1.sqlite")).unwrap();
    let written = file.query_row("SELECT position FROM annals_checkpoint", (), |row| row.get::<_, i64>(0));
    assert_eq!(written.unwrap(), 10_001, "what was passed over is not read again after a restart");
    drop(file);
    let restored = FaultyStore::over(Arc::new(MemoryStore::new()), id, []);
    let annals = Annals::with_store(restored, State::directory(directory.path())).await.unwrap();
    annals.project(Balances).start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    assert_eq!(balance(&annals, "a1").await, Some(5));
}

/// A read model is derived: whatever is wrong with its file, it is made again.
#[tokio::test]
async fn a_partly_broken_file_is_rebuilt() {
    for part in ["balances", "annals_checkpoint", "position"] {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let annals = bank_on(&store, directory.path()).await;
        open_with(&annals, "a1", 5).await;
        annals.project(Balances).start().await.unwrap();
        annals.settle().await.unwrap();
        annals.shutdown().await;
        drop(annals);
        let path = directory.path().join("views/balances.v1.sqlite");
        let file = rusqlite::Connection::open(&path).unwrap();
        if part == "position" {
            file.execute("UPDATE annals_checkpoint SET position = 'x'", ()).unwrap();
        } else {
            let root = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            let page: u32 = file.query_row(root, [part], |row| row.get(0)).unwrap();
            file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            drop(file);
            let mut bytes = std::fs::read(&path).unwrap();
            let page = page as usize * 4096;
            bytes[page - 4096..page].fill(0xff);
            std::fs::write(&path, bytes).unwrap();
        }
        let annals = bank_on(&store, directory.path()).await;
        annals.project(Balances).retry(QUICKLY).start().await.unwrap();
        let position = annals.repository::<Account>().execute("a1", Bank::Deposit(1)).await.unwrap().position;
        let view = annals.view::<Balances>().at_least(position).within(Duration::from_secs(60));
        let sql = "SELECT amount FROM balances WHERE account = 'a1'";
        assert_eq!(view.one(sql, (), |row| row.get::<u64>(0)).await.unwrap(), Some(6), "{part}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    open_with(&annals, "a1", 5).await;
    for version in [0, 1] {
        let path = directory.path().join(format!("views/balances.v{version}.sqlite"));
        std::fs::write(path, "this is not SQLite".repeat(1_000)).unwrap();
    }
    annals.project(Balances).start().await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(balance(&annals, "a1").await, Some(5));
}

/// `Counted` with another table, as if somebody had changed the schema and not the version.
struct Changed;
impl Projection for Changed {
    const NAME: &'static str = "counted";
    const SCHEMA: &'static str = "CREATE TABLE seen (position INTEGER PRIMARY KEY)";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        rows.execute("INSERT INTO seen VALUES (?1)", (event.position(),))?;
        Ok(())
    }
}

#[tokio::test]
async fn rows_of_another_schema_are_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    annals.project(Counted::new()).start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    let annals = bank_on(&store, directory.path()).await;
    annals.project(Changed).start().await.unwrap();
    annals.settle().await.unwrap();
    let view = annals.view::<Changed>();
    assert_eq!(view.query("SELECT * FROM seen", (), |row| row.read::<(u64,)>()).await.unwrap(), [(1,), (2,)]);
}

/// `Counted` as it is later: it also knows how long the name of the account is.
struct Later(Arc<AtomicBool>);
impl Projection for Later {
    const NAME: &'static str = "counted";
    const VERSION: u32 = 3;
    const SCHEMA: &'static str = "CREATE TABLE seen (position INTEGER PRIMARY KEY, length INTEGER)";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(HandlerError::new("not yet"));
        }
        rows.execute("INSERT INTO seen VALUES (?1, ?2)", (event.position(), event.aggregate_id().len()))?;
        Ok(())
    }
}

fn files(directory: &Path) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(directory.join("views"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sqlite"))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_new_version_is_made_beside_the_old_one_which_answers_until_then() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = bank_on(&store, directory.path()).await;
    annals.project(Counted::new()).start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    assert_eq!(files(directory.path()), ["counted.v1.sqlite"]);

    let blocked = Arc::new(AtomicBool::new(true));
    // Also when it is stopped half way, the old one answers at the next start.
    for _ in 0..2 {
        let annals = bank_on(&store, directory.path()).await;
        annals.project(Later(blocked.clone())).retry(QUICKLY).start().await.unwrap();
        assert_eq!(files(directory.path()), ["counted.v1.sqlite", "counted.v3.sqlite"]);
        let view = annals.view::<Later>();
        let old = view.query("SELECT position FROM seen", (), |row| row.get::<u64>(0)).await.unwrap();
        assert_eq!(old, [1, 2], "the old rows answer");
        let unknown = view.rows("SELECT length FROM seen", ()).await.unwrap_err();
        assert!(matches!(unknown, ViewError::Rebuilding { version: 1, .. }), "{unknown}");
        let newer = view.at_least(Position::new(2)).within(Duration::ZERO).rows("SELECT 1", ()).await;
        assert!(matches!(newer, Err(ViewError::Behind { .. })), "the old rows do not grow");
        annals.shutdown().await;
    }

    blocked.store(false, Ordering::SeqCst);
    let annals = bank_on(&store, directory.path()).await;
    annals.project(Later(blocked)).retry(QUICKLY).start().await.unwrap();
    let view = annals.view::<Later>().at_least(Position::new(2)).within(Duration::from_secs(60));
    let new = view.query("SELECT * FROM seen", (), |row| row.read::<(u64, u64)>()).await.unwrap();
    assert_eq!(new, [(1, 2), (2, 2)]);
    until(&annals, "counted", |status| status.phase == Phase::Live).await;
    assert_eq!(files(directory.path()), ["counted.v3.sqlite"]);
}

#[tokio::test]
async fn after_settling_queries_read_the_new_rows_and_never_removed_ones() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let annals = bank_on(&store, directory.path()).await;
        annals.project(Counted::new()).start().await.unwrap();
        open_with(&annals, "a1", 5).await;
        annals.settle().await.unwrap();
        annals.shutdown().await;
        let annals = bank_on(&store, directory.path()).await;
        annals.project(Later(Arc::default())).start().await.unwrap();
        let asking = tokio::spawn({
            let view = annals.view::<Later>();
            async move {
                for _ in 0..50 {
                    view.query("SELECT position FROM seen", (), |row| row.get::<u64>(0)).await.unwrap();
                }
            }
        });
        annals.settle().await.unwrap();
        let view = annals.view::<Later>();
        view.query("SELECT length FROM seen", (), |row| row.get::<u64>(0)).await.unwrap();
        asking.await.unwrap();
    }
}

/// Ends the transaction at a withdrawal, and passes over what SQLite says to that.
struct Ending(&'static str);

impl Projection for Ending {
    const NAME: &'static str = "ending";
    const SCHEMA: &'static str = "CREATE TABLE seen (position INTEGER PRIMARY KEY)";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        if matches!(event.event, AccountEvent::Withdrawn { .. }) {
            let _ = rows.execute(self.0, ());
        }
        rows.execute("INSERT INTO seen VALUES (?1)", (event.position(),))?;
        Ok(())
    }
}

#[tokio::test]
async fn no_statement_of_a_projection_can_part_rows_from_checkpoint() {
    for (ends, taken) in [
        ("COMMIT", 4),
        ("ROLLBACK", 4),
        ("SAVEPOINT here", 4),
        // SQLite undoes the transaction by itself: the event fails, and nothing of the page stays.
        ("INSERT OR ROLLBACK INTO seen VALUES (1)", 2),
    ] {
        let annals = bank().await;
        open_with(&annals, "a1", 5).await;
        let accounts = annals.repository::<Account>();
        accounts.execute("a1", Bank::Withdraw(1)).await.unwrap();
        accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
        annals.project(Ending(ends)).retry(QUICKLY).start().await.unwrap();
        let done = |status: &annals::Status| match &status.failing {
            None => status.lag() == 0,
            Some(failing) => failing.attempts > 2,
        };
        until(&annals, "ending", done).await;
        let view = annals.view::<Ending>();
        let rows = view.query("SELECT position FROM seen", (), |row| row.get::<u64>(0)).await.unwrap();
        assert_eq!(rows, (1..=taken).collect::<Vec<_>>(), "{ends}");
        annals.shutdown().await;
    }
}

/// Nobody should do this; but if two systems fill one file, no event has its effect twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_tasks_on_one_file_do_not_apply_an_event_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let systems = [bank_on(&store, directory.path()).await, bank_on(&store, directory.path()).await];
    for annals in &systems {
        annals.project(Balances).batch(3).retry(QUICKLY).start().await.unwrap();
    }
    open_with(&systems[0], "a1", 0).await;
    let accounts = systems[0].repository::<Account>();
    for _ in 0..100 {
        accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
    }
    for annals in &systems {
        annals.settle().await.unwrap();
        assert_eq!(balance(annals, "a1").await, Some(100));
    }
}

// Starting, stopping, asking.

#[tokio::test]
async fn a_directory_holds_the_log_and_the_state_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().join("data").display());
    let annals = Annals::open(&url).await.unwrap();
    annals.project(Balances).start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    assert_eq!(balance(&annals, "a1").await, Some(5));
    for file in ["state.sqlite", "views/balances.v1.sqlite"] {
        assert!(directory.path().join("data").join(file).exists(), "{file}");
    }
    annals.shutdown().await;
    let unknown = Annals::open("redis://localhost").await.err().unwrap();
    assert!(matches!(unknown, Error::Invalid(_)), "{unknown}");
}

#[tokio::test]
async fn a_name_is_started_once_and_must_be_one_for_a_file() {
    struct Escaping;
    impl Projection for Escaping {
        const NAME: &'static str = "../state";
        const SCHEMA: &'static str = "";
        type Event = AccountEvent;
        fn apply(&self, _: &Recorded<AccountEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
            Ok(())
        }
    }
    let annals = bank().await;
    let unknown = annals.view::<Balances>().rows("SELECT 1", ()).await.unwrap_err();
    assert!(matches!(unknown, ViewError::NotStarted("balances")), "{unknown}");
    assert!(annals.projection("balances").status().await.unwrap().is_none());
    annals.project(Balances).start().await.unwrap();
    assert!(annals.projection("balances").status().await.unwrap().is_some());
    for refused in [annals.project(Balances).start().await, annals.project(Escaping).start().await] {
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_schema_that_is_wrong_is_an_error_of_the_start() {
    struct Wrong;
    impl Projection for Wrong {
        const NAME: &'static str = "wrong";
        const SCHEMA: &'static str = "CREATE TABEL x";
        type Event = AccountEvent;
        fn apply(&self, _: &Recorded<AccountEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
            Ok(())
        }
    }
    let annals = bank().await;
    for _ in 0..2 {
        let refused = annals.project(Wrong).start().await.unwrap_err().chain();
        assert!(refused.contains("TABEL"), "{refused}");
    }
}

#[tokio::test]
async fn a_stop_ends_every_task_and_so_does_dropping_the_last_handle() {
    let store = Arc::new(MemoryStore::new());
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    annals.project(Balances).start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    assert_eq!(annals.status().await.unwrap()[0].phase, Phase::Stopped);
    assert_eq!(balance(&annals, "a1").await, Some(5), "what is there can still be read");
    open_with(&annals, "a2", 5).await;
    let unsettled = annals.settle().await.unwrap_err();
    assert!(matches!(unsettled, Error::Invalid(_)), "{unsettled}");
    drop(annals);

    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    annals.project(Balances).start().await.unwrap();
    let held = Arc::downgrade(annals.store());
    drop((annals, store));
    tokio::time::timeout(Duration::from_secs(60), async {
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the task lets go of the store");
}

#[tokio::test]
async fn a_query_cannot_write_and_says_what_is_wrong_with_it() {
    let directory = tempfile::tempdir().unwrap();
    for annals in [bank().await, bank_on(&Arc::new(MemoryStore::new()), directory.path()).await] {
        annals.project(Balances).start().await.unwrap();
        open_with(&annals, "a1", 5).await;
        annals.settle().await.unwrap();
        let view = annals.view::<Balances>();
        for wrong in ["DELETE FROM balances", "SELECT nothing FROM balances", "SELECT ?1"] {
            let refused = view.rows(wrong, ()).await;
            let refused = refused.map(|rows| rows.len());
            assert!(matches!(refused, Err(ViewError::Sql(SqlError::Statement(_)))), "{wrong}: {refused:?}");
        }
        let column =
            view.one("SELECT owner FROM balances", (), |row| row.get::<u64>("owner")).await.unwrap_err();
        assert!(column.to_string().contains("`owner`"), "{column}");
        assert_eq!(balance(&annals, "a1").await, Some(5));
    }
}

/// Writes the rows of many events by one statement, and fails at a blocked account.
struct AtOnce {
    calls: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
}

impl Projection for AtOnce {
    const NAME: &'static str = "at-once";
    const SCHEMA: &'static str = "CREATE TABLE seen (position INTEGER PRIMARY KEY, account TEXT)";
    type Event = AccountEvent;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        self.apply_all(std::slice::from_ref(event), rows)
    }

    fn apply_all(&self, events: &[Recorded<AccountEvent>], rows: &Tx<'_>) -> Result<(), HandlerError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let values: Vec<_> = events
            .iter()
            .map(|event| format!("({}, '{}')", event.position(), event.aggregate_id()))
            .collect();
        rows.execute(&format!("INSERT INTO seen VALUES {}", values.join(", ")), ())?;
        let is_blocked = |event: &Recorded<_>| matches!(event.event, AccountEvent::Blocked { .. });
        if self.broken.load(Ordering::SeqCst) && events.iter().any(is_blocked) {
            return Err(HandlerError::new("it fails at a blocked account"));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_projection_that_takes_many_events_at_once_has_the_same_rows_and_names_the_one_that_fails() {
    let annals = bank().await;
    for account in ["a1", "a2", "a3"] {
        open_with(&annals, account, 1).await;
    }
    let accounts = annals.repository::<Account>();
    accounts.execute("a2", Bank::Block("lost")).await.unwrap();
    open_with(&annals, "a4", 1).await;
    let (calls, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let projection = AtOnce { calls: calls.clone(), broken: broken.clone() };
    annals.project(projection).retry(QUICKLY).start().await.unwrap();
    let status = until(&annals, "at-once", |status| status.phase == Phase::Retrying).await;
    let failing = status.failing.expect("it fails");
    assert_eq!(failing.position, Some(Position::new(7)), "the event that fails is named: {failing:?}");
    let seen = async || {
        let view = annals.view::<AtOnce>();
        let rows = view.query("SELECT position FROM seen ORDER BY position", (), |row| row.get::<u64>(0));
        rows.await.unwrap()
    };
    assert_eq!(seen().await, [1, 2, 3, 4, 5, 6], "those before it are applied, and nothing of it");
    broken.store(false, Ordering::SeqCst);
    annals.settle().await.unwrap();
    assert_eq!(seen().await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // A page is one call, where none fails.
    let again = Annals::with_store(annals.store().clone(), State::memory()).await.unwrap();
    calls.store(0, Ordering::SeqCst);
    again.project(AtOnce { calls: calls.clone(), broken }).start().await.unwrap();
    again.settle().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
