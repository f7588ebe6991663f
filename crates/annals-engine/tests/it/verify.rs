//! Verification: while the store is written to, in pieces, and what it says is lost (G9).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_core::{EventStore, Position};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{Damage, Lost, Options, VerifyOptions, Work, verify_disk, verify_disk_with};

use crate::common::{Observed, all, append, open, segments, several_segments, small_segments};

/// The damage that a verification finds, each of which it also reports as soon as it is found.
fn verify(disk: &FaultyDisk) -> Vec<Damage> {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let on_damage = {
        let reported = reported.clone();
        move |damage: &Damage| reported.lock().unwrap().push(damage.clone())
    };
    let options = VerifyOptions { on_damage: Some(Arc::new(on_damage)), ..VerifyOptions::default() };
    let found = verify_disk_with(disk, &options).unwrap().damage;
    assert_eq!(*reported.lock().unwrap(), found);
    found
}

fn events(first: u64, last: u64) -> Lost {
    Lost::Events { first: Position::new(first), last: Position::new(last) }
}

/// The disk with one of its files changed, or removed.
fn with(disk: &FaultyDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> FaultyDisk {
    let mut files = disk.files();
    change(files.get_mut(name).unwrap());
    FaultyDisk::with_files(files)
}

fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

/// The file of the segment that holds this position, and where the next one begins.
fn segment_of(disk: &FaultyDisk, position: u64) -> (String, u64) {
    let names = segments(disk);
    let base = |name: &String| name[..20].parse::<u64>().unwrap();
    let index = names.iter().rposition(|name| base(name) <= position).unwrap();
    (names[index].clone(), names.get(index + 1).map_or(0, base))
}

/// A store that is open is whole at any time, whatever is written meanwhile; and the pass is remembered.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_verified_while_it_is_written_to() {
    let disk = FaultyDisk::new();
    // Many runs, so that indexes come and go meanwhile.
    let store = Arc::new(open(&disk, Options { run_events: 7, ..small_segments() }).unwrap());
    store.append(append("account-0", 0, 1)).await.unwrap();
    assert_eq!(store.last_pass().unwrap(), None);
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..600 {
                store
                    .append(append(&format!("account-{}", number % 7), number, 1 + number % 4))
                    .await
                    .unwrap();
            }
        }
    });
    let mut passes = 0;
    while !writer.is_finished() || passes == 0 {
        let (before, checked) = (store.head().await.unwrap(), store.clone());
        let verified = tokio::task::spawn_blocking(move || checked.verify(&VerifyOptions::default()));
        let verified = verified.await.unwrap().unwrap();
        assert_eq!(verified.damage, []);
        assert!(verified.finished && verified.head >= before && verified.store == Some(store.id()));
        let remembered = store.last_pass().unwrap().unwrap();
        assert_eq!((remembered.head, remembered.damage), (verified.head, 0));
        passes += 1;
    }
    writer.await.unwrap();
    assert!(segments(&disk).len() > 10);
    drop(store);
    assert_eq!(verify(&disk), []);
}

/// Damage below the head of an open store is found, in sealed segments and in the one that is written.
#[tokio::test]
async fn damage_under_an_open_store_is_found() {
    let disk = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    for number in 0..100 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    for position in [5, 100] {
        let (name, _) = segment_of(&disk, position);
        let byte = find(&disk.files()[&name], &format!("account-1 {}.0", position - 1));
        let file = annals_engine::disk::Disk::open(&disk, &name).unwrap();
        file.write_at(b"X", byte as u64).unwrap();
        let found = store.verify(&VerifyOptions::default()).unwrap();
        assert_eq!(found.damage.len(), 1, "{:?}", found.damage);
        let damage = &found.damage[0];
        assert_eq!((&damage.location.file, damage.lost), (&name, events(position, position)));
        assert_eq!(damage.location.position, Some(Position::new(position)));
        file.write_at(b"a", byte as u64).unwrap();
    }
    assert_eq!(store.verify(&VerifyOptions::default()).unwrap().damage, []);
}

