//! `cargo xtask test`: runs the tests, and reports the duration of each suite and the skipped tests with the
//! reason.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{self, Outcome};
use crate::{needs, planted};

/// The environment variable that runs every suite on every version of a database server:
/// `annals_testservers::kind`.
const ALL_SERVERS: &str = "ANNALS_ALL_SERVERS";

/// Runs the tests of these crates, and for the engine also the planted bugs and the model of its threads.
/// With `full`, on all servers.
pub fn run(crates: &[String], full: bool) -> Outcome {
    needs::meet(crates)?;
    let mut report = Report { full: full || std::env::var_os(ALL_SERVERS).is_some(), ..Report::default() };
    let cargo_test = || {
        let mut command = run::cargo("test");
        command.arg("--locked").args(crates);
        command
    };
    let mut outcome = pass(cargo_test, &[], &mut report);
    if outcome.is_ok() && has_engine(crates) {
        outcome = planted(&mut report);
    }
    if outcome.is_ok() && has(crates, "annals") {
        outcome = EXAMPLES.iter().try_for_each(|example| run_example(example, &mut report));
    }
    print!("{}", report.print());
    outcome
}

/// The examples of the framework that end by themselves and check their own results.
const EXAMPLES: [&str; 2] = ["first", "bank"];

fn run_example(name: &str, report: &mut Report) -> Outcome {
    let started = Instant::now();
    run::succeed(run::cargo("run").args(["--locked", "-p", "annals", "--example", name]))?;
    report.suites.push((format!("annals examples/{name}.rs"), started.elapsed()));
    Ok(())
}

/// Runs only the planted bugs and the model of the engine's threads.
pub fn run_planted() -> Outcome {
    let mut report = Report { full: true, ..Report::default() };
    let outcome = planted(&mut report);
    print!("{}", report.print());
    outcome
}

/// The features with which the engine's threads run under a scheduler.
pub const MODELLED: [&str; 2] = ["--features", "shuttle"];

fn planted(report: &mut Report) -> Outcome {
    let bugs = planted::make()?;
    let cargo_test = || {
        let mut command = planted::cargo("test");
        command.args(MODELLED).args(["--lib", "--test", "it"]);
        command
    };
    let passed = pass(cargo_test, &["model::", "planted::"], report);
    let caught = planted::check_caught(&bugs, &report.caught);
    match (passed, caught) {
        (Ok(()), Ok(all)) => {
            println!("{all}");
            Ok(())
        }
        // If the tests could not be built, no bug was searched for.
        (Err(failed), Err(missed)) if !report.caught.is_empty() => Err(format!("{missed}; {failed}")),
        (Err(problem), _) | (Ok(()), Err(problem)) => Err(problem),
    }
}

/// Whether the engine is among these crates.
pub fn has_engine(crates: &[String]) -> bool {
    has(crates, "annals-engine")
}

fn has(crates: &[String], wanted: &str) -> bool {
    crates.iter().any(|name| ["--workspace", wanted].contains(&name.as_str()))
}

/// Builds the tests of a `cargo test`, then runs those that the filters select. Their output is passed on
/// line by line.
fn pass(cargo_test: impl Fn() -> Command, filters: &[&str], report: &mut Report) -> Outcome {
    let full = report.full;
    let cargo_test = || {
        let mut command = cargo_test();
        if full {
            command.env(ALL_SERVERS, "1");
        }
        command.arg("--no-fail-fast");
        command
    };
    let started = Instant::now();
    report.programs.extend(build(cargo_test())?);
    report.suites.push(("build".to_owned(), started.elapsed()));
    let mut command = cargo_test();
    command.arg("--").args(filters);
    let spelled = run::spell(&command);
    let cannot = |error: std::io::Error| format!("the output of `{spelled}` cannot be read: {error}");
    // One pipe for both outputs, so that the name of a suite comes before its tests.
    let (output, input) = std::io::pipe().map_err(cannot)?;
    command.stdout(input.try_clone().map_err(cannot)?).stderr(input);
    let child = command.spawn();
    // It holds the writing end of the pipe; while that is open, the loop below does not end.
    drop(command);
    let mut child = child.map_err(|error| format!("`{spelled}` cannot be run: {error}"))?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(cannot)?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.write_all(b"\n")).map_err(|error| error.to_string())?;
        report.read(&String::from_utf8_lossy(&line), Instant::now());
    }
    report.end_suite(Instant::now());
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("`{spelled}` failed ({status})")) }
}

