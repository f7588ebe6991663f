//! Receipts and heads: an event is proved to be in the log, and nothing else is.

use annals_core::{Error, EventStore, EventStoreExt, Position, Query, Version};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{NoProof, Options, verify_disk};

use crate::common::{append, open, small_segments, stream};

/// Every event of a log of many segments, up to every head: proved by its receipt alone; and with anything in
/// the receipt changed, or held against another head, not.
#[tokio::test]
async fn every_event_is_proved_and_no_other() {
    let disk = FaultyDisk::new();
    let options = Options { run_events: 7, ..small_segments() };
    let store = open(&disk, options).unwrap();
    let mut heads = vec![];
    for number in 0..60 {
        let outcome =
            store.append(append(&format!("account-{}", number % 3), number, 1 + number % 3)).await.unwrap();
        heads.push(store.head_digest(Some(outcome.last)).unwrap().unwrap());
    }
    let last = *heads.last().unwrap();
    assert_eq!(store.head_digest(None).unwrap(), Some(last));
    for (number, head) in heads.iter().enumerate() {
        assert_eq!(
            store.head_digest(Some(head.position)).unwrap(),
            Some(*head),
            "the head of append {number} stays"
        );
    }
    for event in store.log_events(Query::all()).await.unwrap() {
        let ask = |until| store.receipt(&event.stream_id(), event.version(), until).unwrap();
        for head in heads.iter().filter(|head| head.position >= event.position()).step_by(11) {
            let receipt = ask(Some(head.position)).unwrap();
            assert_eq!(receipt.head, *head);
            assert_eq!(receipt.check(head), Ok(()));
            let earlier = heads.iter().rfind(|earlier| earlier.position < event.position());
            if let Some(earlier) = earlier {
                assert_eq!(receipt.check(earlier), Err(NoProof::Position));
            }
        }
        let receipt = ask(None).unwrap();
        assert_eq!(
            receipt.event().as_ref().map(|event| (event.stream(), event.data())),
            Some((event.stream(), event.data()))
        );
        let wrong = |change: &dyn Fn(&mut annals_engine::Receipt)| {
            let mut changed = receipt.clone();
            change(&mut changed);
            assert_ne!(changed, receipt);
            assert!(changed.check(&last).is_err(), "{changed:?}");
        };
        wrong(&|receipt| receipt.version = receipt.version.next());
        wrong(&|receipt| receipt.position = receipt.position.previous());
        wrong(&|receipt| receipt.append = receipt.append.previous());
        wrong(&|receipt| receipt.recorded_at = receipt.recorded_at.plus(std::time::Duration::from_micros(1)));
        wrong(&|receipt| receipt.body = [&receipt.body[..], b" "].concat().into());
        wrong(&|receipt| receipt.leaves += 1);
        wrong(&|receipt| receipt.before[0] ^= 1);
        wrong(&|receipt| receipt.events[0][0] ^= 1);
        wrong(&|receipt| receipt.after.push((1, [0; 32])));
    }
    // No append ends in the middle of one, and an event that does not exist has no receipt.
    let middle = heads[2].position.previous();
    assert_eq!(store.head_digest(Some(middle)).unwrap(), None);
    assert_eq!(store.receipt(&stream("account-0"), Version::FIRST, Some(middle)).unwrap(), None);
    assert_eq!(store.receipt(&stream("account-9"), Version::FIRST, None).unwrap(), None);
    assert_eq!(store.receipt(&stream("account-0"), Version::new(1_000), None).unwrap(), None);
    assert_eq!(store.head_digest(Some(last.position.next())).unwrap(), None);
    store.close().await.unwrap();
    let hex: String = last.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().digest, hex, "as it is found by verification");
    drop(store);
    let store = open(&disk, small_segments()).unwrap();
    assert_eq!(
        store.head_digest(Some(last.position)).unwrap(),
        Some(last),
        "and after opening the store again"
    );
    assert_eq!(
        store.head_digest(Some(Position::ZERO)).unwrap().map(|head| head.position),
        Some(Position::ZERO)
    );
}

/// G9: a broken frame before the head ends neither the digest nor the wait for it.
#[tokio::test]
async fn damage_before_a_head_is_reported() {
    let disk = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    for number in 0..60 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    drop(store);
    let mut files = disk.files();
    files.remove("digest");
    let (_, second) = files.iter_mut().filter(|(name, _)| name.ends_with(".seg")).nth(1).unwrap();
    second[200] ^= 1;
    let store = open(&FaultyDisk::with_files(files), small_segments()).unwrap();
    assert!(matches!(store.head_digest(None), Err(Error::Damaged { .. })));
    let first = store.receipt(&stream("account-1"), Version::FIRST, None);
    assert!(matches!(first, Err(Error::Damaged { .. })));
}

/// A receipt that says what cannot be proves nothing, and costs no more than its bytes.
#[tokio::test]
async fn a_receipt_of_absurd_numbers_proves_nothing() {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    for number in 0..9 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    let receipt = store.receipt(&stream("account-1"), Version::FIRST, None).unwrap().unwrap();
    let head = receipt.head;
    assert_eq!(receipt.check(&head), Ok(()));
    let absurd = [0, 1, 1 << 32, (1 << 32) + 1, 1 << 62, (1 << 63) + 1, u64::MAX];
    for number in absurd {
        for path in [0, 3, 63, 64, 200_000] {
            let path = vec![[7; 32]; path];
            let changed = annals_engine::Receipt { leaves: number, path: path.clone(), ..receipt.clone() };
            assert!(changed.check(&head).is_err());
            let leaf = number.saturating_sub(1);
            assert!(annals_engine::Receipt { leaf, ..changed }.check(&head).is_err());
        }
        let position = Position::new(number);
        for changed in [
            annals_engine::Receipt { append: position, ..receipt.clone() },
            annals_engine::Receipt { position, ..receipt.clone() },
            annals_engine::Receipt { version: Version::new(number), ..receipt.clone() },
        ] {
            if changed != receipt {
                assert!(changed.check(&head).is_err(), "{changed:?}");
            }
            let _ = changed.event();
        }
        let after = vec![(number, [0; 32])];
        assert!(annals_engine::Receipt { after, ..receipt.clone() }.check(&head).is_err());
    }
}

/// The file that says how far the digest was computed is derived: whatever stands in it, the head is that of
/// the log.
#[tokio::test]
async fn a_digest_that_leads_nowhere_is_computed_again() {
    let disk = FaultyDisk::new();
    let options = Options { run_events: 4, ..small_segments() };
    let (head, other) = {
        let store = open(&disk, options.clone()).unwrap();
        for number in 0..60 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
        // The digest is written when the writer rests.
        let begun = std::time::Instant::now();
        while !disk.files().contains_key("digest") && begun.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        (store.head_digest(None).unwrap(), disk.files()["digest"].clone())
    };
    for at in [24, 32, 40, 48] {
        let mut digest = other.clone();
        digest[at] ^= 1;
        let end = digest.len() - 4;
        let crc = crc32c::crc32c(&digest[..end]).to_le_bytes();
        digest[end..].copy_from_slice(&crc);
        let mut files = disk.files();
        files.insert("digest".to_owned(), digest);
        let store = open(&FaultyDisk::with_files(files), options.clone()).unwrap();
        // One that was forged is found out by a verification, which computes it from the beginning.
        if at < 48 {
            assert_eq!(store.head_digest(None).unwrap(), head, "byte {at}");
        }
    }
}
