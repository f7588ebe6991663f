//! Every decoder of bytes on disk over the seeds of `fuzz/corpus`, and over some thousands of changed ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals_core::{Append, EventId, EventStore, Expected, IdempotencyKey, Tag, Timestamp};
use annals_engine::Options;
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::fuzzing::{TARGETS, Target, seeds};

use crate::common::{Random, event, open, stream};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn seeds_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries =
        fs::read_dir(corpus(target)).unwrap_or_else(|error| panic!("no corpus of {target}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    files.into_iter().map(read).collect()
}

#[test]
fn every_seed_is_decoded_or_refused() {
    for (name, target) in TARGETS {
        let seeds = seeds_of(name);
        assert!(seeds.len() > 1, "{name} has {} seeds", seeds.len());
        for (file, bytes) in seeds {
            println!("{file}");
            target(&bytes);
        }
    }
}

/// So long each target is tried at the most, and so often.
const LIMIT: Duration = Duration::from_secs(2);
const MUTATIONS: u64 = 3_000;

#[test]
fn changed_bytes_are_decoded_or_refused() {
    let seed = std::env::var("ANNALS_SEED").map_or(7, |seed| seed.parse().unwrap());
    let threads = TARGETS.map(|target| std::thread::spawn(move || change(target, seed)));
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Changes the seeds of a target. What fails is printed before, so that it can be made again.
fn change((name, target): Target, seed: u64) {
    let seeds = seeds_of(name);
    let started = Instant::now();
    let mut number = 0;
    while number < MUTATIONS && started.elapsed() < LIMIT {
        let (file, bytes) = &seeds[number as usize % seeds.len()];
        let mut random = Random::new(seed ^ (number << 20));
        let mut changed = bytes.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut changed);
        }
        let failed = std::panic::catch_unwind(|| target(&changed));
        assert!(failed.is_ok(), "{name}: mutation {number} of {file} with ANNALS_SEED={seed}: {changed:?}");
        number += 1;
    }
    assert!(number > 0, "{name} was not tried at all");
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    let at = random.below(bytes.len() as u64) as usize;
    // Most that matters stands at the beginning.
    let at = if random.below(2) == 0 { at % 160 } else { at };
    let at = at.min(bytes.len() - 1);
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
        3 => bytes.truncate(at),
        4 => bytes.insert(at, random.next() as u8),
        5 => drop(bytes.remove(at)),
        _ => {
            let end = (at + 1 + random.below(8) as usize).min(bytes.len());
            bytes[at..end].fill([0, 0xff][random.below(2) as usize]);
        }
    }
}

/// Writes the seeds again, from stores of today's format. The identity of a store is random, so their bytes
/// differ.
#[tokio::test]
#[ignore = "writes fuzz/corpus again"]
async fn the_seeds_are_written() {
    let mut written: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for (number, count) in [(0, 3), (1, 40)] {
        let options = Options { segment_bytes: 4 << 10, run_events: 16, ..Options::default() };
        let disk = FaultyDisk::new();
        let store = open(&disk, options).unwrap();
        for index in 0..count {
            store.append(rich(index)).await.unwrap();
        }
        if number == 1 {
            store.close().await.unwrap();
        }
        // Sealing is in the background: what it leaves is there when the store is dropped.
        drop(store);
        for (target, index, bytes) in seeds(&disk.files()) {
            written.insert(corpus(target).join(format!("store-{number}-{index}")), bytes);
        }
    }
    for (path, bytes) in written {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn rich(number: usize) -> Append {
    let events = (0..1 + number % 3).map(|index| {
        let mut event = event(&format!("{number}.{index}")).with_tag(Tag::new("blue").unwrap());
        event.id = EventId::from_name(format!("{number}/{index}").as_bytes());
        if number % 2 == 1 {
            event.schema_version = 3;
            event.occurred_at = Some(Timestamp::from_micros(-1));
            event.metadata.process = Some("p".into());
            event.metadata.own.insert("ip".into(), "::1".into());
        }
        event
    });
    let append =
        Append::to(stream(&format!("account-{}", number % 3)), Expected::Any, events.collect::<Vec<_>>());
    if number.is_multiple_of(4) {
        append.once(IdempotencyKey::new(format!("key-{number}")).unwrap())
    } else {
        append
    }
}
