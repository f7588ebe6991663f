//! `annals`: the one binary. Each command is a file of this folder; this one reads the command line, runs the
//! command and tells how it failed.
//!
//! - B1  What a command answers goes to standard output, for people or, with `--json`, for programs; everything
//!   else goes to standard error.
//! - B2  A failure is one line, `annals: …` with its causes, and an exit code: 2 if the command line is wrong,
//!   otherwise 1. A reader that has gone away is no failure.
//!
//! Of all crates, only this one knows every kind of store; it opens them in `store.rs`.
#![forbid(unsafe_code)]

mod append;
mod demo;
mod output;
mod read;
mod serve;
mod store;
mod streams;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An event store that is database and message broker in one.
#[derive(Parser)]
#[command(name = "annals", version, propagate_version = true, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Append(append::Append),
    Read(read::Read),
    Streams(streams::Streams),
}

impl Command {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(demo) => demo.run().await,
            Self::Serve(serve) => serve.run().await,
            Self::Append(append) => append.run().await,
            Self::Read(read) => read.run().await,
            Self::Streams(streams) => streams.run().await,
        }
    }
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(command.run()) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Tells why a command failed.
fn fail(error: &anyhow::Error) -> ExitCode {
    let gone = error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    });
    if gone {
        return ExitCode::SUCCESS;
    }
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some errors tell their cause themselves.
        if !line.ends_with(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    // Nobody is left to tell if this fails too.
    let _ = writeln!(io::stderr(), "annals: {}", output::plain(&line));
    ExitCode::FAILURE
}
