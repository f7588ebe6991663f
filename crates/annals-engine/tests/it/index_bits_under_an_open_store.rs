//! What an index says is right, or it is said to be damaged, also if a bit flips while the store is open.

use annals_core::{
    Append, EventStore, Expected, IdempotencyKey, LogRead, Position, Query, StreamRead, Version,
};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{EngineStore, Options};

use crate::common::{append, event, open, stream};

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).unwrap()
}

/// The blocks of the filter in an index file: first block, and how many.
fn filter_of(bytes: &[u8]) -> std::ops::Range<usize> {
    let number = |at: usize| u32::from_le_bytes(bytes[16 + 4 * at..][..4].try_into().unwrap()) as usize;
    number(6) * 4096..number(8) * 4096
}

async fn sealed(options: &Options) -> (FaultyDisk, EngineStore) {
    let disk = FaultyDisk::new();
    let store = open(&disk, options.clone()).unwrap();
    for number in 0..40 {
        let mut append = append(&format!("account-{number}"), number, 1).once(key(&format!("key {number}")));
        append.writes[0].event.metadata.predecessor = Some(format!("cause {}", number + 1).into());
        store.append(append).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let store = open(&disk, options.clone()).unwrap();
    (disk, store)
}

/// G5, G9: bits that flip in an index under an open store do not make it forget a key.
#[tokio::test]
async fn a_flipped_bit_of_a_filter_forgets_no_key() {
    let options = Options { run_events: 20, ..Options::default() };
    let (disk, store) = sealed(&options).await;
    let used = key("key 3");
    assert!(store.outcome(&used).await.unwrap().is_some());
    let (name, bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with(".idx")).unwrap();
    for byte in filter_of(&bytes).filter(|byte| bytes[*byte] != 0) {
        for bit in (0..8).filter(|bit| bytes[byte] >> bit & 1 == 1) {
            disk.flip(&name, byte, bit);
            if let Ok(None) = store.outcome(&used).await {
                let again = append("account-3", 1_000, 1).once(used.clone());
                let appended = store.append(again).await;
                panic!("byte {byte} bit {bit}: key forgotten; the append again: {appended:?}");
            }
            disk.flip(&name, byte, bit);
        }
    }
}

/// G3: nor a stream.
#[tokio::test]
async fn a_flipped_bit_of_a_filter_forgets_no_stream() {
    let options = Options { run_events: 20, ..Options::default() };
    let (disk, store) = sealed(&options).await;
    store.read_stream(StreamRead::forward(stream("account-3"), Version::FIRST)).await.unwrap();
    let (name, bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with(".idx")).unwrap();
    for byte in filter_of(&bytes).filter(|byte| bytes[*byte] != 0) {
        for bit in (0..8).filter(|bit| bytes[byte] >> bit & 1 == 1) {
            disk.flip(&name, byte, bit);
            let page = store.read_stream(StreamRead::forward(stream("account-3"), Version::FIRST)).await;
            if page.is_ok_and(|page| page.events.is_empty()) {
                let again = Append::to(stream("account-3"), Expected::NoStream, [event("again")]);
                let appended = store.append(again).await;
                panic!("byte {byte} bit {bit}: stream forgotten; one that expects none: {appended:?}");
            }
            disk.flip(&name, byte, bit);
        }
    }
}

/// G5: nor what an append was: where the next one begins stands in the index too.
#[tokio::test]
async fn a_flipped_bit_of_an_offset_changes_no_outcome() {
    let options = Options { run_events: 20, ..Options::default() };
    let (disk, store) = sealed(&options).await;
    let used = key("key 3");
    let known = store.outcome(&used).await.unwrap();
    let (name, _) = disk.files().into_iter().find(|(name, _)| name.ends_with(".idx")).unwrap();
    for byte in 4096..4096 + 20 * 4 {
        for bit in 0..8 {
            disk.flip(&name, byte, bit);
            match store.outcome(&used).await {
                Ok(outcome) => assert_eq!(outcome, known, "byte {byte} bit {bit}"),
                Err(error) => {
                    assert!(matches!(error, annals_core::Error::Damaged { .. }), "{}", error.chain())
                }
            }
            disk.flip(&name, byte, bit);
        }
    }
}

/// G3, G5, G9: any bit of an index flips after the store was opened, and before anything was asked of it.
#[tokio::test]
async fn a_flipped_bit_anywhere_in_an_index_is_never_believed() {
    let options = Options { run_events: 20, ..Options::default() };
    let (disk, store) = sealed(&options).await;
    let log = crate::common::all(&store).await;
    drop(store);
    let (name, bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with(".idx")).unwrap();
    let mut random = crate::common::Random::new(7);
    for _ in 0..400 {
        let disk = FaultyDisk::with_files(disk.files());
        let store = open(&disk, options.clone()).unwrap();
        let (byte, bit) = (random.below(bytes.len() as u64) as usize, random.below(8) as u32);
        disk.flip(&name, byte, bit);
        for event in log.iter().take(20) {
            let place = format!("byte {byte} bit {bit}, position {}", event.position());
            let read = StreamRead::forward(event.stream_id(), Version::FIRST);
            if let Ok(page) = store.read_stream(read).await {
                assert_eq!(page.events, std::slice::from_ref(event), "{place}");
            }
            for query in [Query::id(event.id()), Query::predecessor(format!("cause {}", event.position()))] {
                if let Ok(page) = store.read_log(LogRead::forward(Position::FIRST).matching(query)).await {
                    assert_eq!(page.events, std::slice::from_ref(event), "{place}");
                }
            }
            let used = event.idempotency_key().unwrap();
            if let Ok(outcome) = store.outcome(&used).await {
                assert_eq!(outcome.map(|outcome| outcome.first), Some(event.position()), "{place}");
            }
            let mut again = append(event.stream(), 0, 1);
            again.writes[0].event = event.to_new();
            if let Ok(outcome) = store.append(again).await {
                assert!(outcome.duplicate && outcome.first == event.position(), "{place}");
            }
        }
    }
}
