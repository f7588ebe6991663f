//! A scan hands out what a read of the log does, in the same order, also where other threads read ahead of
//! it.

use std::ops::ControlFlow;

use annals_core::{Error, EventStore, EventStoreExt, Position, Query};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{EngineStore, Options};

use crate::common::{append, open};

/// More than is read without reading ahead, in several stretches, runs and segments.
const APPENDS: usize = 700;
const EVENTS: usize = 30;

fn options() -> Options {
    Options { segment_bytes: 300 << 10, run_events: 1_500, ..Options::default() }
}

async fn filled() -> (FaultyDisk, EngineStore) {
    let disk = FaultyDisk::new();
    let store = open(&disk, options()).unwrap();
    for number in 0..APPENDS {
        store.append(append(&format!("account-{}", number % 7), number, EVENTS)).await.unwrap();
    }
    (disk, store)
}

#[tokio::test]
async fn a_scan_hands_out_what_is_read() {
    let (_disk, store) = filled().await;
    let log = store.log_events(Query::all()).await.unwrap();
    assert_eq!(log.len(), APPENDS * EVENTS);
    for from in [0, 1, 2, 4_096, 4_097, 8_193, 20_000, log.len() as u64, log.len() as u64 + 1] {
        let mut expected = log.iter().skip(from.saturating_sub(1) as usize);
        let next = store.scan(Position::new(from), |event| {
            let other = expected.next().unwrap();
            assert_eq!((event.position(), event.version()), (other.position(), other.version()));
            assert_eq!((event.stream(), event.id()), (other.stream(), other.id()));
            assert_eq!((event.append(), event.recorded_at()), (other.append(), other.recorded_at()));
            assert_eq!(event.data(), other.data());
            ControlFlow::Continue(())
        });
        assert_eq!(expected.next(), None, "from {from}");
        assert_eq!(next.unwrap(), Position::new(log.len() as u64 + 1));
    }
}

/// A scan that is stopped resumes after the last event that was handed out.
#[tokio::test]
async fn a_stopped_scan_returns_where_to_resume() {
    let (_disk, store) = filled().await;
    for stop in [1, 4_096, 4_097, 9_000, 21_000] {
        let mut last = 0;
        let next = store.scan(Position::FIRST, |event| {
            last = event.position().get();
            if last == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((last, next.unwrap()), (stop, Position::new(stop + 1)));
    }
}

/// G9: everything before damage is handed out, then the damage is reported, and nothing after it.
#[tokio::test]
async fn a_scan_ends_at_damage() {
    let (disk, store) = filled().await;
    store.close().await.unwrap();
    let names: Vec<_> = disk.files().into_keys().filter(|name| name.ends_with(".seg")).collect();
    let damaged = &names[names.len() / 2];
    assert!(disk.flip(damaged, 150 << 10, 2));
    let first: u64 = damaged[..20].parse().unwrap();
    let mut next = 1;
    let error = store
        .scan(Position::FIRST, |event| {
            assert_eq!(event.position().get(), next);
            next += 1;
            ControlFlow::Continue(())
        })
        .unwrap_err();
    let Error::Damaged { location, .. } = &error else { panic!("{}", error.chain()) };
    assert_eq!((&location.file, location.position), (damaged, Some(Position::new(next))));
    assert!(next > first, "what is before it was handed out");
}