/// What is lost is reported to the event: by one broken frame, by several, by a header, a segment, the end.
#[tokio::test]
async fn damage_says_what_is_lost() {
    let (disk, log) = several_segments(120).await;
    let head = log.len() as u64;
    let of_append = |number: usize| {
        let text = format!("\"account-{} {number}.0\"", number % 5);
        let event = log.iter().find(|event| event.data() == text.as_bytes()).unwrap();
        let last = log.iter().rfind(|other| other.append() == event.append()).unwrap();
        (event.position().get(), last.position().get())
    };
    let broken = |disk: &FaultyDisk, number: usize| {
        let name = segment_of(disk, of_append(number).0).0;
        with(disk, &name, |bytes| {
            let byte = find(bytes, &format!("account-{} {number}.0", number % 5));
            bytes[byte] ^= 1;
        })
    };
    // Two that do not touch, then two that do.
    let lost = |disk: &FaultyDisk| verify(disk).iter().map(|damage| damage.lost).collect::<Vec<_>>();
    let home = |number| segment_of(&disk, of_append(number).0).0;
    let number =
        (40..80).find(|&number| home(number - 1) == home(number) && home(number) == home(number + 3));
    let number = number.unwrap();
    let (first, last) = of_append(number);
    assert_eq!(lost(&broken(&disk, number)), [events(first, last)]);
    let (first_behind, last_behind) = of_append(number + 2);
    let apart = lost(&broken(&broken(&disk, number), number + 2));
    assert_eq!(apart, [events(first, last), events(first_behind, last_behind)]);
    let together = lost(&broken(&broken(&disk, number), number + 1));
    assert_eq!(together, [events(first, of_append(number + 1).1)]);
    // A header, and with it nothing.
    let name = segment_of(&disk, 60).0;
    for byte in [0, 9, 20, 35, 45, 60, 85, 100, 124] {
        let found = verify(&with(&disk, &name, |bytes| bytes[byte] ^= 1));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].location.file.as_str(), found[0].lost), (name.as_str(), Lost::Nothing));
    }
    // A header and the first frame; a whole segment.
    let (base, next) = (name[..20].parse().unwrap(), segment_of(&disk, 60).1);
    let found = lost(&with(&disk, &name, |bytes| bytes[..200].fill(0)));
    assert!(matches!(found[..], [Lost::Nothing, Lost::Events { first, .. }] if first == Position::new(base)));
    assert_eq!(lost(&with(&disk, &name, |bytes| bytes.fill(0))), [events(base, next - 1)]);
    let mut files = disk.files();
    files.remove(&name);
    assert_eq!(lost(&FaultyDisk::with_files(files)), [events(base, next - 1)]);
    // The end of the last segment: the mark of the close says how far it went.
    let last = log.last().unwrap();
    let name = segment_of(&disk, head).0;
    let torn = with(&disk, &name, |bytes| {
        let byte = find(bytes, std::str::from_utf8(last.data()).unwrap());
        bytes[byte] ^= 1;
    });
    assert_eq!(lost(&torn), [events(last.append().get(), head)]);
    // The last segment itself: nothing says how far it went.
    let mut files = disk.files();
    files.remove(&name);
    let base = Position::new(name[..20].parse().unwrap());
    assert_eq!(lost(&FaultyDisk::with_files(files)), [Lost::Rest { first: base }]);
}

/// A sector that the disk refuses is reported, and costs the frames in it and no others.
#[tokio::test]
async fn damage_of_a_file_beside_the_segments_is_found() {
    let (disk, _) = several_runs().await;
    for name in ["identity", "durable"] {
        let damage = verify(&with(&disk, name, |bytes| *bytes.last_mut().unwrap() ^= 1));
        assert_eq!(damage.len(), 1, "{name}: {damage:?}");
        assert_eq!((damage[0].location.file.as_str(), damage[0].lost), (name, Lost::Nothing));
    }
}

