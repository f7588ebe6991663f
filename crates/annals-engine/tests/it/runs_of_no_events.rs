//! Options that cannot be are refused.

use std::time::Duration;

use annals_core::Error;
use annals_engine::Options;
use annals_engine::disk::faulty::FaultyDisk;

use crate::common::open;

#[test]
fn runs_of_no_events_are_refused() {
    let (done, refused) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let disk = FaultyDisk::new();
        drop(open(&disk, Options::default()).unwrap());
        let opened = open(&disk, Options { run_events: 0, ..Options::default() });
        done.send(matches!(opened, Err(Error::Invalid(_)))).unwrap();
    });
    if let Ok(refused) = refused.recv_timeout(Duration::from_millis(500)) {
        assert!(refused);
    } else {
        // It would take all of the memory.
        eprintln!("it does not end");
        std::process::abort();
    }
}

/// So are all others: what is refused is named, with what it can be, and nothing is written.
#[test]
fn options_that_cannot_be_are_refused_by_name() {
    use annals_core::Limits;

    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Options { limits, ..Options::default() }
    };
    for (field, options) in [
        ("segment_bytes", Options { segment_bytes: 0, ..Options::default() }),
        ("segment_bytes", Options { segment_bytes: 128, ..Options::default() }),
        ("segment_bytes", Options { segment_bytes: u64::MAX, ..Options::default() }),
        ("run_bytes", Options { run_bytes: 0, ..Options::default() }),
        ("limits.event_bytes_max", limits(|limits| limits.event_bytes_max = 0)),
        ("limits.event_bytes_max", limits(|limits| limits.event_bytes_max = 1 << 30)),
        ("limits.append_bytes_max", limits(|limits| limits.append_bytes_max = 0)),
        ("limits.append_bytes_max", limits(|limits| limits.append_bytes_max = usize::MAX)),
        ("limits.append_events_max", limits(|limits| limits.append_events_max = 0)),
        ("limits.append_events_max", limits(|limits| limits.append_events_max = 1 << 17)),
    ] {
        let disk = FaultyDisk::new();
        let Error::Invalid(refused) = open(&disk, options).err().unwrap() else { panic!("{field}") };
        assert_eq!(refused.field, field);
        assert!(disk.files().is_empty());
    }
}

/// The smallest that there can be work.
#[tokio::test]
async fn the_smallest_options_work() {
    use annals_core::EventStore;

    let disk = FaultyDisk::new();
    let options = Options { segment_bytes: 256, run_events: 1, run_bytes: 1, ..Options::default() };
    for round in 0..3 {
        let store = open(&disk, options.clone()).unwrap();
        for number in 0..10 {
            store.append(crate::common::append("account-1", number, 2)).await.unwrap();
        }
        assert_eq!(crate::common::all(&store).await.len(), 20 * (round + 1));
    }
}
