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
    let streams: Vec<_> = log.iter().skip(64).map(|event| event.stream.to_string()).collect();
    assert!(!of_child.is_empty(), "the child waits for ever");
    assert!(of_child.starts_with("Err"), "child {of_child}, parent {of_parent:?}, log {streams:?}");
}
