//! A place that the user names: a file that is written whole, a directory that is made. The only way to one.
//!
//! - N1  A file appears under its name when it is whole and durable. Until then it is a new file beside it with a random
//!   name; two runs never share one, and one that fails leaves what was there.
//! - N2  What is replaced keeps its mode and its owner; a new file is its owner's alone (0600). A link is followed: the
//!   file that it names is replaced.
//! - N3  What is no regular file (a pipe, a terminal, `/dev/null`) is written to, and never replaced. Standard output under
//!   another name, such as `/dev/stdout`, is standard output. A block device is refused.
//! - N4  A file that cannot be replaced is refused before anything is written: one that is a mount of its own, as
//!   containers have them, or one in a directory that cannot be written. To write into it bit by bit would leave half.
//! - N5  Nothing is written into the directory of a store, which holds what only the store may write.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::output::Standard;

/// A file that is written and then appears under its name.
pub(crate) struct NamedFile(Target);

enum Target {
    /// A new file, which gets the name at the end.
    Whole { file: File, partial: PathBuf, name: PathBuf, replaces: Option<Box<Metadata>> },
    /// What takes bytes as they come.
    Direct(File),
    /// Standard output of this process.
    Standard(Standard),
}

impl NamedFile {
    /// Begins to write a file.
    ///
    /// # Errors
    /// If it names a directory or a block device, is in the directory of a store, or cannot be created.
    pub(crate) fn create(name: &Path) -> anyhow::Result<Self> {
        if name.as_os_str().as_encoded_bytes().ends_with(b"/") {
            bail!("it is the name of a directory");
        }
        let replaces = match fs::metadata(name) {
            Ok(found) if found.is_dir() => bail!("it is a directory"),
            Ok(found) if unix::is_block_device(&found) => bail!("it is a block device"),
            Ok(found) if unix::is_standard_output(&found) => {
                return Ok(Self(Target::Standard(Standard::new())));
            }
            Ok(found) if !found.is_file() => {
                return Ok(Self(Target::Direct(File::options().write(true).open(name)?)));
            }
            Ok(found) => Some(Box::new(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let name = target(name)?;
        let directory = name.parent().unwrap_or(Path::new("/"));
        refuse_in_store(&name)?;
        if replaces.is_some() && unix::is_mounted(&name) {
            bail!("it is a mount of its own, {IRREPLACEABLE}");
        }
        let partial = directory.join(format!(".annals-{}.partial", uuid::Uuid::new_v4()));
        let file = private_file(&partial);
        let file = if replaces.is_some() { replaceable(file)? } else { file? };
        Ok(Self(Target::Whole { file, partial, name, replaces }))
    }

    /// Makes what was written durable, and gives it its name.
    ///
    /// # Errors
    /// As the operating system's; then what was there before is still there.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match &mut self.0 {
            Target::Whole { file, partial, name, replaces } => {
                if let Some(replaced) = replaces {
                    unix::keep_owner_and_mode(file, replaced)?;
                }
                file.sync_all()?;
                replaceable(fs::rename(&*partial, &*name))?;
                partial.clear();
                // The new name is an entry of the directory. Some systems cannot sync one.
                let above = name.parent().map(File::open);
                above.map_or(Ok(()), |above| above?.sync_all().or(Ok(())))
            }
            Target::Direct(file) => file.flush(),
            Target::Standard(standard) => standard.flush(),
        }
    }
}

impl Write for NamedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Target::Whole { file, .. } | Target::Direct(file) => file.write(bytes),
            Target::Standard(standard) => standard.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Target::Whole { file, .. } | Target::Direct(file) => file.flush(),
            Target::Standard(standard) => standard.flush(),
        }
    }
}

impl Drop for NamedFile {
    fn drop(&mut self) {
        if let Target::Whole { partial, .. } = &self.0
            && !partial.as_os_str().is_empty()
        {
            // It is this run's own, by its random name; half of an export would look like a whole one.
            let _ = fs::remove_file(partial);
        }
    }
}

/// What to do about a file that cannot be replaced.
const IRREPLACEABLE: &str = "which cannot be replaced by a whole file: name another one, or write to standard output and let the \
                             shell fill this one, `-o - > FILE`";

/// What a step of replacing a file came to; if the operating system does not allow it, with what to do.
fn replaceable<T>(step: io::Result<T>) -> io::Result<T> {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    step.map_err(|error| match error.kind() {
        kind @ (PermissionDenied | ReadOnlyFilesystem | ResourceBusy) => io::Error::new(
            kind,
            format!("its directory does not allow it ({error}): it is a file {IRREPLACEABLE}"),
        ),
        _ => error,
    })
}

