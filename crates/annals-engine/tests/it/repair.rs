//! Repair: whatever is damaged, what is whole is copied, and what is not is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annals_core::{EventStore, Position, RecordedEvent};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{Lost, Note, Repaired, Work, repair_disk, verify_disk};

use crate::common::{Observed, all, append, open, segments, several_segments, small_segments};

async fn repair(disk: &FaultyDisk) -> (FaultyDisk, Repaired, Vec<Note>) {
    let (target, mut notes) = (FaultyDisk::new(), Vec::new());
    let mut report = |note| {
        notes.push(note);
        Ok(())
    };
    let before = disk.files();
    let repaired = repair_disk(disk, Arc::new(target.clone()), 4 << 10, &Work::new(None), &mut report).await;
    let repaired = repaired.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(disk.files(), before, "the source was changed");
    (target, repaired, notes)
}

/// Where each event stands now, by where it stood.
fn places(notes: &[Note]) -> BTreeMap<u64, u64> {
    let mut places = BTreeMap::new();
    for note in notes {
        if let Note::Copied { first, last, to } = note {
            places.extend((first.get()..=last.get()).zip(to.get()..));
        }
    }
    places
}

/// What must hold of every repair of this log: what is reported is what was done, to the event.
async fn check(log: &[RecordedEvent], disk: &FaultyDisk) -> (Repaired, Vec<Note>) {
    let (target, repaired, notes) = repair(disk).await;
    assert_eq!(verify_disk(&target, &mut |_, _| {}).unwrap().damage, []);
    let store = open(&target, small_segments()).unwrap();
    let copied = all(&store).await;
    let places = places(&notes);
    assert_eq!((copied.len(), copied.len() as u64), (places.len(), repaired.events));
    assert_ne!(repaired.source, repaired.target);
    for (old, now) in &places {
        let (old, now) = (&log[*old as usize - 1], &copied[*now as usize - 1]);
        assert_eq!((old.stream(), old.to_new()), (now.stream(), now.to_new()));
        assert_eq!((old.recorded_at(), &old.idempotency_key()), (now.recorded_at(), &now.idempotency_key()));
        assert_eq!(places[&old.append().get()], now.append().get(), "appends are whole");
    }
    let mut lost: BTreeSet<u64> = BTreeSet::new();
    let mut reported = BTreeSet::new();
    for note in &notes {
        match note {
            Note::Left(damage) => match damage.lost {
                Lost::Events { first, last } => lost.extend(first.get()..=last.get()),
                Lost::Rest { first } => lost.extend(first.get()..=log.len() as u64),
                _ => {}
            },
            Note::Gone { stream, first, last, .. } => {
                reported.extend((first.get()..=last.get()).map(|version| (stream.clone(), version)));
            }
            // The versions that are lost in the middle of a stream, whether an index had said so or not.
            Note::Shifted { stream, first, last, old, new } => {
                reported
                    .extend((first.get()..=last.get()).map(|version| (stream.as_str().to_owned(), version)));
                let event =
                    log.iter().find(|event| event.stream() == *stream && event.version() == *old).unwrap();
                assert_eq!(copied[places[&event.position().get()] as usize - 1].version(), *new);
            }
            _ => {}
        }
    }
    let gone = log.iter().filter(|event| !places.contains_key(&event.position().get()));
    assert_eq!(lost, gone.clone().map(|event| event.position().get()).collect());
    let named: BTreeSet<_> = gone.map(|event| (event.stream().to_owned(), event.version().get())).collect();
    assert!(reported.is_subset(&named), "told to be lost, and is there: {:?}", reported.difference(&named));
    if disk.files().keys().any(|name| name.ends_with(".idx")) {
        // All but those at the end of their streams in the last segment, of which nothing speaks.
        let unknown = named.difference(&reported).count();
        let last: u64 = segments(disk).last().unwrap()[..20].parse().unwrap();
        assert!(unknown as u64 <= lost.range(last..).count() as u64, "{:?}", named.difference(&reported));
    }
    (repaired, notes)
}

/// A store that is whole is copied whole.
#[tokio::test]
async fn a_whole_store_is_copied_whole() {
    let (disk, log) = several_segments(60).await;
    let (repaired, notes) = check(&log, &disk).await;
    assert_eq!((repaired.left, repaired.lost, repaired.moved, repaired.streams), (0, 0, 0, 0));
    assert!(!repaired.more_lost && notes.len() == 1, "{notes:?}");
    // One that was killed in the middle of a write is taken as the store would be opened.
    let name = segments(&disk).pop().unwrap();
    let mut files = disk.files();
    let bytes = files.get_mut(&name).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    bytes.resize(bytes.len().max(used + 4096), 0);
    bytes[used.next_multiple_of(8) + 8..][..100].fill(7);
    let (repaired, _) = check(&log, &FaultyDisk::with_files(files)).await;
    assert_eq!((repaired.left, repaired.lost), (0, 0));
}

