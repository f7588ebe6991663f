//! `cargo xtask ci`: everything that a change must pass.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::run::{self, Outcome};
use crate::{planted, test, tidy};

/// Runs all steps for these crates; stops at the first that fails.
pub fn run(crates: &[String]) -> Outcome {
    let formatted = if crates == ["--workspace"] { vec!["--all".to_owned()] } else { crates.to_vec() };
    step("fmt", || run::succeed(run::cargo("fmt").args(formatted).args(["--", "--check"])))?;
    step("clippy", || {
        let mut clippy = run::cargo("clippy");
        run::succeed(clippy.arg("--locked").args(crates).args(["--all-targets", "--", "-D", "warnings"]))
    })?;
    if test::has_engine(crates) {
        step("fmt and clippy of planted bugs and model", || {
            planted::make()?;
            run::succeed(planted::cargo("fmt").args(["-p", "annals-engine", "--", "--check"]))?;
            let mut clippy = planted::cargo("clippy");
            run::succeed(clippy.args(test::MODELLED).args(["--all-targets", "--", "-D", "warnings"]))
        })?;
    }
    step("doc", || {
        let mut doc = run::cargo("doc");
        doc.env("RUSTDOCFLAGS", "-D warnings").args(["--locked", "--no-deps"]).args(crates);
        run::succeed(&mut doc)
    })?;
    step("tidy", tidy::run)?;
    if crates == ["--workspace"] {
        step("deny", deny)?;
        step("publish", publish)?;
    }
    // The same command as in the README.
    let named = crates.iter().filter(|argument| *argument != "--workspace");
    step("test", || run::succeed(run::cargo("xtask").arg("test").args(named)))
}

/// The version of cargo-deny that is installed if there is none. Not optimised, because the build takes
/// longer than the run.
const CARGO_DENY: [&str; 4] = ["--locked", "--debug", "--version=0.20.2", "cargo-deny"];

/// Checks licenses, sources and banned crates of the dependencies: `deny.toml`.
fn deny() -> Outcome {
    let tools = run::root().join("target/tools");
    let has = |program: &Path| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let mut program = PathBuf::from("cargo-deny");
    if !has(&program) {
        program = tools.join("bin/cargo-deny");
    }
    if !has(&program) {
        run::succeed(run::cargo("install").arg("--root").arg(&tools).args(CARGO_DENY))?;
    }
    let mut check = Command::new(program);
    check.current_dir(run::root()).args(["--locked", "check", "bans", "licenses", "sources"]);
    run::succeed(&mut check)
}

/// Packs each published crate, and checks that a registry would accept it. The packages are not built, which
/// would take as long as all tests: before a release, run `cargo publish --workspace --dry-run`.
fn publish() -> Outcome {
    let checked = ["--workspace", "--dry-run", "--no-verify", "--allow-dirty", "--locked", "--quiet"];
    run::succeed(run::cargo("publish").args(checked))
}

/// Runs one step and prints a line with its duration.
fn step(name: &str, work: impl FnOnce() -> Outcome) -> Outcome {
    let started = Instant::now();
    println!("ci: {name} ...");
    work().map_err(|problem| format!("step `{name}`: {problem}"))?;
    println!("ci: {name} ok, {}", run::seconds(started));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_is_named() {
        let problem = step("doc", || Err("`cargo doc` failed".to_owned())).unwrap_err();
        assert_eq!(problem, "step `doc`: `cargo doc` failed");
        assert!(step("doc", || Ok(())).is_ok());
    }
}
