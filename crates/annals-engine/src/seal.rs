//! Sealing: turns the index of a finished segment into a file, in the background.
//!
//! Until that is done, and if it fails, the index in memory serves on. The file appears whole or not at all; if
//! it is missing or broken at the next open, it is built again from the segment. Next below: `index::build`.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use annals_core::Position;

use crate::commit::Active;
use crate::disk::Disk;
use crate::error::Fault;
use crate::index::{BlockCache, FileIndex, MemoryIndex, build};
use crate::log::Log;
use crate::segment::{Ending, Segment, index_name};

/// A thread that seals segments one after another.
pub struct Sealer {
    finished: Option<mpsc::Sender<(Active, Ending)>>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// Starts the thread.
    pub fn start(log: Arc<Log>) -> std::io::Result<Self> {
        let (finished, segments) = mpsc::channel::<(Active, Ending)>();
        let thread = std::thread::Builder::new().name("annals-seal".into()).spawn(move || {
            for (active, ending) in segments {
                match write_index(&*log.disk, active.base, ending, &active.index.read(), &log.cache) {
                    Ok(index) => {
                        let Active { base, file, .. } = active;
                        log.replace(Arc::new(Segment { base, file, index: Arc::new(index) }));
                    }
                    Err(fault) => tracing::warn!(
                        base = active.base.get(),
                        error = &fault as &dyn std::error::Error,
                        "the index of a segment stays in memory; it is written at the next open"
                    ),
                }
            }
        })?;
        Ok(Self { finished: Some(finished), thread: Some(thread) })
    }

    /// Seals a segment that ends there, soon.
    pub fn seal(&self, full: Active, ending: Ending) {
        // If the thread is gone, the index stays in memory.
        let _ = self.finished.as_ref().map(|finished| finished.send((full, ending)));
    }

    /// Waits until all is sealed.
    pub fn finish(&mut self) {
        self.finished = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that seals segments has panicked");
        }
    }
}

/// Writes the index file of a segment that ends there, durably, and opens it.
pub fn write_index(
    disk: &dyn Disk,
    base: Position,
    ending: Ending,
    index: &MemoryIndex,
    cache: &Arc<BlockCache>,
) -> Result<FileIndex, Fault> {
    let name = index_name(base);
    let temporary = format!("{name}.tmp");
    let bytes = build(base.get(), ending, index);
    let prepare = || {
        let file = disk.create(&temporary).map_err(Fault::io("create", &temporary))?;
        file.write_at(&bytes, 0).map_err(Fault::io("write", &temporary))?;
        file.sync().map_err(Fault::io("sync", &temporary))?;
        disk.rename(&temporary, &name).map_err(Fault::io("rename", &temporary))?;
        Ok(file)
    };
    let file = prepare().inspect_err(|_| {
        // On a full disk every block counts. What cannot be removed now is removed at the next open.
        let _ = disk.remove(&temporary);
    })?;
    disk.sync_directory().map_err(Fault::io("sync the directory of", &name))?;
    FileIndex::open(&name, file, base.get(), cache.clone())
}
