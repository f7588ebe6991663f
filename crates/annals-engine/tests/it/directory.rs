//! The directory of a store: its path, the modes of its files, and how they are told from others.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use annals_core::EventStore;
use annals_engine::disk::{Disk, File, FileDisk, FileNumber};
use annals_engine::{BackupOptions, DiskBackupStorage, EngineStore, Options};

use crate::common::{all, append, small_segments};

/// The child: opens a store by a relative path and goes to another directory. Not a test by itself.
#[tokio::test]
async fn wandering_child() {
    let Ok(directory) = std::env::var("ANNALS_WANDERING_DIRECTORY") else { return };
    std::env::set_current_dir(&directory).unwrap();
    let options = Options { run_events: 4, ..small_segments() };
    let store = EngineStore::open("data", options).unwrap();
    let storage = DiskBackupStorage::open(Path::new("backups")).unwrap();
    fs::create_dir_all("elsewhere/data/log").unwrap();
    std::env::set_current_dir("elsewhere").unwrap();
    for number in 0..60 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    store.backup(&storage, &BackupOptions::default()).unwrap();
    store.close().await.unwrap();
    println!("all is appended");
}

/// G1: a store that was opened by a relative path stays where it is when the process changes its directory.
#[tokio::test]
async fn a_process_may_change_its_directory() {
    let place = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["directory::wandering_child", "--exact", "--nocapture"])
        .env("ANNALS_WANDERING_DIRECTORY", place.path())
        .output()
        .unwrap();
    let message =
        String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && message.contains("all is appended"), "{message}");
    let log = place.path().join("elsewhere/data/log");
    assert_eq!(fs::read_dir(log).unwrap().count(), 0, "nothing was written elsewhere");
    assert!(!place.path().join("elsewhere/backups").exists());
    assert!(place.path().join("backups/backup-000001.manifest").exists());
    let store = EngineStore::open(place.path().join("data"), Options::default()).unwrap();
    assert_eq!(all(&store).await.len(), 60);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Names of the files in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// What a store creates is its owner's alone; and if others may read the segments that are there, the next
/// ones as well.
#[tokio::test]
async fn new_files_have_the_mode_of_the_segments_that_are_there() {
    for (given, expected) in [(None, 0o600), (Some(0o640), 0o640), (Some(0o660), 0o660), (Some(0o755), 0o644)]
    {
        let place = tempfile::tempdir().unwrap();
        let (data, backups) = (place.path().join("data"), place.path().join("backups"));
        for round in 0..2 {
            let options = Options { run_events: 4, ..small_segments() };
            let store = EngineStore::open(&data, options).unwrap();
            for number in 0..30 {
                store.append(append("account-1", number, 1)).await.unwrap();
            }
            // What is not of the store says nothing.
            fs::write(data.join("log/notes.txt"), "").unwrap();
            fs::set_permissions(data.join("log/notes.txt"), Permissions::from_mode(0o666)).unwrap();
            let storage = DiskBackupStorage::open(&backups).unwrap();
            store.backup(&storage, &BackupOptions::default()).unwrap();
            store.close().await.unwrap();
            drop((store, storage));
            for directory in [&data.join("log"), &backups] {
                let mut found = names(directory);
                found.retain(|name| name != "notes.txt");
                for name in &found {
                    let path = directory.join(name);
                    let expected = if round == 0 || name == "LOCK" { 0o600 } else { expected };
                    assert_eq!(mode(&path), expected, "{} of {found:?}, round {round}", path.display());
                    if let Some(given) = given.filter(|_| name != "LOCK") {
                        fs::set_permissions(&path, Permissions::from_mode(given & 0o666)).unwrap();
                    }
                }
            }
        }
    }
}

/// A file that had another number when it was opened.
struct Renumbered(Arc<dyn File>);

impl File for Renumbered {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
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
    fn number(&self) -> Option<FileNumber> {
        self.0.number().map(|(device, number)| (device, !number))
    }
    fn synced_to(&self) -> u64 {
        self.0.synced_to()
    }
}

/// G1: on a file system that gives a file another number after a while it is recognised by what was written
/// to it last, and a copy in its place is noticed with the next write.
#[test]
fn a_file_is_distinguished_from_a_copy_without_an_inode_number() {
    let place = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(place.path()).unwrap();
    let name = "00000000000000000001.seg";
    let file = Renumbered(disk.create(name).unwrap());
    let write = |at: u64| {
        file.write_at(&[at as u8 + 1; 100], at * 100).unwrap();
        file.sync().unwrap();
        file.allocate((at + 1) * 10_000).unwrap();
    };
    for at in 0..50 {
        write(at);
        assert!(disk.is_in_place(name, &file).unwrap(), "after write {at}");
    }
    let path = place.path().join("log").join(name);
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    write(50);
    assert!(!disk.is_in_place(name, &file).unwrap(), "a copy");
    fs::write(&path, "short").unwrap();
    assert!(!disk.is_in_place(name, &file).unwrap(), "a short file");
    fs::remove_file(&path).unwrap();
    assert!(!disk.is_in_place(name, &file).unwrap(), "none");
    // One that was opened, and not written to.
    fs::write(&path, [7; 200]).unwrap();
    let opened = Renumbered(disk.open(name).unwrap());
    assert!(disk.is_in_place(name, &opened).unwrap());
}

/// G1: what a restore or a repair has left half done is not opened: what would be appended there would be
/// removed by the next run.
#[tokio::test]
async fn a_directory_that_was_left_half_done_is_not_opened() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data.unfinished");
    EngineStore::open(&data, Options::default()).unwrap().append(append("account-1", 0, 1)).await.unwrap();
    fs::write(data.join("UNFINISHED"), "").unwrap();
    for _ in 0..2 {
        let refused = EngineStore::open(&data, Options::default()).err().unwrap();
        assert!(refused.chain().contains("left half done"), "{}", refused.chain());
        let refused = EngineStore::open_to_read(&data, Options::default()).err().unwrap();
        assert!(refused.chain().contains("left half done"), "{}", refused.chain());
    }
    fs::remove_file(data.join("UNFINISHED")).unwrap();
    assert_eq!(all(&EngineStore::open(&data, Options::default()).unwrap()).await.len(), 1);
}
