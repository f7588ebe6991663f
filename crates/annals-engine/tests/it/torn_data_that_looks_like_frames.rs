//! What a crash leaves is looked through in a time that grows with its bytes.

use std::time::{Duration, Instant};

use annals_core::{ContentType, EventStore};
use annals_engine::Options;
use annals_engine::disk::faulty::FaultyDisk;

use crate::common::{append, open};

/// A frame header and a record's fields that look like a frame, without knowing any salt.
fn lookalike(out: &mut Vec<u8>, left: usize) {
    // crc 4 | len 4 | kind 1 | count 1 | place (5) | behind 0 | crc 4 | len varint | index 0 | version 1 |
    // time 0
    let records_at = 9 + 1 + 5 + 1;
    let room = left - records_at;
    out.extend_from_slice(&[0xaa; 4]);
    out.extend_from_slice(&(left as u32).to_le_bytes());
    out.extend_from_slice(&[1, 1, 0xff, 0xff, 0xff, 0xff, 0x07, 0]);
    out.extend_from_slice(&[0xbb; 4]);
    // length behind = room - 4 - bytes of varint (4)
    let behind = room - 8;
    let mut value = behind as u32;
    for index in 0..4 {
        out.push((value & 0x7f) as u8 | if index < 3 { 0x80 } else { 0 });
        value >>= 7;
    }
    out.extend_from_slice(&[0, 1, 0]);
}

fn hostile_data(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() + 64 < bytes {
        let left = bytes - out.len();
        lookalike(&mut out, left);
    }
    out.resize(bytes, 1);
    out
}

async fn open_after_torn(data: Vec<u8>) -> Duration {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    store.append(append("first", 0, 1)).await.unwrap();
    let mut last = append("last", 0, 1);
    last.writes[0].event.content_type = ContentType::new("application/octet-stream");
    last.writes[0].event.data = data.into();
    store.append(last).await.unwrap();
    let after = disk.restart(0);
    let (name, bytes) = after.files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
    let at = bytes.windows(4).position(|w| w == b"last").unwrap();
    // The sector with the beginning of the frame was not written.
    after.flip(&name, at, 0);
    drop(store);
    let began = Instant::now();
    open(&after, Options::default()).unwrap();
    began.elapsed()
}

#[tokio::test]
async fn what_a_crash_leaves_is_looked_through_in_time() {
    let half = open_after_torn(hostile_data(512 << 10)).await;
    let whole = open_after_torn(hostile_data(1 << 20)).await;
    let plain = open_after_torn(vec![1; 1 << 20]).await;
    println!("{half:?} {whole:?} {plain:?}");
    assert!(whole < 2 * plain + Duration::from_millis(50), "{whole:?}, other data {plain:?}");
}

/// The same for a repair and a verification, of which the header is broken too: then not even the salt is
/// known.
#[tokio::test]
async fn what_is_damaged_is_looked_through_in_time() {
    async fn took(data: Vec<u8>, header_is_broken: bool) -> Duration {
        let disk = FaultyDisk::new();
        let store = open(&disk, Options::default()).unwrap();
        store.append(append("first", 0, 1)).await.unwrap();
        let mut large = append("large", 0, 1);
        large.writes[0].event.content_type = ContentType::new("application/octet-stream");
        large.writes[0].event.data = data.into();
        store.append(large).await.unwrap();
        store.append(append("last", 0, 1)).await.unwrap();
        store.close().await.unwrap();
        let (name, bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
        let at = bytes.windows(5).position(|w| w == b"large").unwrap();
        disk.flip(&name, at, 0);
        if header_is_broken {
            disk.flip(&name, 40, 0);
        }
        let began = Instant::now();
        let verified = annals_engine::verify_disk(&disk, &mut |_, _| {}).unwrap();
        let took = began.elapsed();
        assert_eq!((verified.events, verified.damage.is_empty()), (2, false));
        took
    }
    for header_is_broken in [false, true] {
        let hostile = took(hostile_data(1 << 20), header_is_broken).await;
        let plain = took(vec![1; 1 << 20], header_is_broken).await;
        println!("{hostile:?} {plain:?}");
        assert!(hostile < 4 * plain + Duration::from_secs(2), "{hostile:?}, other data {plain:?}");
    }
}
