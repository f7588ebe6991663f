//! Bits flip: what was durable is reported as damage with its location, never taken for the end of the log
//! (G9).

use annals_core::{ContentType, Error, EventStore, EventStoreExt, LogRead, Query};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{Options, verify_disk};

use crate::common::{Random, append, check, open, small_segments};

/// Every byte of a closed log, one bit each: opening, or else reading, says that it is damaged; or the bit
/// was in what holds nothing (the filling, or the mark of the close), and everything is there.
#[tokio::test]
async fn bit_flips_are_damage() {
    let disk = FaultyDisk::new();
    let events = {
        let store = open(&disk, Options::default()).unwrap();
        for number in 0..5 {
            store.append(append("account-1", number, 1 + number % 2)).await.unwrap();
        }
        store.close().await.unwrap();
        store.log_events(Query::all()).await.unwrap()
    };
    let files = disk.files();
    let (name, bytes) = files.first_key_value().unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let mark = used.next_multiple_of(8) - 72;
    let mut reported = 0;
    for byte in 0..used {
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1 << (byte % 8);
        let disk = FaultyDisk::with_files([(name.clone(), flipped)]);
        match open(&disk, Options::default()) {
            Err(Error::Damaged { location, .. }) => {
                assert_eq!(&location.file, name);
                assert!(location.offset <= byte as u64, "byte {byte} is reported at {location}");
                let report = verify_disk(&disk, &mut |_, _| {}).unwrap();
                assert_eq!(report.damage.len(), 1, "byte {byte}: verify finds it too");
                reported += 1;
            }
            Err(other) => panic!("byte {byte}: {}", other.chain()),
            Ok(store) => {
                let read = store.log_events(Query::all()).await.unwrap();
                assert_eq!(read, events, "byte {byte} was flipped, and the log reads differently");
                let filling = bytes[byte] == 0 && byte < mark;
                assert!(byte >= mark || filling, "byte {byte} was flipped, and nothing says so");
            }
        }
    }
    assert!(reported > mark / 2, "{reported} of {mark}");
}

/// In a sealed segment, which is not read when the store is opened, the read says so, and `verify` finds it.
#[tokio::test]
async fn damage_in_a_sealed_segment_is_reported_by_reads() {
    let disk = FaultyDisk::new();
    {
        let store = open(&disk, small_segments()).unwrap();
        for number in 0..100 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
    }
    let mut files = disk.files();
    let sealed = files.keys().find(|name| name.ends_with(".seg")).unwrap().clone();
    let target = files.get_mut(&sealed).unwrap();
    let text = b"account-1 7.0";
    let found = target.windows(text.len()).position(|window| window == text).unwrap();
    target[found] ^= 4;
    let disk = FaultyDisk::with_files(files);
    let store = open(&disk, small_segments()).unwrap();
    let error = store.log_events(Query::all()).await.unwrap_err();
    let Error::Damaged { location, .. } = &error else { panic!("{}", error.chain()) };
    assert_eq!(location.file, sealed);
    let position = location.position.unwrap();
    // What is not damaged is read all the same.
    let after = LogRead::forward(position.next()).limit(5);
    assert_eq!(store.read_log(after).await.unwrap().events.len(), 5);
    drop(store);
    let report = verify_disk(&disk, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage[0].location.position, Some(position));
}

/// A segment that is gone is damage, not a shorter log.
#[tokio::test]
async fn a_missing_segment_is_damage() {
    let disk = FaultyDisk::new();
    {
        let store = open(&disk, small_segments()).unwrap();
        for number in 0..100 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
    }
    let files = disk.files();
    let segments: Vec<_> = files.keys().filter(|name| name.ends_with(".seg")).cloned().collect();
    assert!(segments.len() > 3);
    for missing in [0, 1] {
        let rest = files.clone().into_iter().filter(|(name, _)| *name != segments[missing]);
        let disk = FaultyDisk::with_files(rest);
        let error = open(&disk, small_segments()).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{}", error.chain());
        let report = verify_disk(&disk, &mut |_, _| {}).unwrap();
        assert!(!report.damage.is_empty());
    }
}

/// G9: the last segment is gone; the index of the one before it shows that there was another.
#[tokio::test]
async fn a_missing_last_segment_is_damage() {
    let disk = FaultyDisk::new();
    {
        let store = open(&disk, small_segments()).unwrap();
        for number in 0..100 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
    }
    let files = disk.files();
    let last = files.keys().rfind(|name| name.ends_with(".seg")).unwrap().clone();
    for all_segments in [false, true] {
        let rest = files
            .clone()
            .into_iter()
            .filter(|(name, _)| *name != last && !(all_segments && name.ends_with(".seg")));
        let disk = FaultyDisk::with_files(rest);
        let report = verify_disk(&disk, &mut |_, _| {}).unwrap();
        assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
        let error = open(&disk, small_segments()).err().expect("what was acknowledged is not there");
        assert!(matches!(error, Error::Damaged { .. }), "{}", error.chain());
    }
}

