//! A real process on a real disk is killed under load; a witness in another file says what was acknowledged.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use annals_core::{EventStore, EventStoreExt, IdempotencyKey, Query};
use annals_engine::{EngineStore, Options, verify};

use crate::common::{append, small_segments};

const CYCLES: usize = 8;

fn options() -> Options {
    Options { segment_bytes: 64 << 10, ..small_segments() }
}

/// The child: appends from many tasks and prints each acknowledgement once it has it. Not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_child() {
    let Ok(directory) = std::env::var("ANNALS_KILL_DIRECTORY") else { return };
    let cycle = std::env::var("ANNALS_KILL_CYCLE").unwrap();
    let store = std::sync::Arc::new(EngineStore::open(directory, options()).unwrap());
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (store, cycle) = (store.clone(), cycle.clone());
            tokio::spawn(async move {
                for number in 0_usize.. {
                    let name = format!("{cycle}/{task}/{number}");
                    let key = IdempotencyKey::new(name.as_str()).unwrap();
                    let append = append(&format!("account-{task}"), number, 1 + number % 3).once(key);
                    let outcome = store.append(append).await.unwrap();
                    // One call, so that a line is whole or not there.
                    use std::io::Write as _;
                    let line = format!("\nacknowledged {name} {} {}\n", outcome.first, outcome.last);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Runs the child until it has acknowledged `count` appends, kills it, and returns what it acknowledged.
fn kill_after(directory: &Path, cycle: usize, count: usize) -> Vec<(String, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kill::killed_child", "--exact", "--nocapture"])
        .env("ANNALS_KILL_DIRECTORY", directory)
        .env("ANNALS_KILL_CYCLE", cycle.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        if let ["acknowledged", name, first, last] = words[..] {
            acknowledged.push((name.to_owned(), first.parse().unwrap(), last.parse().unwrap()));
        }
        if acknowledged.len() == count {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acknowledged
}

/// G1: what was acknowledged before a kill is there after it, at its positions, and its keys still answer.
#[tokio::test]
async fn killed_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let mut witness: Vec<(String, u64, u64)> = Vec::new();
    for cycle in 0..CYCLES {
        let acknowledged = kill_after(directory.path(), cycle, 40 + 37 * cycle);
        assert!(acknowledged.len() >= 40 + 37 * cycle, "the child has died by itself");
        witness.extend(acknowledged);
        let store = EngineStore::open(directory.path(), options()).unwrap();
        let log = store.log_events(Query::all()).await.unwrap();
        for (name, first, last) in &witness {
            for position in *first..=*last {
                let event = log.get(position as usize - 1);
                let event = event.unwrap_or_else(|| panic!("lost: {name} at position {position}"));
                assert_eq!(event.append().get(), *first, "{name}");
            }
            let key = IdempotencyKey::new(name.as_str()).unwrap();
            let outcome =
                store.outcome(&key).await.unwrap().unwrap_or_else(|| panic!("lost: the key {name}"));
            assert_eq!((outcome.first.get(), outcome.last.get()), (*first, *last), "{name}");
        }
    }
    let report = verify(directory.path(), &mut |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
    assert!(report.appends as usize >= witness.len());
}
