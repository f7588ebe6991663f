//! The files of released formats, in `fixtures/` at the root of the project. `fixtures/README.md` describes
//! them.
//!
//! This file only locates them, and is independent of their content.

use std::path::{Path, PathBuf};

/// The variable that names the folder for new fixtures.
const WRITE_TO: &str = "ANNALS_FIXTURES";

/// The folder with this name in `fixtures/`.
pub fn folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is in `crates/`");
    root.join("fixtures").join(name)
}

/// The fixtures of this kind (`embedded`, `postgres`, `outbox`) of every release, oldest first:
/// `0.1.0/embedded`, and so on.
///
/// # Panics
/// If there is none: a test without a fixture proves nothing.
pub fn of_releases(kind: &str) -> Vec<PathBuf> {
    let releases = std::fs::read_dir(folder("")).expect("the folder of the fixtures can be read");
    let mut found: Vec<PathBuf> = releases.flatten().map(|entry| entry.path().join(kind)).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    assert!(!found.is_empty(), "there is no fixture of the kind `{kind}`");
    found
}

/// The folder for new fixtures of this kind. `None` unless they are requested, which only
/// `cargo xtask fixtures` does.
///
/// # Panics
/// If the folder exists: a fixture is never written a second time.
pub fn to_write(kind: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(WRITE_TO)?).join(kind);
    std::fs::create_dir_all(folder.parent().expect("it is in a folder")).expect("a folder can be made");
    let made = std::fs::create_dir(&folder);
    assert!(made.is_ok(), "{} is not written: {made:?}", folder.display());
    Some(folder)
}

/// Copies a folder with its content.
///
/// # Panics
/// If that fails.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("a folder can be read");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a file has a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a file can be copied")),
        }
    }
}

/// The message of a test that fails because the current code does not read this fixture.
pub fn lost(what: &str, fixture: &Path) -> String {
    format!(
        "{what}, of {}: users who update to this version would lose it. Never change a fixture: make the code read it",
        fixture.display()
    )
}
