//! Deliberate violations of the guarantees, for tests that check that a torture can fail.

use std::fs;
use std::io;
use std::path::Path;

use clap::ValueEnum;

/// What is done to the store after a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tamper {
    /// It is put back to what it was before, and so is what the consumer saw: what was acknowledged since is
    /// gone, as if it had not been synced.
    Lose,
    /// A byte of an event is changed.
    Change,
    /// The witness says that another content was acknowledged.
    Forge,
}

impl Tamper {
    /// Called before a child runs.
    pub(super) fn before(self, store: &Path, seen: &Path) -> io::Result<()> {
        if self == Self::Lose && store.exists() && seen.exists() {
            copy(store, &store.with_extension("before"))?;
            fs::copy(seen, seen.with_extension("before"))?;
        }
        Ok(())
    }

    /// Called after the child was killed.
    pub(super) fn after(self, store: &Path, seen: &Path, witness: &Path) -> io::Result<()> {
        match self {
            Self::Lose => {
                let before = store.with_extension("before");
                if before.exists() {
                    fs::remove_dir_all(store)?;
                    fs::rename(before, store)?;
                    fs::rename(seen.with_extension("before"), seen)?;
                }
                Ok(())
            }
            Self::Change => change(store),
            Self::Forge => {
                let text = fs::read_to_string(witness)?;
                let Some(at) = text.rfind("\nacknowledged ") else { return Ok(()) };
                let Some(dot) = text[at..].find(" own-").or_else(|| text[at..].find(" shared-")) else {
                    return Ok(());
                };
                let mut bytes = text.into_bytes();
                let digit = &mut bytes[at + dot - 1];
                *digit = if *digit == b'0' { b'1' } else { b'0' };
                fs::write(witness, bytes)
            }
        }
    }
}

/// Changes a byte of an event in the first segment.
fn change(store: &Path) -> io::Result<()> {
    let mut segments: Vec<_> =
        fs::read_dir(store.join("log"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    segments.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    segments.sort();
    let Some(first) = segments.first() else { return Ok(()) };
    let mut bytes = fs::read(first)?;
    if let Some(at) = bytes.windows(8).position(|window| window == b"\"fill\":\"") {
        bytes[at] ^= 1;
    }
    fs::write(first, bytes)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?
        } else {
            fs::copy(entry.path(), to).map(drop)?
        }
    }
    Ok(())
}