/// One bit in any byte: the events of at most one append are lost, and told.
#[tokio::test]
async fn after_any_bit_flip_all_but_one_append_is_copied() {
    let (disk, log) = several_segments(40).await;
    assert!(segments(&disk).len() > 2);
    for (name, bytes) in disk.files() {
        for byte in (0..bytes.len()).step_by(11) {
            if !name.ends_with(".seg") && byte > 100 {
                break;
            }
            let mut files = disk.files();
            files.get_mut(&name).unwrap()[byte] ^= 1 << (byte % 8);
            let damaged = FaultyDisk::with_files(files);
            let (repaired, notes) = check(&log, &damaged).await;
            assert!(repaired.lost <= 3 && !repaired.more_lost, "{name}, byte {byte}: {notes:?}");
            let verified = verify_disk(&damaged, &mut |_, _| {}).unwrap();
            let lost: u64 = verified.damage.iter().filter_map(|damage| damage.lost.count()).sum();
            assert_eq!(lost, repaired.lost, "{name}, byte {byte}: {:?}", verified.damage);
        }
    }
}

/// Sectors, headers, whole segments, indexes and the identity may be gone: what is whole is found all the
/// same.
#[tokio::test]
async fn after_any_loss_what_is_whole_is_copied() {
    let (disk, log) = several_segments(80).await;
    let names = segments(&disk);
    for (index, name) in names.iter().enumerate() {
        let last = index + 1 == names.len();
        // A segment is gone.
        let mut files = disk.files();
        files.remove(name);
        let (repaired, _) = check(&log, &FaultyDisk::with_files(files)).await;
        assert_eq!(repaired.more_lost, last);
        // So are all indexes: fewer streams are named, and no event is lost by it.
        let mut files = disk.files();
        files.retain(|name, _| name.ends_with(".seg"));
        files.remove(name);
        if index > 0 && !last {
            check(&log, &FaultyDisk::with_files(files)).await;
        }
        // Each sector of it is gone.
        let bytes = &disk.files()[name];
        let length = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        for sector in 0..length.div_ceil(512) {
            if last && sector * 512 + 512 > length - 128 {
                // The mark of the close and the last group with it: that looks as if both had never been
                // written.
                break;
            }
            let mut files = disk.files();
            let bytes = files.get_mut(name).unwrap();
            bytes[sector * 512..(sector * 512 + 512).min(length)].fill(0);
            let (repaired, _) = check(&log, &FaultyDisk::with_files(files)).await;
            assert!(repaired.lost < 20 && !repaired.more_lost);
        }
    }
    let mut files = disk.files();
    files.remove("identity");
    check(&log, &FaultyDisk::with_files(files)).await;
}

/// A sector that the disk refuses costs the appends that lie in it, and no others.
#[tokio::test]
async fn a_sector_that_cannot_be_read_is_left_out() {
    let (disk, log) = several_segments(60).await;
    let name = segments(&disk)[1].clone();
    let refused = Observed(
        disk.clone(),
        Arc::new(move |file, from, to| {
            let bad = file == name && from < 4096 && to > 0;
            if bad { Err(std::io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }),
    );
    let (target, mut notes) = (FaultyDisk::new(), Vec::new());
    let mut report = |note| {
        notes.push(note);
        Ok(())
    };
    let work = Work::new(None);
    let repaired =
        repair_disk(&refused, Arc::new(target.clone()), 4 << 10, &work, &mut report).await.unwrap();
    assert_eq!(repaired.events + repaired.lost, log.len() as u64);
    assert!((1..40).contains(&repaired.lost), "{}", repaired.lost);
    assert_eq!(verify_disk(&target, &mut |_, _| {}).unwrap().damage, []);
}

/// An event may hold anything, also the bytes of the segment that it stands in: if it breaks, the frames in
/// its data are not taken for others, neither by a repair nor by what verification says is lost.
#[tokio::test]
async fn frames_in_the_data_of_a_broken_event_are_not_taken() {
    let disk = FaultyDisk::new();
    let store = open(&disk, annals_engine::Options::default()).unwrap();
    for number in 0..20 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    let name = segments(&disk)[0].clone();
    let bytes = disk.files()[&name].clone();
    let used = (bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1).next_multiple_of(8);
    // Once at each distance from a multiple of eight.
    let data = (0..8_usize).flat_map(|shift| [vec![b' '; shift], bytes[..used].to_vec()].concat());
    let mut holding = append("account-2", 0, 1);
    holding.writes[0].event.data = data.collect::<Vec<u8>>().into();
    store.append(holding).await.unwrap();
    store.append(append("account-1", 20, 1)).await.unwrap();
    let log = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    let mut files = disk.files();
    // Before the data, so that all of the data is as it was.
    let bytes = files.get_mut(&name).unwrap();
    let at = bytes.windows(9).position(|window| window == b"account-2").unwrap();
    bytes[at] ^= 1;
    let damaged = FaultyDisk::with_files(files);
    let (repaired, _) = check(&log, &damaged).await;
    assert_eq!((repaired.lost, repaired.events), (1, 21));
    let found = verify_disk(&damaged, &mut |_, _| {}).unwrap().damage;
    let position = Position::new(21);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].lost, Lost::Events { first: position, last: position });
}

