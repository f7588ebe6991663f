//! A disk in memory that gives exactly the guarantees of [`Disk`], for tests.
//!
//! Each file has a live image, which reads see, and a durable image, which survives a crash, and a list of
//! unsynced changes. After a crash, [`FaultyDisk::restart`] keeps or drops each sector of each unsynced
//! change, as the seed determines, so unsynced writes are torn and reordered. The same applies to names that
//! were created, renamed or removed since the last sync of the directory.
//!
//! A [`Plan`] determines at which operation the machine stops, or which operations fail, and the effect of a
//! failed one: a write is done in part, a sync loses any of the changes, a name is changed or not. Looks
//! (reads and the like) are counted separately; a look may fail or read a flipped bit. Everything is
//! deterministic.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, File, LastUse};

/// Bytes that a crash keeps or loses as a unit.
const SECTOR_BYTES: usize = 512;

/// The faults, and when they occur. Operations are the calls that change something, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The machine stops before this operation: it and all later ones fail without effect.
    pub stop_at: Option<u64>,
    /// The machine stops at the first sync, at this operation or later, of a file whose name has this suffix.
    pub stop_at_sync: Option<(u64, &'static str)>,
    /// This operation fails, and may be done in part.
    pub fail_at: Option<u64>,
    /// All operations after `fail_at` fail too, until the plan is replaced.
    pub for_good: bool,
    /// Determines the effects of failed operations.
    pub seed: u64,
    /// This look (list, open, read, length; counted from 1) fails.
    pub look_fails_at: Option<u64>,
    /// This look reads one flipped bit.
    pub look_flips_at: Option<u64>,
    /// The total size of all files in bytes; writes that need more fail with `StorageFull`.
    pub capacity: Option<u64>,
    /// The duration of a sync, in microseconds.
    pub sync_micros: u64,
}

/// A disk in memory with faults.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    operations: u64,
    looks: u64,
    plan: Plan,
    last_use: Option<LastUse>,
}

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => put(image, *at, bytes),
            Self::Truncate(length) => image.truncate(*length),
        }
    }
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk with these files, all durable.
    pub fn with_files(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let disk = Self::new();
        {
            let mut state = disk.0.lock();
            for (name, bytes) in files {
                let number = state.files.len();
                state.files.push(Content { live: bytes.clone(), durable: bytes, pending: Vec::new() });
                state.names.insert(name.clone(), number);
                state.durable_names.insert(name, number);
            }
        }
        disk
    }

    /// The files as they are read now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock();
        state.names.iter().map(|(name, &file)| (name.clone(), state.files[file].live.clone())).collect()
    }

    /// Number of operations so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Number of looks so far: calls that change nothing.
    pub fn looks(&self) -> u64 {
        self.0.lock().looks
    }

    /// Flips a stored bit of a file, in the live and in the durable image. Returns whether the byte exists.
    pub fn flip(&self, name: &str, byte: usize, bit: u32) -> bool {
        let mut state = self.0.lock();
        let Ok(file) = state.number(name) else { return false };
        let Content { live, durable, .. } = &mut state.files[file];
        let mut found = false;
        for image in [live, durable] {
            if let Some(byte) = image.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
                found = true;
            }
        }
        found
    }

    /// Sets the plan. The count of operations is not reset.
    pub fn plan(&self, plan: Plan) {
        self.0.lock().plan = plan;
    }

    /// The disk after a crash at this point: everything synced, and the part of the unsynced changes that the
    /// seed determines. With seed 0 no unsynced change survives, with seed 1 all do.
    pub fn restart(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        self.survivor(&mut || random.keeps())
    }

    /// Number of unsynced changes of sectors and names, of which each may or may not survive a crash at this
    /// point.
    pub fn unsynced(&self) -> u32 {
        let mut count = 0;
        self.survivor(&mut || {
            count += 1;
            false
        });
        count
    }

    /// Like [`restart`](Self::restart), but those unsynced changes survive whose bit is set in `survivors`.
    pub fn restart_with(&self, survivors: u64) -> Self {
        let mut rest = survivors;
        self.survivor(&mut || {
            let survives = rest & 1 == 1;
            rest >>= 1;
            survives
        })
    }

    fn survivor(&self, keeps: &mut dyn FnMut() -> bool) -> Self {
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        for change in &state.pending_names {
            if keeps() {
                change.apply(&mut names);
            }
        }
        Self::with_files(names.into_iter().map(|(name, file)| (name, state.files[file].survivor(keeps))))
    }
}

impl Content {
    /// The durable image with those unsynced changes for which `keeps` returns `true`.
    fn survivor(&self, keeps: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut image = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::Write(at, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if keeps() {
                            put(&mut image, at + index * SECTOR_BYTES, sector);
                        }
                    }
                }
                truncate @ Change::Truncate(_) => {
                    if keeps() {
                        truncate.apply(&mut image);
                    }
                }
            }
        }
        image
    }
}

