//! The digest of the log is computed beside it; what goes wrong there must not make it another one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_core::EventStore;
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::disk::{Disk, File};
use annals_engine::{EngineStore, Options, verify_disk};

use crate::common::append;

/// A disk of which one read of the background thread fails: the first that goes beyond the first mebibyte of
/// a segment.
struct OneBadRead(FaultyDisk, Arc<AtomicBool>);

struct BadFile(Arc<dyn File>, Arc<AtomicBool>);

impl Disk for OneBadRead {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(BadFile(self.0.open(name)?, self.1.clone())))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(BadFile(self.0.create(name)?, self.1.clone())))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }
}

impl File for BadFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let background = std::thread::current().name() == Some("annals-seal");
        if background && offset >= 1 << 19 && !self.1.swap(true, Ordering::SeqCst) {
            return Err(io::Error::other("a read fails"));
        }
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn allocate(&self, end: u64) -> io::Result<()> {
        self.0.allocate(end)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

/// A read fails in the middle of what is digested: it is digested again, once.
#[tokio::test]
async fn a_failed_read_does_not_change_the_digest() {
    let disk = FaultyDisk::new();
    let failed = Arc::new(AtomicBool::new(false));
    let options = Options { run_events: 30, segment_bytes: 64 << 20, ..Options::default() };
    let store = EngineStore::on(Arc::new(OneBadRead(disk.clone(), failed.clone())), options).unwrap();
    let began = std::time::Instant::now();
    let mut digested = None;
    for number in 0.. {
        let mut append = append("account-1", number, 1);
        append.writes[0].event.data = vec![b' '; 64 << 10].into();
        store.append(append).await.unwrap();
        // Until the digest has gone on behind the failure: the time is only there to end a hang.
        let now = disk.open("digest").ok().map(|file| {
            let mut bytes = vec![0; 4096];
            file.read_at(&mut bytes, 0).unwrap();
            bytes
        });
        if failed.load(Ordering::SeqCst) && now != digested {
            break;
        }
        if !failed.load(Ordering::SeqCst) {
            digested = now;
        }
        assert!(began.elapsed().as_secs() < 300, "the digest is not extended");
        // Nothing waits for it, but what is compared here must not run away from it.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    store.close().await.unwrap();
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
}
