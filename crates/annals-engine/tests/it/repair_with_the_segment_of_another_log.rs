//! Repair copies what was appended, and nothing else.

use std::sync::Arc;

use annals_core::{ContentType, EventStore};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{Lost, Options, Work, repair_disk, verify_disk};

use crate::common::{all, append, open};

/// Repair takes no events from data.
#[tokio::test]
async fn repair_takes_no_events_from_the_data_of_others() {
    // Another log, of which a user has stored the segment as data.
    let other = FaultyDisk::new();
    {
        let store = open(&other, Options::default()).unwrap();
        let mut forged = append("forged", 0, 1);
        forged.writes[0].event.data = format!("\"{}\"", "y".repeat(100_000)).into();
        store.append(forged).await.unwrap();
    }
    let other = other.files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap().1;
    let end = other.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    let mut holds = append("holds", 0, 1);
    holds.writes[0].event.content_type = ContentType::new("application/octet-stream");
    holds.writes[0].event.data = other[..end].to_vec().into();
    store.append(holds).await.unwrap();
    for number in 0..20 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let (name, bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
    let at = bytes.windows(5).position(|w| w == b"holds").unwrap();
    disk.flip(&name, at, 0);
    disk.flip(&name, 1, 0);
    let target = FaultyDisk::new();
    let mut notes = Vec::new();
    let repaired = repair_disk(&disk, Arc::new(target.clone()), 1 << 20, &Work::new(None), &mut |note| {
        notes.push(note);
        Ok(())
    })
    .await
    .unwrap();
    let store = open(&target, Options::default()).unwrap();
    let streams: Vec<_> = all(&store).await.into_iter().map(|event| event.stream().to_string()).collect();
    assert!(
        !streams.iter().any(|name| name == "forged"),
        "an event that was never appended: {repaired:?} {notes:?}"
    );
    assert_eq!(streams.len(), 20);
}

/// The same where less is known of the header, or the event with the segment is the last one.
#[tokio::test]
async fn repair_takes_no_events_from_data_whatever_else_is_broken() {
    let other = FaultyDisk::new();
    {
        let store = open(&other, Options::default()).unwrap();
        for number in 0..30 {
            store.append(append("forged", number, 2)).await.unwrap();
        }
    }
    let other = other.files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap().1;
    let end = other.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // Which of the appends holds the segment; a byte of the header that flips; whether the identity is gone.
    for (holds_at, byte, without_identity) in [
        (0, 1, true),
        (0, 40, false),
        (7, 40, true),
        (7, 50, false),
        (19, 1, false),
        (19, 40, true),
        (0, 120, true),
    ] {
        let which = format!("{holds_at}, {byte}, {without_identity}");
        let disk = FaultyDisk::new();
        let store = open(&disk, Options::default()).unwrap();
        for number in 0..20 {
            let mut one = append("account-1", number, 1);
            if number == holds_at {
                one = append("holds", 0, 1);
                one.writes[0].event.content_type = ContentType::new("application/octet-stream");
                one.writes[0].event.data = other[..end].to_vec().into();
            }
            store.append(one).await.unwrap();
        }
        // It was killed: nothing marks the end.
        let disk = FaultyDisk::with_files(disk.files());
        let (name, bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
        let at = bytes.windows(5).position(|w| w == b"holds").unwrap();
        disk.flip(&name, at, 0);
        disk.flip(&name, byte, 3);
        let disk = FaultyDisk::with_files(
            disk.files().into_iter().filter(|(name, _)| name.ends_with(".seg") || !without_identity),
        );
        let target = FaultyDisk::new();
        let (work, mut tell) = (Work::new(None), |_| Ok(()));
        let repaired = repair_disk(&disk, Arc::new(target.clone()), 1 << 20, &work, &mut tell).await.unwrap();
        let store = open(&target, Options::default()).unwrap();
        let log = all(&store).await;
        assert!(log.iter().all(|event| event.stream() == "account-1"), "{which}: {repaired:?}");
        assert_eq!(log.len(), 19, "{which}");
        assert!(repaired.lost == 1 || repaired.more_lost, "{which}: {repaired:?}");
        let verified = verify_disk(&disk, &mut |_, _| {}).unwrap();
        assert_eq!(verified.events, 19, "{which}: {:?}", verified.damage);
        assert!(verified.damage.iter().any(|damage| damage.lost != Lost::Nothing), "{which}");
    }
}
