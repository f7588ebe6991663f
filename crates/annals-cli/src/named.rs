//! Output paths that the user names: a file that is replaced atomically, or a new directory. All commands use
//! this file for them.
//!
//! - N1  A file appears under its name when it is complete and durable. Until then it is a new file beside it
//!   with a random name; two runs never share one, and a run that fails leaves the old file unchanged.
//! - N2  A replaced file keeps its mode and its owner; a new file is accessible only to its owner (0600).
//!   Symbolic links are followed: the file that a link points to is replaced.
//! - N3  A file that is not a regular one (a pipe, a terminal, `/dev/null`) is written to directly and never
//!   replaced. Standard output under another name, such as `/dev/stdout`, is standard output. A block device
//!   is refused.
//! - N4  A file that cannot be replaced is refused before anything is written: one that is a mount point, as
//!   in containers, or one in a directory without write permission. Writing to it directly could leave half a
//!   file.
//! - N5  Nothing is written into the directory of a store: only the store may write there.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::output::Standard;

/// A file that appears under its name once it is complete.
pub(crate) struct NamedFile(Target);

enum Target {
    /// A new file, which is renamed at the end.
    Whole { file: File, partial: PathBuf, name: PathBuf, replaces: Option<Box<Metadata>> },
    /// A file that is not a regular one; it is written directly.
    Direct(File),
    /// Standard output of this process.
    Standard(Standard),
}

impl NamedFile {
    /// Starts writing a file.
    ///
    /// # Errors
    /// If the name is that of a directory or a block device, is in the directory of a store, or cannot be
    /// created.
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

    /// Syncs the file and renames it.
    ///
    /// # Errors
    /// As the operating system's; then the old file is unchanged.
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
            // The random name is this run's own. A partial export must not be taken for a complete one.
            let _ = fs::remove_file(partial);
        }
    }
}

/// The advice for a file that cannot be replaced.
const IRREPLACEABLE: &str = "which cannot be replaced by a whole file: name another one, or write to standard output and let the \
                             shell fill this one, `-o - > FILE`";

/// The result of a step of replacing a file. If the operating system does not allow it, the error has the
/// advice.
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

/// Creates a file that only its owner can access.
///
/// # Errors
/// If a file or a link of this name exists; otherwise as the operating system's.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    unix::private(File::options().write(true).create_new(true)).open(path)
}

/// Refuses a path in the directory of a store, or that directory itself.
///
/// # Errors
/// If it is such a path; or if the path cannot be resolved.
pub(crate) fn refuse_in_store(place: &Path) -> anyhow::Result<()> {
    let place = target(place)?;
    for directory in place.ancestors() {
        if is_store(directory) {
            bail!("it is in the directory of a store, {}; name a place outside", directory.display());
        }
    }
    Ok(())
}

/// The same check for a directory that will be created. The code that creates it refuses an existing one.
///
/// # Errors
/// As [`refuse_in_store`].
pub(crate) fn refuse_within_store(directory: &Path) -> anyhow::Result<()> {
    let directory = std::path::absolute(directory)?;
    directory.parent().map_or(Ok(()), refuse_in_store)
}

/// Whether a directory is an embedded store, that is, its log has segments.
fn is_store(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory.join("log")) else { return false };
    entries.flatten().any(|entry| Path::new(&entry.file_name()).extension().is_some_and(|end| end == "seg"))
}

/// The maximum number of links that are followed, as in Linux.
const LINKS_MAX: usize = 40;

/// The absolute path of a file that may not exist yet, with all links followed.
fn target(name: &Path) -> io::Result<PathBuf> {
    let mut name = std::path::absolute(name)?;
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&name) {
            Ok(whole) => return Ok(whole),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Either a link to a missing file, or a missing file whose directory may be a link.
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

    /// Whether this is the file to which standard output of the process is open.
    pub(super) fn is_standard_output(found: &Metadata) -> bool {
        let standard =
            io::stdout().as_fd().try_clone_to_owned().and_then(|standard| File::from(standard).metadata());
        standard.is_ok_and(|standard| (standard.dev(), standard.ino()) == (found.dev(), found.ino()))
    }

    pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
        options.mode(0o600)
    }

    /// Whether this file is a mount point. If that is unknown, renaming will fail.
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

    /// Gives a file the owner, the group and the mode of another one. If the group cannot be kept, the new
    /// group gets no rights.
    pub(super) fn keep_owner_and_mode(file: &File, other: &Metadata) -> io::Result<()> {
        let made = file.metadata()?;
        let mut mode = other.mode() & 0o777;
        if made.uid() != other.uid() {
            // Only root may change the owner.
            let _ = fchown(file, Some(other.uid()), None);
        }
        if made.gid() != other.gid() && fchown(file, None, Some(other.gid())).is_err() {
            mode &= 0o707;
        }
        // A file system without modes refuses this; the file keeps the mode with which it was created.
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
