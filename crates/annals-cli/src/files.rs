//! How many files the process may have open.

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