#[tokio::test]
async fn a_sector_that_cannot_be_read_is_damage() {
    let disk = FaultyDisk::new();
    let log = {
        let store = open(&disk, annals_engine::Options::default()).unwrap();
        for number in 0..200 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
        all(&store).await
    };
    let refused = Observed(
        disk.clone(),
        Arc::new(|_, from, to| {
            if from < 3 * 4096 && to > 2 * 4096 { Err(std::io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }),
    );
    let found = verify_disk(&refused, &mut |_, _| {}).unwrap();
    let [frames, sector] = &found.damage[..] else { panic!("{:?}", found.damage) };
    assert_eq!(sector.location.offset, 2 * 4096);
    let lost = frames.lost.count().unwrap();
    assert!((10..60).contains(&lost), "{lost} of {}", log.len());
    assert_eq!(found.events + lost, log.len() as u64);
}

/// A pass that is stopped at any read resumes at the end of a segment, and finds what an unbroken one finds.
#[tokio::test]
async fn a_stopped_pass_resumes() {
    let (disk, _) = several_segments(60).await;
    let name = segments(&disk)[2].clone();
    let disk = with(&disk, &name, |bytes| bytes[300] ^= 1);
    let unbroken = verify_disk(&disk, &mut |_, _| {}).unwrap();
    assert_eq!(unbroken.damage.len(), 1);
    let mut resumed = BTreeMap::new();
    for stop_after in 1.. {
        let disk = FaultyDisk::with_files(disk.files());
        let options = VerifyOptions { resume: true, ..VerifyOptions::default() };
        let (reads, work) = (AtomicU64::new(0), options.work.clone());
        let stopping = Observed(
            disk.clone(),
            Arc::new(move |name, _, _| {
                if name.ends_with(".seg") && reads.fetch_add(1, Ordering::Relaxed) + 1 == stop_after {
                    work.stop();
                }
                Ok(())
            }),
        );
        let first = verify_disk_with(&stopping, &options).unwrap();
        if first.finished {
            assert_eq!(first, unbroken);
            break;
        }
        let mut second =
            verify_disk_with(&disk, &VerifyOptions { resume: true, ..VerifyOptions::default() }).unwrap();
        *resumed.entry(second.resumed.map_or(0, Position::get)).or_insert(0) += 1;
        second.resumed = None;
        assert_eq!(second, unbroken, "stopped after {stop_after} reads");
        // What is finished is not gone on with.
        let third = verify_disk_with(&disk, &VerifyOptions { resume: true, ..VerifyOptions::default() });
        assert_eq!(third.unwrap().resumed, None);
    }
    assert!(resumed.len() >= segments(&disk).len() - 1, "{resumed:?}");
}

/// Where a pass stood is of no use in another log, nor in the same log with another history.
#[tokio::test]
async fn the_progress_of_another_log_is_not_resumed() {
    let (disk, _) = several_segments(60).await;
    let options = VerifyOptions { resume: true, ..VerifyOptions::default() };
    let (reads, work) = (AtomicU64::new(0), options.work.clone());
    let on_read = move |_: &str, _: u64, _: u64| {
        if reads.fetch_add(1, Ordering::Relaxed) == 12 {
            work.stop();
        }
        Ok(())
    };
    assert!(!verify_disk_with(&Observed(disk.clone(), Arc::new(on_read)), &options).unwrap().finished);
    let progress = disk.files().remove("verification").unwrap();
    let (other, _) = several_segments(60).await;
    let mut files = other.files();
    files.insert("verification".to_owned(), progress);
    let found = verify_disk_with(
        &FaultyDisk::with_files(files),
        &VerifyOptions { resume: true, ..VerifyOptions::default() },
    );
    assert_eq!(found.unwrap().resumed, None);
}

/// No more is read than allowed.
#[tokio::test]
async fn a_pass_keeps_to_its_rate() {
    let (disk, _) = several_segments(60).await;
    let bytes = verify_disk(&disk, &mut |_, _| {}).unwrap().bytes;
    let begun = Instant::now();
    let options = VerifyOptions { work: Work::new(Some(bytes * 4)), ..VerifyOptions::default() };
    assert_eq!(verify_disk_with(&disk, &options).unwrap().damage, []);
    assert!(begun.elapsed() > Duration::from_millis(200), "{:?}", begun.elapsed());
    assert_eq!(options.work.progress(), (bytes, bytes));
}

/// A log of several segments with several runs in each, some of them merged, and others not.
async fn several_runs() -> (FaultyDisk, u64) {
    let disk = FaultyDisk::new();
    let options = Options { run_events: 7, ..small_segments() };
    for part in 0..3 {
        let store = open(&disk, options.clone()).unwrap();
        for number in 0..90 {
            let number = part * 90 + number;
            store.append(append(&format!("account-{}", number % 5), number, 1 + number % 3)).await.unwrap();
        }
        store.close().await.unwrap();
    }
    let head = open(&disk, options).unwrap().head().await.unwrap();
    (disk, head.get())
}

fn indexes(disk: &FaultyDisk) -> Vec<String> {
    disk.files().into_keys().filter(|name| name.ends_with(".idx")).collect()
}

/// Every index is compared, runs within a segment and over many; a broken one is reported once, and no event
/// is lost by it.
#[tokio::test]
async fn every_index_is_compared() {
    let (disk, head) = several_runs().await;
    let found = verify_disk(&disk, &mut |_, _| {}).unwrap();
    assert_eq!((found.damage, found.events), (vec![], head));
    let names = indexes(&disk);
    // How many there are depends on what was merged by now.
    assert!(found.indexes == names.len() as u64 && !names.is_empty(), "{names:?}");
    for name in &names {
        let bytes = disk.files()[name].len();
        for byte in (0..bytes).step_by(1 + bytes / 15) {
            let found = verify_disk(&with(&disk, name, |bytes| bytes[byte] ^= 1), &mut |_, _| {}).unwrap();
            let [damage] = &found.damage[..] else { panic!("{name}, byte {byte}: {:?}", found.damage) };
            assert_eq!((&damage.location.file, damage.lost, found.events), (name, Lost::Nothing, head));
            assert!(damage.problem.contains("remove it"), "{damage:?}");
            assert!(!found.digest.is_empty());
        }
    }
    // One that is whole, and of another log.
    let name = &names[0];
    let found = verify(&with(&disk, name, |index| {
        // Where the log's identity stands, and the checksum of the block.
        index[56] ^= 1;
        let crc = crc32c::crc32c(&index[..4_092]).to_le_bytes();
        index[4_092..4_096].copy_from_slice(&crc);
    }));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].location.file, found[0].lost), (name, Lost::Nothing));
}

