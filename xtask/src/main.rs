//! The task runner: `cargo xtask ci`, `test`, `planted`, `sim`, `fixtures`, `tidy`, `modules`. It uses only the standard library,
//! except `diffy` for patches.
//!
//! The files, in reading order: `run` (a command, timed), `needs` (the requirements of the tests), `test`, `planted` (the engine
//! with planted bugs), `sim` (the simulation of the engine, for hours), `fixtures` (files of the current formats), `ci`, `tidy`
//! (the checks of style) over `tree` (the files of the project) and `modules` (the imports between modules).
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task runner speaks to its user")]

mod run;

mod ci;
mod fixtures;
mod needs;
mod planted;
mod sim;
mod test;

mod modules;
mod tidy;
mod tree;

use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
cargo xtask test [--full] [-p CRATE ...]   the tests, of the whole workspace unless crates are named; with --full
                                  every suite runs on every version of a database server, not only the contract
cargo xtask planted [--edit | --save]   the tests of planted bugs and of the model of threads; or a copy of the engine to
                                  write bugs in, and from there their patches
cargo xtask sim --hours N [--seed S]   simulated disasters of the engine, for N hours (0.1 will do), from seed S on
cargo xtask ci [-p CRATE ...]     format, lints, docs, style, then `cargo xtask test`
cargo xtask fixtures NAME         files of today's formats, into fixtures/NAME: before a release, when a format has changed
cargo xtask tidy                  the checks of style
cargo xtask modules [-p CRATE ...]   which top-level modules of the crates import which, each after those that it imports
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = arguments.split_first().map_or(("", &[][..]), |(task, rest)| (task.as_str(), rest));
    let started = Instant::now();
    let outcome = match task {
        "test" => {
            let full = rest.first().is_some_and(|argument| argument == "--full");
            run::crates(&rest[usize::from(full)..]).and_then(|crates| test::run(&crates, full))
        }
        "ci" => run::crates(rest).and_then(|crates| ci::run(&crates)),
        "planted" if rest.is_empty() => test::run_planted(),
        "planted" => planted::run(rest),
        "sim" => sim::run(rest),
        "fixtures" => fixtures::run(rest),
        "tidy" if rest.is_empty() => tidy::run(),
        "modules" => run::crates(rest).map(|crates| modules::print(&crates)),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => {
            println!("xtask {task}: done in {}", run::seconds(started));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("xtask {task}: failed after {}: {problem}", run::seconds(started));
            ExitCode::FAILURE
        }
    }
}