/// A new file, its owner's alone.
///
/// # Errors
/// If there is one already, or a link; otherwise as the operating system's.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    unix::private(File::options().write(true).create_new(true)).open(path)
}

/// Refuses a place in the directory of a store, or that directory itself.
///
/// # Errors
/// If it is one; or if the place cannot be looked at.
pub(crate) fn refuse_in_store(place: &Path) -> anyhow::Result<()> {
    let place = target(place)?;
    for directory in place.ancestors() {
        if is_store(directory) {
            bail!("it is in the directory of a store, {}; name a place outside", directory.display());
        }
    }
    Ok(())
}

/// The same for a directory that is made; one that is there already is refused where it is made.
///
/// # Errors
/// As [`refuse_in_store`].
pub(crate) fn refuse_within_store(directory: &Path) -> anyhow::Result<()> {
    let directory = std::path::absolute(directory)?;
    directory.parent().map_or(Ok(()), refuse_in_store)
}

/// Whether a directory is that of an embedded store: its log has segments.
fn is_store(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory.join("log")) else { return false };
    entries.flatten().any(|entry| Path::new(&entry.file_name()).extension().is_some_and(|end| end == "seg"))
}

/// Most links that lead to one file, as in Linux.
const LINKS_MAX: usize = 40;

/// The whole path of what a name refers to, which need not exist: links are followed.
fn target(name: &Path) -> io::Result<PathBuf> {
    let mut name = std::path::absolute(name)?;
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&name) {
            Ok(whole) => return Ok(whole),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A link to what does not exist yet, or a name that does not: then its directory may be a link.
        match (fs::read_link(&name), name.parent(), name.file_name()) {
            (Ok(link), Some(above), _) => name = above.join(link),
            (Err(_), Some(above), Some(last)) => return Ok(target(above)?.join(last)),
            _ => return Ok(name),
        }
    }
    Err(io::Error::other("too many links lead to each other"))
}

#[cfg(unix)]
mod unix {
    use std::fs::{File, Metadata, OpenOptions, Permissions};
    use std::io;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{
        FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
    };

    pub(super) fn is_block_device(found: &Metadata) -> bool {
        found.file_type().is_block_device()
    }

    /// Whether this is what standard output of the process is open at.
    pub(super) fn is_standard_output(found: &Metadata) -> bool {
        let standard =
            io::stdout().as_fd().try_clone_to_owned().and_then(|standard| File::from(standard).metadata());
        standard.is_ok_and(|standard| (standard.dev(), standard.ino()) == (found.dev(), found.ino()))
    }

    pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
        options.mode(0o600)
    }

    /// Whether something is mounted at this very file; where that cannot be found out, the renaming finds it out.
    #[cfg(target_os = "linux")]
    pub(super) fn is_mounted(file: &std::path::Path) -> bool {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let found = statx(CWD, file, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
        found.is_ok_and(|found| {
            found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
                && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn is_mounted(_: &std::path::Path) -> bool {
        false
    }

    /// Gives a file the owner, the group and the mode of another one. A group that cannot be kept gets no rights.
    pub(super) fn keep_owner_and_mode(file: &File, other: &Metadata) -> io::Result<()> {
        let made = file.metadata()?;
        let mut mode = other.mode() & 0o777;
        if made.uid() != other.uid() {
            // Only root may give a file away.
            let _ = fchown(file, Some(other.uid()), None);
        }
        if made.gid() != other.gid() && fchown(file, None, Some(other.gid())).is_err() {
            mode &= 0o707;
        }
        // A file system without modes refuses this; the file stays as private as it was made.
        let _ = file.set_permissions(Permissions::from_mode(mode));
        Ok(())
    }
}

#[cfg(not(unix))]
mod unix {
    use std::fs::{File, Metadata, OpenOptions};
    use std::io;

    pub(super) fn is_block_device(_: &Metadata) -> bool {
        false
    }

    pub(super) fn is_standard_output(_: &Metadata) -> bool {
        false
    }

    pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    pub(super) fn is_mounted(_: &std::path::Path) -> bool {
        false
    }

    pub(super) fn keep_owner_and_mode(_: &File, _: &Metadata) -> io::Result<()> {
        Ok(())
    }
}