/// An index of events that are not there says that they were: a log that was cut is not a shorter one.
#[tokio::test]
async fn an_index_of_events_that_are_gone_is_damage() {
    let (disk, head) = several_runs().await;
    let last = indexes(&disk).iter().map(|name| name[21..41].parse::<u64>().unwrap()).max().unwrap();
    let mut files = disk.files();
    // The last segment is gone, and the mark of the one in front with it.
    let gone = segments(&disk).pop().unwrap();
    let base: u64 = gone[..20].parse().unwrap();
    assert!(base <= last && last <= head);
    files.remove(&gone);
    let front = segments(&disk).into_iter().rev().nth(1).unwrap();
    let bytes = files.get_mut(&front).unwrap();
    // The mark is the last frame: its checksum, its length, its kind, and three numbers.
    let is_mark = |at: &usize| (bytes[at + 4] as usize, bytes[at + 8]) == (bytes.len() - at, 3);
    let mark = (bytes.len() - 20..bytes.len() - 11).find(is_mark).unwrap();
    bytes[mark..].fill(0);
    let found = verify(&FaultyDisk::with_files(files));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].lost, Lost::Rest { first: Position::new(base) });
    assert!(found[0].location.file.ends_with(".idx"), "{found:?}");
}

/// What the store has once written of the digest holds: a changed event, with every checksum after it, is
/// found as long as that file exists.
#[tokio::test]
async fn a_log_that_is_not_the_one_of_its_digest_is_damage() {
    let (disk, other) = (several_runs().await.0, several_runs().await.0);
    for disk in [&disk, &other] {
        // It is written when there is nothing better to do.
        let _store = open(disk, Options { run_events: 7, ..small_segments() }).unwrap();
        let begun = Instant::now();
        while !disk.files().contains_key("digest") && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
    }
    assert_eq!(verify(&disk), []);
    let id = disk.files()["identity"][8..24].to_vec();
    let mut files = disk.files();
    let mut digest = other.files().remove("digest").unwrap();
    digest[8..24].copy_from_slice(&id);
    let end = digest.len() - 4;
    let crc = crc32c::crc32c(&digest[..end]).to_le_bytes();
    digest[end..].copy_from_slice(&crc);
    files.insert("digest".to_owned(), digest);
    let found = verify(&FaultyDisk::with_files(files));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].location.file.as_str(), found[0].lost), ("digest", Lost::Nothing));
}
