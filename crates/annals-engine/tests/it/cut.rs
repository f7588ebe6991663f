//! The data ends at any byte: recovery accepts whole frames only.

use annals_core::EventStore;
use annals_engine::Options;
use annals_engine::disk::faulty::FaultyDisk;

use crate::common::{all, append, check, open};

/// G2: wherever the last frames are cut, the appends before the cut are there, whole, and nothing of the one
/// that was cut; and the store resumes from there.
#[tokio::test]
async fn cut_at_every_byte() {
    let disk = FaultyDisk::new();
    let mut done = Vec::new();
    let mut ends = Vec::new();
    let name = "00000000000000000001.seg";
    {
        let store = open(&disk, Options::default()).unwrap();
        for number in 0..6 {
            let append = append("account-1", number, 1 + number % 3);
            done.push((append.clone(), store.append(append).await.unwrap()));
            let bytes = &disk.files()[name];
            ends.push(bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1);
        }
        // The store is not closed: the machine stops here.
        std::mem::forget(store);
    }
    let mut whole = disk.files().remove(name).unwrap();
    whole.truncate(ends[5] + 4096);
    for cut in ends[2]..ends[5] + 8 {
        for fill in [None, Some(0), Some(0xff)] {
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(if fill.is_some() { whole.len() } else { cut }, fill.unwrap_or(0));
            let disk = FaultyDisk::with_files([(name.to_owned(), bytes)]);
            let store = open(&disk, Options::default()).unwrap();
            // Filling up with zeros may put back a last byte that was zero.
            let kept = ends.iter().filter(|&&end| end <= cut).count();
            check(&store, &done[..kept]).await;
            let events: usize = done[..kept].iter().map(|(append, _)| append.writes.len()).sum();
            assert_eq!(all(&store).await.len(), events, "cut at {cut}, filled with {fill:?}");
            let next = append("account-1", 99, 2);
            let mut longer = done[..kept].to_vec();
            longer.push((next.clone(), store.append(next).await.unwrap()));
            drop(store);
            check(&open(&disk, Options::default()).unwrap(), &longer).await;
        }
    }
}
