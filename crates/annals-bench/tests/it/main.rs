//! Every workload at its tiny size, so that none rots.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::time::Duration;

use annals::State;
use annals_bench::consume::{Deposits, ManyDeposits};
use annals_bench::{
    Load, account, append, bare, commands, commands_by_hand, consume, forget_pages, rehydrated,
};
use annals_core::{EventStore, MemoryStore, Position};

#[tokio::test]
async fn appends_are_made() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let figures = append(&store, Load::TINY, 1).await.unwrap();
    assert_eq!((figures.events, figures.requests, figures.digest), (40, 20, 40));
    assert_eq!(store.head().await.unwrap(), Position::new(40));
    append(&store, Load::TINY, 2).await.unwrap();
}

#[tokio::test]
async fn the_framework_does_what_is_done_by_hand() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let framework = commands(&store, Load::TINY, 1).await.unwrap();
    let by_hand = commands_by_hand(&store, Load::TINY, 1).await.unwrap();
    assert_eq!((framework.events, framework.digest), (by_hand.events, by_hand.digest));
    assert_eq!(framework.events, 40);
    let (framework, by_hand) = rehydrated(&store, 200, 2).await.unwrap();
    assert_eq!((framework.digest, by_hand.digest), (200, 200));
}

#[test]
fn the_bare_disk_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let figures = bare(directory.path(), 100, 5).unwrap();
    assert_eq!((figures.requests, figures.digest), (5, 500));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    forget_pages(directory.path()).unwrap();
}

#[tokio::test]
async fn an_account_is_loaded_in_every_way() {
    let directory = tempfile::tempdir().unwrap();
    let figures = account(directory.path(), 400, 2).await.unwrap();
    assert_eq!(figures.events, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_consumed_in_every_way() {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    consume::fill(&*store, 2_500, 10).await.unwrap();
    assert_eq!(consume::read_by_hand(&*store).await.unwrap().events, 2_500);
    let wait = Duration::from_millis(1);
    for (name, lanes, wait) in [("none", 1, Duration::ZERO), ("waits", 16, wait)] {
        let figures = consume::subscriber(&store, State::memory(), name, lanes, wait).await.unwrap();
        assert_eq!(figures.digest, 2_500);
    }
    assert_eq!(consume::timers(4, 10, wait).await.digest, 10);
    let directory = tempfile::tempdir().unwrap();
    let by_hand = consume::projection_by_hand(&*store, directory.path()).await.unwrap();
    let each = consume::projection(Deposits, &store, directory.path()).await.unwrap();
    let many = consume::projection(ManyDeposits, &store, directory.path()).await.unwrap();
    for projection in [each, many] {
        assert_eq!((by_hand.events, by_hand.digest), (projection.events, projection.digest));
    }
    let (appends, handled) = consume::live(&store, State::memory(), 3).await.unwrap();
    assert_eq!((appends.requests, handled.requests), (3, 3));
}
