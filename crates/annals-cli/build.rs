//! Sets the text of `annals --version`: the version, the commit if it is built from the repository, and the
//! features.
//!
//! Without git, and in a source archive or a package, there is no commit. Nothing here fails a build.

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

/// The checked-out commit, if this package is in its own repository.
fn commit() -> Option<String> {
    // This file is in a published package: a repository around it is another one.
    if Path::new(".cargo_vcs_info.json").exists() {
        return None;
    }
    // The manifest must be tracked at its path, so that a copy in another repository does not report a commit
    // of that.
    if git(&["ls-files", "--full-name", "Cargo.toml"])? != "crates/annals-cli/Cargo.toml" {
        return None;
    }
    // Files that change with the commit. A branch is a file of its own or a line of `packed-refs`;
    // `logs/HEAD`, if there is one, changes in both cases.
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

/// The output of git; `None` if git is missing, fails or prints nothing.
fn git(arguments: &[&str]) -> Option<String> {
    // A git hook may set these for another repository.
    let output = Command::new("git")
        .args(arguments)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}