/// Builds tests. Returns the crate of each test program, by the program's file name.
fn build(mut command: Command) -> Result<BTreeMap<String, String>, String> {
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let spelled = run::spell(&command);
    let built = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let built = built.map_err(|error| format!("`{spelled}` cannot be run: {error}"))?;
    if !built.status.success() {
        return Err(format!("`{spelled}` failed ({})", built.status));
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    Ok(messages.lines().filter_map(program_of).collect())
}

/// The file name of a test program and its crate, from a message of cargo about a built program.
fn program_of(message: &str) -> Option<(String, String)> {
    let field = |name: &str| message.split_once(&format!("\"{name}\":\""))?.1.split('"').next();
    let (executable, package) = (field("executable")?, field("manifest_path")?);
    let name = |path: &str| Some(std::path::Path::new(path).file_name()?.to_str()?.to_owned());
    Some((name(executable)?, name(package.strip_suffix("/Cargo.toml")?)?))
}

/// The summary at the end: the duration of each suite, and the skipped tests.
#[derive(Default)]
struct Report {
    /// The crate of each test program, by the program's file name.
    programs: BTreeMap<String, String>,
    suites: Vec<(String, Duration)>,
    running: Option<(String, Instant)>,
    skipped: BTreeMap<String, usize>,
    /// Planted bugs that a test reports as caught.
    caught: BTreeSet<String>,
    /// Whether every suite runs on every server.
    full: bool,
}

impl Report {
    /// Processes a line of the output, received at this time.
    fn read(&mut self, line: &str, now: Instant) {
        if let Some(suite) = self.suite(line.trim_start()) {
            self.end_suite(now);
            self.running = Some((suite, now));
        }
        self.caught.extend(planted::caught_in(line).map(str::to_owned));
        if line.starts_with("test ")
            && let Some((_, reason)) = line.split_once("... ignored")
        {
            let reason = reason.trim_start_matches(',').trim();
            let reason = if reason.is_empty() { "no reason is given" } else { reason };
            *self.skipped.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// The suite that begins with this line.
    fn suite(&self, line: &str) -> Option<String> {
        if let Some(name) = line.strip_prefix("Doc-tests ") {
            return Some(format!("{name} examples in docs"));
        }
        let (source, program) = line.strip_prefix("Running ")?.trim_end_matches(')').split_once(" (")?;
        let program = program.rsplit('/').next()?;
        Some(format!("{} {source}", self.programs.get(program).map_or(program, String::as_str)))
    }

    fn end_suite(&mut self, now: Instant) {
        if let Some((suite, since)) = self.running.take() {
            self.suites.push((suite, now - since));
        }
    }

    fn print(&self) -> String {
        let mut report = String::new();
        for (suite, took) in &self.suites {
            report.push_str(&format!("{:7.1} s  {suite}\n", took.as_secs_f64()));
        }
        for (reason, count) in &self.skipped {
            report.push_str(&format!("skipped {count}: {reason}\n"));
        }
        if !self.full {
            report.push_str("skipped on some servers: `cargo xtask test --full` runs every suite on each\n");
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_timed_and_what_is_skipped_is_reported_with_its_reason() {
        let mut report = Report::default();
        let built = r#"{"reason":"compiler-artifact","manifest_path":"/a/crates/annals-core/Cargo.toml","executable":"/a/deps/it-52c0"}"#;
        report.programs.extend(program_of(built));
        let started = Instant::now();
        for (second, line) in [
            "     Running tests/it/main.rs (target/debug/deps/it-52c0)",
            "test a ... ok",
            "test b ... ignored, ends with the process",
            "test c ... ignored, ends with the process",
            "   Doc-tests annals_core",
            "test d ... ignored",
            "thread says ... ignored",
        ]
        .into_iter()
        .enumerate()
        {
            report.read(line, started + Duration::from_secs(second as u64));
        }
        report.end_suite(started + Duration::from_secs(7));
        assert_eq!(
            report.print(),
            "    4.0 s  annals-core tests/it/main.rs\n    3.0 s  annals_core examples in docs\n\
             skipped 2: ends with the process\nskipped 1: no reason is given\n\
             skipped on some servers: `cargo xtask test --full` runs every suite on each\n"
        );
        assert_eq!(Report { full: true, ..Report::default() }.print(), "");
        assert_eq!(program_of(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