/// SplitMix64, or a constant.
struct Random {
    state: u64,
    constant: Option<bool>,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { state: seed, constant: (seed < 2).then_some(seed == 1) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn keeps(&mut self) -> bool {
        let random = self.next() & 1 == 1;
        self.constant.unwrap_or(random)
    }
}

impl State {
    /// Counts an operation; returns an error if it must not be done.
    fn operate(&mut self) -> io::Result<()> {
        if self.plan.stop_at.is_some_and(|stop| self.operations + 1 >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        self.operations += 1;
        if self.fails() { Err(io::Error::other("a planned failure")) } else { Ok(()) }
    }

    /// Whether the current operation must fail.
    fn fails(&self) -> bool {
        let Plan { fail_at, for_good, .. } = self.plan;
        fail_at.is_some_and(|at| at == self.operations || for_good && at < self.operations)
    }

    /// Counts an operation on names, and does it. A failing operation may be done too.
    fn operate_on_name(&mut self, change: NameChange) -> io::Result<()> {
        let allowed = self.operate();
        if allowed.is_ok() || self.fails() && self.plan.seed > 0 && self.chance().keeps() {
            change.apply(&mut self.names);
            self.pending_names.push(change);
        }
        allowed
    }

    /// Counts a look; returns an error if it must fail, and otherwise whether it must flip a bit.
    fn look(&mut self) -> io::Result<bool> {
        self.looks += 1;
        if self.plan.look_fails_at == Some(self.looks) {
            return Err(io::Error::other("a planned failure of a look"));
        }
        Ok(self.plan.look_flips_at == Some(self.looks))
    }

    /// The random numbers for the effects of the current operation.
    fn chance(&self) -> Random {
        Random::new(self.operations + 2 + (self.plan.seed << 32))
    }

    fn check_room(&self, file: usize, end: usize) -> io::Result<()> {
        let Some(capacity) = self.plan.capacity else { return Ok(()) };
        let others = self.names.values().filter(|&&other| other != file);
        let used: usize = others.map(|&other| self.files[other].live.len()).sum();
        let grows = end > self.files[file].live.len();
        if grows && (used + end) as u64 > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change(&mut self, file: usize, change: Change) {
        change.apply(&mut self.files[file].live);
        self.files[file].pending.push(change);
    }

    fn number(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.look()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        state.look()?;
        let file = state.number(name)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        let file = state.files.len();
        state.files.push(Content::default());
        state.operate_on_name(NameChange::Set(name.to_owned(), file))?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.number(from)?;
        state.operate_on_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.number(name)?;
        state.operate_on_name(NameChange::Remove(name.to_owned()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn last_use(&self) -> Option<LastUse> {
        self.0.lock().last_use
    }

    fn note_use(&self, last: LastUse) {
        self.0.lock().last_use = Some(last);
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    file: usize,
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        let flips = state.look()?;
        let chance = state.plan.seed as usize;
        let live = &state.files[self.file].live;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        let count = buffer.len().min(live.len() - from);
        buffer[..count].copy_from_slice(&live[from..from + count]);
        if flips && count > 0 {
            buffer[chance % count] ^= 1 << (chance / count % 8);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        state.check_room(self.file, at + bytes.len())?;
        let allowed = state.operate();
        if allowed.is_err() && state.fails() {
            // A failing write is done in part.
            let part = match state.plan.seed {
                0 => bytes.len() / 2,
                _ => state.chance().next() as usize % (bytes.len() + 1),
            };
            state.change(self.file, Change::Write(at, bytes[..part].to_vec()));
        }
        allowed?;
        state.change(self.file, Change::Write(at, bytes.to_vec()));
        Ok(())
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        let length = self.length()?;
        if length >= end {
            return Ok(());
        }
        self.write_at(&vec![0; (end - length) as usize], length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.operate()?;
        state.change(self.file, Change::Truncate(length as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let takes = self.disk.0.lock().plan.sync_micros;
        if takes > 0 {
            std::thread::sleep(std::time::Duration::from_micros(takes));
        }
        let mut state = self.disk.0.lock();
        if let Some((from, ending)) = state.plan.stop_at_sync
            && state.operations + 1 >= from
            && state.names.iter().any(|(name, file)| *file == self.file && name.ends_with(ending))
        {
            state.plan.stop_at = Some(0);
        }
        let allowed = state.operate();
        let failed = allowed.is_err() && state.fails();
        let mut random = state.chance();
        let content = &mut state.files[self.file];
        if failed {
            // Part of the changes became durable. The rest stays visible to reads, but no later sync writes
            // it again (D4).
            content.durable = content.survivor(&mut || random.keeps());
            content.pending.clear();
        }
        allowed?;
        for change in std::mem::take(&mut content.pending) {
            change.apply(&mut content.durable);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.0.lock();
        state.look()?;
        Ok(state.files[self.file].live.len() as u64)
    }
}