/// G9: an event may hold anything, a copy of a segment too. If the power fails while it is written, what is
/// left of it is a torn tail, and not a frame that says what was durable.
#[tokio::test]
async fn a_segment_inside_a_torn_event_is_no_damage() {
    let other = FaultyDisk::new();
    {
        let store = open(&other, Options::default()).unwrap();
        for number in 0..60 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
    }
    let mut copied = other.files().remove("00000000000000000001.seg").unwrap();
    copied.truncate(copied.iter().rposition(|&byte| byte != 0).unwrap() + 1);
    copied.resize(copied.len().next_multiple_of(8), 0);
    // Once at each distance from a multiple of eight.
    let data: Vec<u8> = (0..8_usize).flat_map(|shift| [vec![b' '; shift], copied.clone()].concat()).collect();
    let disk = FaultyDisk::new();
    let mut done = Vec::new();
    let name = "00000000000000000001.seg";
    let end = {
        let store = open(&disk, Options::default()).unwrap();
        for number in 0..5 {
            let append = append("account-1", number, 1);
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
        let end = disk.files()[name].iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let mut append = append("account-1", 5, 1);
        append.writes[0].event.data = data.into();
        store.append(append).await.unwrap();
        std::mem::forget(store);
        end.next_multiple_of(8)
    };
    let mut torn = disk.files().remove(name).unwrap();
    torn[end..end + 512].fill(0);
    let disk = FaultyDisk::with_files([(name.to_owned(), torn)]);
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
    let store = open(&disk, Options::default()).unwrap_or_else(|error| panic!("{}", error.chain()));
    check(&store, &done).await;
}

/// A log whose only segment is gone is damage, not a new log; so is one whose segment is another log's.
#[tokio::test]
async fn a_log_that_has_lost_all_of_its_segments_is_damage() {
    let disk = FaultyDisk::new();
    {
        let store = open(&disk, Options::default()).unwrap();
        store.append(append("account-1", 0, 1)).await.unwrap();
    }
    let (other, files) = (FaultyDisk::new(), disk.files());
    drop(open(&other, Options::default()).unwrap());
    let segment = files.keys().find(|name| name.ends_with(".seg")).unwrap().clone();
    let identity = files.iter().filter(|(name, _)| **name != segment);
    let identity: Vec<_> = identity.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    let foreign = (segment.clone(), other.files()[&segment].clone());
    for disk in [
        FaultyDisk::with_files(identity.clone()),
        FaultyDisk::with_files(identity.into_iter().chain([foreign])),
    ] {
        let error = open(&disk, Options::default()).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{}", error.chain());
        assert!(!verify_disk(&disk, &mut |_, _| {}).unwrap().damage.is_empty());
    }
    // Without the file, as a crash in the middle of the creation leaves it, it is written again.
    let disk = FaultyDisk::with_files([(segment.clone(), files[&segment].clone())]);
    drop(open(&disk, Options::default()).unwrap());
    assert_eq!(disk.files()["identity"], files["identity"]);
}

/// What is left of a large append that was torn is looked through once, not once for each of its bytes: the
/// store opens with as many looks at the disk as the bytes are worth.
#[tokio::test]
async fn a_large_torn_append_is_looked_through_once() {
    const BYTES: usize = 3 << 20;
    let name = "00000000000000000001.seg";
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    let done = append("account-1", 0, 3);
    let done = vec![(done.clone(), store.append(done).await.unwrap())];
    let end = disk.files()[name].iter().rposition(|&byte| byte != 0).unwrap();
    let mut random = Random::new(7);
    let mut large = append("account-1", 1, 1);
    large.writes[0].event.content_type = ContentType::Binary;
    large.writes[0].event.data =
        (0..BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect::<Vec<_>>().into();
    store.append(large).await.unwrap();
    let mut torn = disk.files();
    torn.get_mut(name).unwrap()[end + 4_096..end + 4_608].fill(0);
    let disk = FaultyDisk::with_files(torn);
    let store = open(&disk, Options::default()).unwrap();
    let looks = disk.looks();
    check(&store, &done).await;
    assert!(looks < 1_000, "{looks} looks at {BYTES} bytes");
}

/// Damage in a sealed run puts an end to the digest of the log, once: the thread that makes it does not try
/// forever.
#[tokio::test]
async fn damage_does_not_keep_the_background_busy() {
    let disk = FaultyDisk::new();
    let options = Options { run_events: 8, ..Options::default() };
    {
        let store = open(&disk, options.clone()).unwrap();
        for number in 0..100 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
    }
    let mut files = disk.files();
    files.remove("digest");
    let disk = FaultyDisk::with_files(files);
    assert!(disk.flip("00000000000000000001.seg", 2_000, 3));
    let _store = open(&disk, options).unwrap();
    let began = std::time::Instant::now();
    let (mut looks, mut since) = (0, began);
    while since.elapsed().as_millis() < 300 {
        assert!(began.elapsed().as_secs() < 20, "{looks} looks at the disk, and no end to it");
        if looks != disk.looks() {
            (looks, since) = (disk.looks(), std::time::Instant::now());
        }
        // Only so that this thread does not take the processor from the one that is watched.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
