//! An id that is used in many streams costs what others cost.

use std::time::{Duration, Instant};

use annals_core::{Append, EventId, EventStore, Write};
use annals_engine::Options;
use annals_engine::disk::faulty::FaultyDisk;

use crate::common::{event, open, stream};

/// The same id is another event in another stream.
#[tokio::test]
async fn one_id_in_many_streams_is_judged_in_time() {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    let make = |from: u32| {
        let mut append = Append::new();
        for number in from..from + 4_000 {
            let mut event = event("x");
            event.id = EventId::from_bytes([0; 16]);
            append.writes.push(Write { stream: stream(&format!("s-{number}")), event });
        }
        append
    };
    store.append(make(0)).await.unwrap();
    let began = Instant::now();
    store.append(make(4_000)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
