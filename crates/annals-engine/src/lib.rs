//! The embedded store of Annals: a directory that one process at a time has open.
//!
//! The log is the source of truth, and everything else is derived from it. It is a sequence of segments; each
//! is a file of frames, and each frame is one append with its checksum. There is one writer, and one sync for
//! all appends that arrived during the previous sync. `docs/file-format.md` describes the format.
//!
//! ```
//! use annals_core::{Append, EventStore, Expected, NewEvent, StreamId};
//! use annals_engine::{EngineStore, Options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let store = EngineStore::open(directory.path(), Options::default())?;
//! let account = StreamId::new("account-42")?;
//! let opened = NewEvent::new("account.opened", r#"{"owner":"kim"}"#)?;
//! store.append(Append::to(&account, Expected::NoStream, [opened])).await?; // on disk when this returns
//! # Ok(())
//! # }
//! ```
//!
//! An append passes through `store` -> `commit` -> `commit/writer` -> `commit/stage` -> `log/frame`, and then
//! `commit/sync` -> `disk`; a read through `store` -> `read` -> `index` -> `read/fetch` -> `disk`.

mod options;
mod store;

// The path of an append and of a read. Of two rooms (decision 102), only one imports from the other.
mod commit;
mod read;

mod index;
mod log;

pub mod disk;
mod error;
mod machine;

mod recovery;

mod proof;

mod maintenance;

mod thread;

#[cfg(all(test, feature = "shuttle"))]
mod model;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use maintenance::backup::{
    Backup, BackupEntry, BackupOptions, BackupStorage, DiskBackupStorage, Manifest, RestoreOptions,
    RestorePoint, Restored, StoredSegment, backups, restore, verify_backup,
};
pub use maintenance::repair::{Note, Repaired, repair_disk};
pub use maintenance::verify::{
    Damage, LastPass, Lost, OnDamage, Verification, VerifyOptions, last_pass, verify, verify_disk,
    verify_disk_with, verify_with,
};
pub use maintenance::work::{Stopped, Work};
pub use options::Options;
pub use proof::receipt::{Head, NoProof, Receipt};
pub use read::scan::ScannedEvent;
pub use store::EngineStore;
