//! `annals`: the command-line program. Each command is a file of this folder; this one parses the command
//! line, runs the command and reports a failure.
//!
//! - B1  The result of a command goes to standard output, for people or, with `--json`, for programs;
//!   everything else goes to standard error.
//! - B2  A failure is one line, `annals: …` with its causes, and an exit code for its kind: `exit.rs`. With
//!   `--json` the line is JSON. A closed pipe at standard output is not a failure: `output.rs` detects it,
//!   and no error of a store is taken for it.
//! - B3  No message shows a password. `address.rs` parses addresses instead of clap, so that clap has no
//!   value to print; a message about a failure shows the addresses of the command line and the environment in
//!   their redacted form.
//!
//! `store.rs` opens a store by its URL.

mod address;
mod append;
mod backup;
mod backup_storage;
mod bad_line;
mod begin;
mod bench;
mod demo;
mod exit;
mod export;
mod files;
mod head;
mod import;
mod logging;
mod maintenance;
mod memory;
mod migrate;
mod named;
mod numbers;
mod outbox;
mod output;
mod progress;
mod read;
mod receipt;
mod repair;
mod restore;
mod serve;
mod stop;
mod store;
mod streams;
mod token;
mod torture;
mod verify;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// An event store that is database and message broker in one.
#[derive(Parser)]
#[command(name = "annals", version = env!("ANNALS_VERSION"), propagate_version = true, max_term_width = 100, after_help = exit::CODES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Token(token::Token),
    Append(append::Append),
    Read(read::Read),
    Streams(streams::Streams),
    Import(import::Import),
    Export(export::Export),
    Migrate(migrate::Migrate),
    Outbox(outbox::Outbox),
    Verify(verify::Verify),
    Repair(repair::Repair),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Head(head::Head),
    Receipt(receipt::Receipt),
    Bench(bench::Bench),
    Torture(torture::Torture),
    #[command(hide = true)]
    TortureChild(torture::Child),
}

impl Command {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(demo) => demo.run().await,
            Self::Serve(serve) => serve.run().await,
            Self::Token(token) => token.run().await,
            Self::Append(append) => append.run().await,
            Self::Read(read) => read.run().await,
            Self::Streams(streams) => streams.run().await,
            Self::Import(import) => import.run().await,
            Self::Export(export) => export.run().await,
            Self::Migrate(migrate) => migrate.run().await,
            Self::Outbox(outbox) => outbox.run().await,
            Self::Verify(verify) => verify.run().await,
            Self::Repair(repair) => repair.run().await,
            Self::Backup(backup) => backup.run().await,
            Self::Restore(restore) => restore.run().await,
            Self::Head(head) => head.run().await,
            Self::Receipt(receipt) => receipt.run().await,
            Self::Bench(bench) => bench.run().await,
            Self::Torture(torture) => torture.run().await,
            Self::TortureChild(child) => child.run().await,
        }
    }
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => return refuse(&error),
    };
    files::allow_many();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::fail(&error.into()),
    };
    let done = runtime.block_on(async {
        files::survive_limits();
        command.run().await
    });
    logging::flush();
    let code = done.unwrap_or_else(|error| exit::fail(&error));
    if stop::is_asked() {
        // Tasks that are still running might never end.
        runtime.shutdown_background();
    }
    code
}

/// Prints help, or reports in one line what is wrong with the command line.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // If this fails, the failure cannot be reported either.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.to_string();
    let aside = ["Usage:", "For more information"];
    let message =
        text.split("\n\n").filter(|paragraph| !aside.iter().any(|begin| paragraph.starts_with(begin)));
    let message: Vec<_> =
        message.map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let line = message.join("; ");
    let line = address::without_passwords(line.trim_start_matches("error: "));
    exit::refuse(&line)
}