/// A segment of another log is left out, whole as it is.
#[tokio::test]
async fn a_segment_of_another_log_is_left_out() {
    let (disk, log) = several_segments(60).await;
    let (other, _) = several_segments(60).await;
    let name = segments(&disk)[1].clone();
    let mut files = disk.files();
    files.insert(name.clone(), other.files()[&name].clone());
    let (repaired, _) = check(&log, &FaultyDisk::with_files(files)).await;
    assert!(repaired.lost > 5);
}

/// Keys hold in the new store: a retry of what was copied is answered, and one of what was lost is executed.
#[tokio::test]
async fn keys_are_kept() {
    let (disk, log) = several_segments(60).await;
    let name = segments(&disk)[1].clone();
    let mut files = disk.files();
    files.get_mut(&name).unwrap()[400] ^= 1;
    let (target, _, notes) = repair(&FaultyDisk::with_files(files)).await;
    let places = places(&notes);
    let store = open(&target, small_segments()).unwrap();
    for event in log.iter().filter(|event| event.idempotency_key().is_some()) {
        let again = append(event.stream(), 0, 1).once(event.idempotency_key().unwrap()).or_original();
        let appended = store.append(again).await.unwrap();
        let place = places.get(&event.position().get()).map(|&place| Position::new(place));
        assert_eq!(appended.duplicate.then_some(appended.first), place);
    }
}

/// Recorded times are right although the header is gone that they are counted from; if they cannot be known,
/// that is reported.
#[tokio::test]
async fn recorded_times_are_kept_or_reported_as_lost() {
    let estimated = |notes: &[Note]| {
        let left = |note: &&Note| matches!(note, Note::Left(left) if left.problem.contains("estimated"));
        notes.iter().filter(left).count()
    };
    // The one segment of a small store, of which nothing else speaks.
    let disk = FaultyDisk::new();
    let store = open(&disk, annals_engine::Options::default()).unwrap();
    for number in 0..20 {
        store.append(append("account-1", number, 2)).await.unwrap();
    }
    let log = all(&store).await;
    store.close().await.unwrap();
    let name = segments(&disk)[0].clone();
    for gone in [128, 400] {
        let mut files = disk.files();
        files.get_mut(&name).unwrap()[..gone].fill(0);
        let (repaired, notes) = check(&log, &FaultyDisk::with_files(files.clone())).await;
        assert!(repaired.lost < 10 && estimated(&notes) == 0, "{notes:?}");
        // Without the identity nothing tells whether a time is right.
        files.remove("identity");
        let (_, _, notes) = repair(&FaultyDisk::with_files(files)).await;
        assert_eq!(estimated(&notes), 1, "{notes:?}");
    }
    // The last of several, and the one in front is broken too: the times are near the right ones.
    let (disk, log) = several_segments(60).await;
    let names = segments(&disk);
    let mut files = disk.files();
    files.get_mut(&names[names.len() - 1]).unwrap()[..128].fill(0);
    files.get_mut(&names[names.len() - 2]).unwrap()[300] ^= 1;
    let (target, repaired, notes) = repair(&FaultyDisk::with_files(files)).await;
    assert_eq!(estimated(&notes), 1, "{notes:?}");
    let copied = all(&open(&target, small_segments()).unwrap()).await;
    assert_eq!(copied.len() as u64, repaired.events);
    for (old, now) in places(&notes) {
        let (old, now) = (&log[old as usize - 1], &copied[now as usize - 1]);
        assert!(old.recorded_at().as_micros().abs_diff(now.recorded_at().as_micros()) < 10_000_000);
    }
}

/// Indexes say of which streams the events of a segment were that is gone, the last one too.
#[tokio::test]
async fn indexes_name_the_streams_of_what_is_gone() {
    let disk = FaultyDisk::new();
    let options = annals_engine::Options { run_events: 5, ..small_segments() };
    let store = open(&disk, options).unwrap();
    for number in 0..60 {
        // Each stream has one event only, so nothing behind it shows a jump.
        store.append(append(&format!("account-{number}"), number, 1)).await.unwrap();
    }
    let log = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    let names = segments(&disk);
    for name in &names {
        let mut files = disk.files();
        files.remove(name);
        let (repaired, notes) = check(&log, &FaultyDisk::with_files(files)).await;
        let gone = notes.iter().filter(|note| matches!(note, Note::Gone { .. })).count() as u64;
        assert!(gone > 0 && gone == repaired.streams, "{name}: {notes:?}");
        assert!(repaired.more_lost || gone == repaired.lost, "{name}: {notes:?}");
    }
}
