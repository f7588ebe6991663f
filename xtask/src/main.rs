//! The task runner: `cargo xtask ci`, `test`, `planted`, `sim`, `fixtures`, `tidy`, `modules`. It uses only
//! the standard library, except `diffy` for patches.
//!
//! The files, in reading order: `run` (a command, timed), `needs` (the requirements of the tests), `test`,
//! `planted` (the engine with planted bugs), `sim` (the simulation of the engine, for hours), `fixtures`
//! (files of the current formats), `ci`, `tidy` (the checks of style) over `tree` (the files of the project)
//! and `modules` (the imports between modules).
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
cargo xtask test [--full] [-p CRATE ...]   runs the tests, of the whole workspace unless crates are given; with --full
                                  every suite runs on every version of a database server, not only the contract
cargo xtask planted [--edit | --save]   runs the tests of planted bugs and of the model of threads; --edit makes a copy of
                                  the engine to write bugs in, and --save writes the patches from it
cargo xtask sim --hours N [--seed S]   simulates disasters of the engine for N hours (such as 0.1), starting at seed S
cargo xtask ci [-p CRATE ...]     checks format, lints, docs and style, then runs `cargo xtask test`
cargo xtask fixtures NAME         writes files of the current formats to fixtures/NAME: before a release, if a format has changed
cargo xtask tidy                  checks the style
cargo xtask modules [-p CRATE ...]   lists the imports of the top-level modules of the crates, each module after its imports
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
