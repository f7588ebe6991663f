//! The bank of the examples under load: many callers, one account, and the sum is right.

use std::sync::Arc;

use annals::{Annals, EventStore, EventStoreExt, ExecuteError, MemoryStore, State, StreamId, Version};

use crate::bank::{Account, Balances, Bank, Refused, bank, open_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_tasks_race_on_one_account_and_the_sum_is_right() {
    let annals = bank().await;
    open_with(&annals, "a1", 0).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let accounts = annals.repository::<Account>();
            tokio::spawn(async move {
                for _ in 0..50 {
                    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let account = annals.repository::<Account>().load("a1").await.unwrap();
    assert_eq!((account.state.balance, account.version.get()), (400, 402));
}

/// Two systems on one log know nothing of each other's queues: only the condition of the append keeps them
/// from undoing each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_race_on_one_account_and_the_sum_is_right() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let mut systems = Vec::new();
    for _ in 0..4 {
        systems.push(Annals::with_store(store.clone(), State::memory()).await.unwrap());
    }
    open_with(&systems[0], "a1", 0).await;
    let tasks: Vec<_> = systems
        .iter()
        .map(|annals| {
            let accounts = annals.repository::<Account>().retries(1_000).cache(10);
            tokio::spawn(async move {
                for _ in 0..50 {
                    accounts.execute("a1", Bank::Deposit(1)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let account = systems[0].repository::<Account>().load("a1").await.unwrap();
    assert_eq!((account.state.balance, account.version.get()), (200, 202));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_one_wins() {
    let annals = bank().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let accounts = annals.repository::<Account>();
            tokio::spawn(async move { accounts.create("a1", Bank::Open("kim")).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(done) => {
                assert_eq!(done.version, Version::FIRST);
                won += 1;
            }
            Err(ExecuteError::Exists { actual, .. }) => assert_eq!(actual, Version::FIRST),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
    let stream = StreamId::new("account-a1").unwrap();
    assert_eq!(annals.store().stream_version(&stream).await.unwrap(), Version::FIRST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_updates_at_one_version_one_wins() {
    let annals = bank().await;
    open_with(&annals, "a1", 100).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let accounts = annals.repository::<Account>();
            tokio::spawn(async move { accounts.execute("a1", Bank::Withdraw(60)).at_version(2).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(ExecuteError::Conflict { expected, actual, .. }) => {
                assert_eq!((expected.get(), actual.get()), (2, 3));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_account_is_never_overdrawn_by_a_race() {
    let annals = bank().await;
    annals.project(Balances).start().await.unwrap();
    open_with(&annals, "a1", 100).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let accounts = annals.repository::<Account>();
            tokio::spawn(async move { accounts.execute("a1", Bank::Withdraw(30)).await })
        })
        .collect();
    let (mut paid, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => paid += 1,
            Err(ExecuteError::Rejected(Refused::Insufficient { balance: 10 })) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((paid, refused), (3, 5));
    annals.settle().await.unwrap();
    let view = annals.view::<Balances>();
    let amount = view.one("SELECT amount FROM balances", (), |row| row.get::<u64>(0)).await.unwrap();
    assert_eq!(amount, Some(10));
}
