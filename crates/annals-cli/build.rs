//! What `annals --version` says beside the version: the commit, if this is built from the repository, and the features.
//!
//! Without git, and in an archive of the source or a package, there is no commit. Nothing here fails a build.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let features = match std::env::var_os("CARGO_FEATURE_OBJECT_STORAGE") {
        Some(_) => "features: object-storage",
        None => "features: none",
    };
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let build = match commit() {
        Some(commit) => format!("commit {commit}, {features}"),
        None => features.to_owned(),
    };
    println!("cargo::rustc-env=ANNALS_VERSION={version} ({build})");
}

/// The commit that is checked out, if this package is the one of its repository.
fn commit() -> Option<String> {
    // A package says where it is from; the repository around it is another one.
    if Path::new(".cargo_vcs_info.json").exists() {
        return None;
    }
    // Tracked in its place, so that a copy within another repository does not name a commit of that.
    if git(&["ls-files", "--full-name", "Cargo.toml"])? != "crates/annals-cli/Cargo.toml" {
        return None;
    }
    // What changes with the commit. A branch is in a file of its own or among all; where there is a log of HEAD, it has both.
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in
        [Some("HEAD"), branch.as_deref(), Some("packed-refs"), Some("logs/HEAD")].into_iter().flatten()
    {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git answers; `None` if there is no git, or it fails.
fn git(arguments: &[&str]) -> Option<String> {
    // A hook of git sets these for another repository.
    let output = Command::new("git")
        .args(arguments)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}
