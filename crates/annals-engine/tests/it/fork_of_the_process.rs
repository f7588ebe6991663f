//! A store belongs to the process that opened it.
#![allow(unsafe_code)]

use std::time::Duration;

use annals_core::EventStore;
use annals_engine::{EngineStore, Options};

use crate::common::{all, append};

/// A process that forks: what either of the two has acknowledged is there.
#[test]
fn a_fork_of_the_process_loses_nothing() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = EngineStore::open(place.path(), Options::default()).unwrap();
    for number in 0..64 {
        runtime.block_on(store.append(append("a", number, 1))).unwrap();
    }
    let answers = place.path().join("child");
    // SAFETY: a test; the child only appends and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let answer = runtime.block_on(store.append(append("child", 0, 1)));
        let answer = format!("{:?}", answer.map(|appended| appended.first.get()));
        std::fs::write(&answers, answer).unwrap();
        unsafe { libc::_exit(0) };
    }
    std::thread::sleep(Duration::from_secs(1));
    let of_child = std::fs::read_to_string(&answers).unwrap_or_default();
    let of_parent = runtime.block_on(store.append(append("parent", 0, 1))).map(|a| a.first.get());
    unsafe { libc::kill(child, libc::SIGKILL) };
    drop(store);
    let store = EngineStore::open(place.path(), Options::default()).unwrap();
    let log = runtime.block_on(all(&store));
    let streams: Vec<_> = log.iter().skip(64).map(|event| event.stream().to_string()).collect();
    assert!(!of_child.is_empty(), "the child never returns");
    assert!(of_child.starts_with("Err"), "child {of_child}, parent {of_parent:?}, log {streams:?}");
}

/// The child has none of the threads of its parent: nothing waits for them, not even closing and dropping.
#[test]
fn a_forked_child_waits_for_nothing() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = EngineStore::open(place.path(), Options::default()).unwrap();
    runtime.block_on(store.append(append("a", 0, 1))).unwrap();
    let answers = place.path().join("child");
    // SAFETY: a test; the child only asks the store, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = runtime.block_on(async {
            let from = annals_core::Position::FIRST;
            [
                store.append(append("child", 0, 1)).await.is_err(),
                store.wait(from).await.is_err(),
                store.head().await.is_err(),
                store.read_log(annals_core::LogRead::forward(from)).await.is_err(),
                store.verify(&annals_engine::VerifyOptions::default()).is_err(),
                store.close().await.is_err(),
            ]
        });
        drop(store);
        std::fs::write(&answers, format!("{refused:?}")).unwrap();
        unsafe { libc::_exit(0) };
    }
    let begun = std::time::Instant::now();
    // SAFETY: it waits for the child of this test.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) } == 0 {
        if begun.elapsed() > Duration::from_secs(60) {
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child never returns");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(std::fs::read_to_string(&answers).unwrap(), format!("{:?}", [true; 6]));
    // The parent has it as before.
    runtime.block_on(store.append(append("parent", 0, 1))).unwrap();
    drop(store);
    let store = EngineStore::open(place.path(), Options::default()).unwrap();
    assert_eq!(runtime.block_on(all(&store)).len(), 2);
}
