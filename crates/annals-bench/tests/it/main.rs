//! Every workload at its tiny size, so that none rots.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;

use annals_bench::{Load, account, append, bare, commands, commands_by_hand, forget_pages, rehydrated};
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
