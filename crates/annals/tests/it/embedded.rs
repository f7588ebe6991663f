//! The framework on the embedded store: the whole chain survives a restart and a kill.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annals::snapshot::every;
use annals::{Annals, Recorded};

use crate::bank::{Account, AccountEvent, Balances, Bank, open_with};

/// Where the process that is killed keeps its store. Only it has this.
const DIRECTORY: &str = "ANNALS_TEST_KILLED";
const ACCOUNTS: usize = 8;
const KILLS: usize = 5;

async fn open(directory: &Path) -> Annals {
    Annals::open(&format!("file:{}", directory.display())).await.unwrap()
}

/// Counts the events that a subscriber of this name gets until it is at the end of the log.
async fn delivered(annals: &Annals, name: &'static str) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let subscriber = annals.subscribe(name).on(move |_: Recorded<AccountEvent>, _| {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    annals.settle().await.unwrap();
    count.load(Ordering::SeqCst)
}

/// Every file and directory in this one, with its mode.
fn modes(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut modes = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        if found.is_dir() {
            modes.extend(self::modes(&entry.path()));
        }
        modes.push((entry.path(), found.permissions().mode() & 0o777));
    }
    modes
}

/// Also in a directory that somebody else made, and that others may read.
#[tokio::test]
async fn what_is_kept_beside_the_log_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let annals = open(directory.path()).await;
    annals.project(Balances).start().await.unwrap();
    open_with(&annals, "a1", 100).await;
    assert_eq!(delivered(&annals, "auditor").await, 2);
    let modes = modes(directory.path());
    for kept in ["state.sqlite", "views/balances.v1.sqlite", "views/balances.v1.sqlite-wal"] {
        assert!(modes.iter().any(|(path, _)| path.ends_with(kept)), "{kept}: {modes:?}");
    }
    assert!(modes.iter().all(|(_, mode)| mode & 0o077 == 0), "{modes:?}");
    annals.shutdown().await;
}

#[tokio::test]
async fn what_was_refused_under_a_key_is_refused_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    {
        let annals = open(directory.path()).await;
        open_with(&annals, "a1", 10).await;
        let accounts = annals.repository::<Account>();
        accounts.execute("a1", Bank::Withdraw(30)).once("request-1").await.unwrap_err();
        accounts.execute("a1", Bank::Block("fraud")).await.unwrap();
        accounts.execute("a1", Bank::Block("fraud")).once("request-2").await.unwrap();
        annals.shutdown().await;
    }
    let annals = open(directory.path()).await;
    let accounts = annals.repository::<Account>();
    accounts.execute("a1", Bank::Deposit(90)).await.unwrap();
    let again = accounts.execute("a1", Bank::Withdraw(30)).once("request-1").await.unwrap_err();
    assert_eq!(again.to_string(), "only 10 left");
    let nothing = accounts.execute("a1", Bank::Block("fraud")).once("request-2").await.unwrap();
    assert!(nothing.duplicate && nothing.version.get() == 3 && nothing.state.balance == 10);
    annals.shutdown().await;
}

#[tokio::test]
async fn everything_resumes_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    {
        let annals = open(directory.path()).await;
        annals.project(Balances).start().await.unwrap();
        open_with(&annals, "a1", 100).await;
        let accounts = annals.repository::<Account>().snapshots(every(1));
        let done = accounts.execute("a1", Bank::Withdraw(30)).once("request-1").await.unwrap();
        assert_eq!((done.version.get(), done.state.balance), (3, 70));
        assert_eq!(delivered(&annals, "auditor").await, 3);
        annals.shutdown().await;
    }
    let annals = open(directory.path()).await;
    let accounts = annals.repository::<Account>().snapshots(every(1));
    assert_eq!(accounts.load("a1").await.unwrap().state.balance, 70);
    assert_eq!(accounts.at("a1", 2).await.unwrap().state.balance, 100);
    let again = accounts.execute("a1", Bank::Withdraw(30)).once("request-1").await.unwrap();
    assert!(again.duplicate);
    assert_eq!((again.version.get(), again.state.balance), (3, 70));
    // The rows stand before the projection has had anything to do, and the subscriber gets what is new only.
    annals.project(Balances).start().await.unwrap();
    let done = accounts.execute("a1", Bank::Deposit(5)).await.unwrap();
    let view = annals.view::<Balances>().at_least(&done);
    let amounts = view.query("SELECT amount FROM balances", (), |row| row.read::<(i64,)>()).await.unwrap();
    assert_eq!(amounts, [(75,)]);
    assert_eq!(delivered(&annals, "auditor").await, 1);
}

