//! `cargo xtask test`: passes the tests and says aloud what was skipped, and why.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::run::{self, Outcome};
use crate::{needs, tree};

/// Runs the tests of these crates, and for the engine the tests of its tests: planted bugs, and the model of its threads.
pub fn run(crates: &[String]) -> Outcome {
    needs::meet(crates)?;
    let mut skipped = Skipped::default();
    let mut command = run::cargo("test");
    command.args(["--locked", "--no-fail-fast"]).args(crates);
    pass_on(command, &mut skipped)?;
    if has_engine(crates) {
        let mut command = run::cargo("test");
        command.args(["--locked", "--no-fail-fast", "-p", "annals-engine"]).args(WITH_BUGS);
        command.args(["--lib", "--test", "it", "--", "model::", "planted::"]);
        pass_on(command, &mut skipped)?;
    }
    print!("{}", skipped.report(asks_for_slow()));
    Ok(())
}

/// How the engine is built to have bugs on purpose, and threads that a scheduler orders.
pub const WITH_BUGS: [&str; 2] = ["--features", "planted,shuttle"];

/// Whether the engine is among these crates.
pub fn has_engine(crates: &[String]) -> bool {
    crates.iter().any(|name| name == "--workspace" || name == "annals-engine")
}

/// Runs tests and passes on what they print.
fn pass_on(mut command: Command, skipped: &mut Skipped) -> Outcome {
    command.stdout(Stdio::piped());
    let said = run::spell(&command);
    let mut child = command.spawn().map_err(|error| format!("`{said}` cannot be run: {error}"))?;
    let output = child.stdout.take().expect("the output was asked for as a pipe");
    // Every line is passed on as it comes: the counts that the tests print stay visible.
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|error| format!("the output of `{said}` cannot be read: {error}"))?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.write_all(b"\n")).map_err(|error| error.to_string())?;
        skipped.look_at(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("`{said}` failed ({status})")) }
}

/// Whether there are slow tests and they were not asked for.
fn asks_for_slow() -> bool {
    let named = |file: &tree::File| file.path.starts_with("crates/") && file.text.contains("ANNALS_SLOW");
    std::env::var_os("ANNALS_SLOW").is_none() && tree::Tree::read(&run::root()).files.iter().any(named)
}

/// Tests that were left out, by reason.
#[derive(Default)]
struct Skipped(BTreeMap<String, usize>);

impl Skipped {
    fn look_at(&mut self, line: &str) {
        if !line.starts_with("test ") {
            return;
        }
        if let Some((_, reason)) = line.split_once("... ignored") {
            let reason = reason.trim_start_matches(',').trim();
            let reason = if reason.is_empty() { "no reason is given" } else { reason };
            *self.0.entry(reason.to_owned()).or_default() += 1;
        }
    }

    fn report(&self, slow: bool) -> String {
        let mut report = String::new();
        for (reason, count) in &self.0 {
            report.push_str(&format!("skipped {count}: {reason}\n"));
        }
        if slow {
            report.push_str("skipped the slow tests: ANNALS_SLOW=1 runs them\n");
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_said_with_its_reason() {
        let mut skipped = Skipped::default();
        for line in [
            "test a ... ok",
            "test b ... ignored, ends with the process",
            "test c ... ignored, ends with the process",
            "test d ... ignored",
            "thread says ... ignored",
        ] {
            skipped.look_at(line);
        }
        assert_eq!(
            skipped.report(false),
            "skipped 2: ends with the process\nskipped 1: no reason is given\n"
        );
        assert!(skipped.report(true).ends_with("ANNALS_SLOW=1 runs them\n"));
        assert_eq!(Skipped::default().report(false), "");
    }
}
