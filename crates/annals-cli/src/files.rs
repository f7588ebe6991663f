//! Files: how many the process may have open, how large one may be, and how much of one it reads.

use std::io::{self, Read as _};
use std::path::Path;

/// Reads a text file of a bounded size: the name may be that of a device without end.
///
/// # Errors
/// If it is larger or is not UTF-8; otherwise as the operating system's.
pub(crate) fn read_text(file: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(file)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {bytes_max} bytes"),
        ));
    }
    Ok(text)
}

/// Raises the soft limit of open files to the hard one.
///
/// A store keeps two files open a segment and a server one a connection, while the soft limit is often 1,024.
/// Where it cannot be raised it stays: what then fails says so itself.
#[cfg(unix)]
pub(crate) fn allow_many() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // macOS refuses more than this, and says that the hard limit is unlimited.
    let current = maximum.or(cfg!(target_os = "macos").then_some(10_240));
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
pub(crate) fn allow_many() {}

/// Makes a file that may not grow (`ulimit -f`) an error of the write, as a full disk is, and not the end of the process.
/// Must be called on a runtime.
#[cfg(unix)]
pub(crate) fn survive_limits() {
    use tokio::signal::unix::{SignalKind, signal};
    // Somebody listens from here on, whether or not the stream of signals is kept.
    if let Err(error) = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())) {
        tracing::warn!(%error, "a file that reaches the limit of its size ends the process");
    }
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
pub(crate) fn survive_limits() {}