/// The child: deposits from many tasks and prints each acknowledgement. Not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is killed; the test below starts it"]
async fn deposits_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let annals = open(Path::new(&directory)).await;
    annals.project(Balances).start().await.unwrap();
    let tasks: Vec<_> = (0..ACCOUNTS)
        .map(|account| {
            let accounts = annals.repository::<Account>().snapshots(every(7));
            tokio::spawn(async move {
                let id = format!("a{account}");
                // The child that was killed before may have got this far.
                let done = accounts.load(&id).await.unwrap().state.balance;
                if done == 0 {
                    accounts.execute(&id, Bank::Open("kim")).once("open").await.unwrap();
                }
                for number in done + 1.. {
                    // The request before the kill may have been executed: it is sent again with its key.
                    let sent = accounts.execute(&id, Bank::Deposit(1)).once(format!("deposit-{number}"));
                    sent.await.unwrap();
                    let line = format!("\nacknowledged {account} {number}\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Lets the child acknowledge `count` deposits, kills it, and notes the highest of each account.
fn kill_after(directory: &Path, count: usize, highest: &mut [u64]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::deposits_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let ["acknowledged", account, number] = line.split(' ').collect::<Vec<_>>()[..] {
            let account: usize = account.parse().unwrap();
            highest[account] = highest[account].max(number.parse().unwrap());
            seen += 1;
        }
        if seen == count {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= count, "the child has died by itself");
}

#[tokio::test]
async fn a_kill_under_load_loses_nothing_and_does_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut highest = [0; ACCOUNTS];
    for kill in 0..KILLS {
        kill_after(directory.path(), 30 + 20 * kill, &mut highest);
        let annals = open(directory.path()).await;
        annals.project(Balances).start().await.unwrap();
        annals.settle().await.unwrap();
        let sum = "SELECT account, amount FROM balances";
        let rows = annals.view::<Balances>().query(sum, (), |row| row.read::<(String, u64)>()).await.unwrap();
        for (account, acknowledged) in highest.iter().enumerate() {
            let id = format!("a{account}");
            let loaded = annals.repository::<Account>().load(&id).await.unwrap();
            // One more may have been committed without an answer.
            let balance = loaded.state.balance;
            let may_be = *acknowledged..=*acknowledged + 1;
            assert!(may_be.contains(&balance), "{id}: {balance}, of which {acknowledged} acknowledged");
            assert_eq!(loaded.state.folded, balance + u64::from(loaded.exists()), "{id}: each event once");
            let snapshotted = annals.repository::<Account>().snapshots(every(7)).load(&id).await.unwrap();
            assert_eq!(snapshotted.state, loaded.state, "{id}: a snapshot says what the events say");
            let row = rows.iter().find(|(account, _)| *account == id).map_or(0, |(_, amount)| *amount);
            assert_eq!(row, balance, "{id}: the rows say what the events say");
        }
        annals.shutdown().await;
    }
}

/// Where the process that changes its directory begins. Only it has this.
const WANDERING: &str = "ANNALS_TEST_WANDERING";

/// The child: opens a system by a relative path and goes to another directory. Not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "changes the directory of the process; the test below starts it"]
async fn goes_to_another_directory() {
    let Some(directory) = std::env::var_os(WANDERING) else { return };
    std::env::set_current_dir(&directory).unwrap();
    let annals = open(Path::new("data")).await;
    std::fs::create_dir_all("elsewhere/data/views").unwrap();
    std::env::set_current_dir("elsewhere").unwrap();
    annals.project(Balances).start().await.unwrap();
    open_with(&annals, "a1", 100).await;
    let accounts = annals.repository::<Account>().snapshots(every(1));
    accounts.execute("a1", Bank::Withdraw(30)).await.unwrap();
    assert_eq!(delivered(&annals, "auditor").await, 3);
    annals.shutdown().await;
    std::io::stdout().write_all(b"\nall is done\n").unwrap();
}

#[tokio::test]
async fn a_system_stays_where_it_is_when_the_process_changes_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::goes_to_another_directory", "--ignored", "--nocapture"])
        .env(WANDERING, directory.path())
        .output()
        .unwrap();
    let message =
        String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && message.contains("all is done"), "{message}");
    for empty in ["elsewhere/data/views", "elsewhere/data"] {
        let left = std::fs::read_dir(directory.path().join(empty)).unwrap().count();
        assert_eq!(left, usize::from(empty.ends_with("data")), "something was written to {empty}");
    }
    let annals = open(&directory.path().join("data")).await;
    annals.project(Balances).start().await.unwrap();
    assert_eq!(delivered(&annals, "auditor").await, 0, "the checkpoint is where it was");
    let view = annals.view::<Balances>();
    let amounts = view.query("SELECT amount FROM balances", (), |row| row.read::<(i64,)>()).await.unwrap();
    assert_eq!(amounts, [(70,)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_has_the_system_does_not_keep_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let annals = annals::Annals::open(&url).await.unwrap();
    let own = annals.clone();
    let subscriber = annals.subscribe("holds").on::<crate::bank::AccountEvent, _>(move |_, _| {
        let _own = own.clone();
        async { Ok(()) }
    });
    subscriber.start().await.unwrap();
    drop(annals);
    let mut again = annals::Annals::open(&url).await;
    for _ in 0..50 {
        if again.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        again = annals::Annals::open(&url).await;
    }
    panic!("it is still there: {}", again.err().unwrap().chain());
}

/// Waits until the directory is free, which a system that lives would not let it be.
async fn until_free(directory: &Path) -> Annals {
    let url = format!("file:{}", directory.display());
    let free = async {
        loop {
            match Annals::open(&url).await {
                Ok(annals) => return annals,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), free).await.expect("the system has ended")
}

/// A service as programs have them: the system is a part of it.
#[derive(Clone)]
struct Service {
    annals: Annals,
}

struct Holding {
    _service: Service,
}

impl annals::Projection for Holding {
    const NAME: &'static str = "holding";
    const SCHEMA: &'static str = "";
    type Event = AccountEvent;
    fn apply(&self, _: &Recorded<AccountEvent>, _: &annals::Tx<'_>) -> Result<(), annals::HandlerError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_handlers_and_projections_have_do_not_keep_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let annals = open(directory.path()).await;
    let service = Service { annals: annals.clone() };
    annals.project(Holding { _service: service.clone() }).start().await.unwrap();
    for name in ["one", "two"] {
        let service = service.clone();
        let subscriber = annals.subscribe(name).on::<AccountEvent, _>(move |event, _| {
            let service = service.clone();
            async move {
                if let AccountEvent::Opened { .. } = event.event {
                    let accounts = service.annals.repository::<Account>();
                    accounts
                        .execute(event.aggregate_id(), Bank::Deposit(1))
                        .once(event.id().to_string())
                        .await?;
                }
                Ok(())
            }
        });
        subscriber.start().await.unwrap();
    }
    open_with(&annals, "a1", 5).await;
    annals.settle().await.unwrap();
    drop(annals);
    // A service outside of handlers is a handle like any other.
    open_with(&service.annals, "a2", 5).await;
    service.annals.settle().await.unwrap();
    let balance = service.annals.repository::<Account>().load("a2").await.unwrap().state.balance;
    assert_eq!(balance, 6, "the subscribers run");
    drop(service);
    until_free(directory.path()).await;
}

/// A handle that nobody has used yet is one, whatever handlers hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_outside_of_handlers_keeps_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let annals = open(directory.path()).await;
    let (kept, own) = (annals.clone(), annals.clone());
    let heard = Arc::new(AtomicUsize::new(0));
    let hearing = heard.clone();
    let subscriber = annals.subscribe("holds").on::<AccountEvent, _>(move |_, _| {
        let _own = own.clone();
        hearing.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    subscriber.start().await.unwrap();
    drop(annals);
    open_with(&kept, "a1", 5).await;
    kept.settle().await.unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 2);
}

/// The type of the handler could hold a handle, and this one does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_holds_no_handle_after_all_does_not_stop_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let annals = open(directory.path()).await;
    let (none, heard) = (None::<Annals>, Arc::new(AtomicUsize::new(0)));
    let hearing = heard.clone();
    let subscriber = annals.subscribe("holds").on::<AccountEvent, _>(move |_, _| {
        let _none = none.clone();
        hearing.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    subscriber.start().await.unwrap();
    let kept = annals.clone();
    drop(annals);
    open_with(&kept, "a1", 5).await;
    kept.settle().await.unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 2);
}

/// Who only asks for rows uses the system: what the handler might hold is not this handle.
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_was_asked_for_rows_keeps_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let annals = open(directory.path()).await;
    annals.project(Balances).start().await.unwrap();
    let (none, reader) = (None::<Annals>, annals.clone());
    let subscriber = annals.subscribe("holds").on::<AccountEvent, _>(move |_, _| {
        let _none = none.clone();
        async { Ok(()) }
    });
    subscriber.start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    let view = reader.view::<Balances>();
    drop(annals);
    open_with(&reader, "a2", 7).await;
    let head = reader.store().head().await.unwrap();
    let sql = "SELECT amount FROM balances ORDER BY amount";
    let rows = view.at_least(head).within(Duration::from_secs(60));
    let amounts = rows.query(sql, (), |row| row.read::<(i64,)>()).await.unwrap();
    assert_eq!(amounts, [(5,), (7,)]);
}

/// The accounts that a subscriber was told of, in order.
type Delivered = Arc<std::sync::Mutex<Vec<String>>>;

/// A log that was restored from a backup, with the state of the process before: what is handled is compared
/// with the log.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_skipped_or_repeated_after_a_restore() {
    use annals_engine::disk::FileDisk;
    use annals_engine::{BackupOptions, DiskBackupStorage, EngineStore, Options, RestoreOptions, restore};

    let (state, backups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let delivered: [Delivered; 2] = Default::default();
    let start = async |log: &Path| {
        let store = Arc::new(EngineStore::open(log, Options::default()).unwrap());
        let annals = Annals::with_store(store.clone(), annals::State::directory(state.path())).await.unwrap();
        annals.project(Balances).start().await.unwrap();
        for (index, delivered) in delivered.iter().enumerate() {
            let delivered = delivered.clone();
            // Over an embedded log a group is a subscriber like any other.
            let subscriber =
                annals.subscribe(["alone", "group"][index]).partitions(1 + 3 * index).concurrency(4);
            let subscriber = subscriber.on(move |event: Recorded<AccountEvent>, _| {
                delivered.lock().unwrap().push(event.aggregate_id().to_owned());
                std::future::ready(Ok(()))
            });
            subscriber.start().await.unwrap();
        }
        (annals, store)
    };
    let taken = |delivered: &Delivered| {
        let mut taken = std::mem::take(&mut *delivered.lock().unwrap());
        // Of different accounts any may come first.
        taken.sort();
        taken
    };
    let opened = async |annals: &Annals, accounts: std::ops::Range<usize>| {
        for account in accounts.clone() {
            annals
                .repository::<Account>()
                .execute(format!("a{account:03}"), Bank::Open("kim"))
                .await
                .unwrap();
        }
        accounts.map(|account| format!("a{account:03}")).collect::<Vec<_>>()
    };
    let (annals, store) = start(before.path()).await;
    let kept = opened(&annals, 0..40).await;
    annals.settle().await.unwrap();
    let storage = DiskBackupStorage::open(backups.path()).unwrap();
    store.backup(&storage, &BackupOptions::default()).unwrap();
    let lost = opened(&annals, 100..110).await;
    annals.settle().await.unwrap();
    for delivered in &delivered {
        assert_eq!(taken(delivered), [kept.clone(), lost.clone()].concat());
    }
    annals.shutdown().await;
    drop((annals, store));

    let disk = Arc::new(FileDisk::open(after.path()).unwrap());
    restore(&storage, disk.clone(), &RestoreOptions::default()).unwrap();
    drop(disk);
    // What is new takes the positions of what was lost, and goes further, before anything is started.
    let store = Arc::new(EngineStore::open(after.path(), Options::default()).unwrap());
    let writer = Annals::with_store(store.clone(), annals::State::memory()).await.unwrap();
    let mut new = opened(&writer, 200..225).await;
    writer.shutdown().await;
    drop((writer, store));
    let (annals, _store) = start(after.path()).await;
    new.extend(opened(&annals, 225..235).await);
    annals.settle().await.unwrap();
    for delivered in &delivered {
        assert_eq!(taken(delivered), new);
    }
    let sql = "SELECT account FROM balances ORDER BY account";
    let rows = annals.view::<Balances>().query(sql, (), |row| row.get::<String>(0)).await.unwrap();
    assert_eq!(rows, [kept, new].concat(), "the rows say what the log says");
}
