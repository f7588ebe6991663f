//! A store on a medium that cannot be written is read as it is.

use std::io;
use std::sync::Arc;

use annals_core::{Error, EventStore, EventStoreExt, IdempotencyKey, StreamList};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::disk::{Disk, File};
use annals_engine::{
    BackupOptions, DiskBackupStorage, EngineStore, Options, RestoreOptions, VerifyOptions, backups, restore,
};

use crate::common::{all, append, open, several_segments, small_segments, stream};

/// A disk that refuses every change.
struct Medium(FaultyDisk);

struct MediumFile(Arc<dyn File>);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for Medium {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(MediumFile(self.0.open(name)?)))
    }
    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        refused()
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }
    fn sync_directory(&self) -> io::Result<()> {
        refused()
    }
    fn is_writable(&self) -> bool {
        false
    }
}

impl File for MediumFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        refused()
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        refused()
    }
    fn sync(&self) -> io::Result<()> {
        refused()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

fn look(disk: &FaultyDisk) -> annals_core::Result<EngineStore> {
    EngineStore::on(Arc::new(Medium(disk.clone())), small_segments())
}

/// G8: everything is read, in every way, and what would be written is refused.
#[tokio::test]
async fn a_read_only_medium_is_read_and_takes_no_appends() {
    let (disk, log) = several_segments(60).await;
    // As it was closed; as it was killed, with a torn tail; without its indexes and its identity.
    let killed = {
        let disk = FaultyDisk::with_files(disk.files());
        let store = open(&disk, small_segments()).unwrap();
        let mut files = disk.files();
        std::mem::forget(store);
        let (_, bytes) = files.iter_mut().rfind(|(name, _)| name.ends_with(".seg")).unwrap();
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        bytes.truncate(used + 3);
        bytes.extend([7; 100]);
        FaultyDisk::with_files(files)
    };
    let bare = FaultyDisk::with_files(disk.files().into_iter().filter(|(name, _)| name.ends_with(".seg")));
    for disk in [disk, killed, bare] {
        let before = (disk.files(), disk.operations());
        let store = look(&disk).unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!(all(&store).await, log);
        let of_stream: Vec<_> =
            log.iter().filter(|event| event.stream() == stream("account-1")).cloned().collect();
        assert_eq!(store.stream_events(&stream("account-1")).await.unwrap(), of_stream);
        assert_eq!(store.list_streams(StreamList::default()).await.unwrap().len(), 5);
        let key = IdempotencyKey::new("key 7").unwrap();
        assert!(store.outcome(&key).await.unwrap().is_some());
        assert!(store.head_digest(None).unwrap().is_some());
        let refused = store.append(append("account-1", 0, 1)).await.unwrap_err();
        assert!(matches!(refused, Error::Unusable(_)), "{}", refused.chain());
        // Nobody waits for what will not come.
        let head = store.head().await.unwrap();
        assert!(matches!(store.wait(head).await.unwrap_err(), Error::Unusable(_)));
        assert_eq!(store.verify(&VerifyOptions::default()).unwrap().damage, []);
        // It is backed up from there, and restored elsewhere.
        let storage = DiskBackupStorage::new(Arc::new(FaultyDisk::new()));
        store.backup(&storage, &BackupOptions::default()).unwrap();
        assert_eq!(backups(&storage).unwrap().len(), 1);
        let target = FaultyDisk::new();
        restore(&storage, Arc::new(target.clone()), &RestoreOptions::default()).unwrap();
        assert_eq!(all(&open(&target, small_segments()).unwrap()).await, log);
        store.close().await.unwrap();
        drop(store);
        assert_eq!((disk.files(), disk.operations()), before, "nothing was changed");
    }
}

/// G8: a log that has lost its end, wherever in the last appends, is read up to there, verified, backed up
/// and restored: nothing can be written after it, so no position is given out twice. Where it can be written
/// it is damaged.
#[tokio::test]
async fn a_log_that_lost_its_end_is_read_on_a_read_only_medium() {
    let (whole, log) = several_segments(30).await;
    let last = crate::common::segments(&whole).pop().unwrap();
    let files = whole.files();
    let used = files[&last].iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let (mut heads, mut refusals) = (std::collections::BTreeSet::new(), 0);
    for cut in (128..used).rev().step_by(23) {
        for fill in [None, Some(0)] {
            let mut files = files.clone();
            let bytes = files.get_mut(&last).unwrap();
            let length = bytes.len();
            bytes.truncate(cut);
            bytes.resize(if fill.is_some() { length } else { cut }, 0);
            let disk = FaultyDisk::with_files(files);
            let before = disk.files();
            let store = look(&disk).unwrap_or_else(|error| panic!("cut at {cut}: {}", error.chain()));
            let head = store.head().await.unwrap().get() as usize;
            heads.insert(head);
            assert_eq!(store.lost_end().is_some(), head < log.len(), "cut at {cut}: {:?}", store.lost_end());
            assert_eq!(all(&store).await, log[..head], "cut at {cut}");
            let of_stream: Vec<_> =
                log[..head].iter().filter(|event| event.stream() == stream("account-1")).cloned().collect();
            assert_eq!(store.stream_events(&stream("account-1")).await.unwrap(), of_stream);
            store.append(append("account-1", 0, 1)).await.unwrap_err();
            let storage = DiskBackupStorage::new(Arc::new(FaultyDisk::new()));
            store.backup(&storage, &BackupOptions::default()).unwrap();
            let target = FaultyDisk::new();
            restore(&storage, Arc::new(target.clone()), &RestoreOptions::default()).unwrap();
            assert_eq!(all(&open(&target, small_segments()).unwrap()).await, log[..head]);
            drop(store);
            assert_eq!(disk.files(), before, "nothing was changed");
            if head < log.len() {
                let refused = open(&disk, small_segments()).err().unwrap();
                assert!(refused.chain().contains("annals repair"), "{}", refused.chain());
                refusals += 1;
            }
        }
    }
    assert!(heads.len() > 2 && refusals > 0, "{heads:?}, {refusals}");
    // The whole last segment is gone, with and without the indexes that know of it.
    for has_indexes in [true, false] {
        let kept = |name: &str| name != last && (has_indexes || !name.ends_with(".idx"));
        let disk = FaultyDisk::with_files(files.clone().into_iter().filter(|(name, _)| kept(name)));
        let found = all(&look(&disk).unwrap_or_else(|error| panic!("{}", error.chain()))).await;
        assert!(!found.is_empty() && found.len() < log.len());
        assert_eq!(found, log[..found.len()]);
        assert!(matches!(open(&disk, small_segments()).err().unwrap(), Error::Damaged { .. }));
    }
    // One in the middle is damage.
    let missing = crate::common::segments(&whole)[1].clone();
    let disk = FaultyDisk::with_files(files.into_iter().filter(|(name, _)| *name != missing));
    assert!(matches!(look(&disk).err().unwrap(), Error::Damaged { .. }));
}

/// G9: damage is damage there too, and an empty medium holds no store.
#[tokio::test]
async fn a_read_only_medium_hides_no_damage() {
    let (disk, _) = several_segments(30).await;
    let (name, _) = disk.files().into_iter().rfind(|(name, _)| name.ends_with(".seg")).unwrap();
    disk.flip(&name, 200, 1);
    assert!(matches!(look(&disk).err().unwrap(), Error::Damaged { .. }));
    assert!(matches!(look(&FaultyDisk::new()).err().unwrap(), Error::Unusable(_)));
    let none =
        EngineStore::open_to_read(tempfile::tempdir().unwrap().path().join("none"), Options::default());
    assert!(matches!(none.err().unwrap(), Error::NoStore(_)));
}

/// A log with what another history of it was known to be durable is read there as it is, with a notice; where
/// it can be written it is damaged.
#[tokio::test]
async fn a_log_of_another_history_is_read_on_a_read_only_medium() {
    let (disk, _) = several_segments(30).await;
    let (one, other) = (FaultyDisk::with_files(disk.files()), FaultyDisk::with_files(disk.files()));
    for disk in [&one, &other] {
        let store = open(disk, small_segments()).unwrap();
        store.append(append("account-1", 30, 1)).await.unwrap();
        store.close().await.unwrap();
    }
    let mut files = other.files();
    files.insert("durable".to_owned(), one.files()["durable"].clone());
    let disk = FaultyDisk::with_files(files);
    let store = look(&disk).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(store.lost_end().is_some_and(|why| why.contains("another history")), "{:?}", store.lost_end());
    assert_eq!(all(&store).await, all(&open(&other, small_segments()).unwrap()).await);
    store.append(append("account-1", 0, 1)).await.unwrap_err();
    drop(store);
    let refused = open(&disk, small_segments()).err().unwrap();
    assert!(refused.chain().contains("remove `log/durable`"), "{}", refused.chain());
}
