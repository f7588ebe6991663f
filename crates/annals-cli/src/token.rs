//! `annals token`: creates a token for a server, prints it once, and adds its line to the file of tokens.
//!
//! The file has only the hash. To replace a lost token, create another and remove the line of the first.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annals_server::{Grant, check_tokens};
use anyhow::{Context as _, bail};
use clap::Args;

use crate::output::Output;

/// Make a token for a server, and add it to a file of tokens
#[derive(Args)]
#[command(after_help = "Examples:
  annals token shop --tokens ./tokens --read order --read cart --append order
  annals token reporting --tokens ./tokens --read-all
  annals token operations --tokens ./tokens --read-all --metrics --backup

The token is printed once, alone on a line of standard output; the file gets its hash. A server that runs with the file takes \
the token within a second. To withdraw a token, remove its line.")]
pub(crate) struct Token {
    /// The name of the token, in the file and in logs
    name: String,
    /// The file of tokens; it is created if it does not exist
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// A category that it may read; may be repeated
    #[arg(long, value_name = "CATEGORY", conflicts_with = "read_all")]
    read: Vec<String>,
    /// It may read all categories, also those to come
    #[arg(long)]
    read_all: bool,
    /// A category that it may append to; may be repeated
    #[arg(long, value_name = "CATEGORY", conflicts_with = "append_all")]
    append: Vec<String>,
    /// It may append to all categories, also those to come
    #[arg(long)]
    append_all: bool,
    /// It may read /metrics
    #[arg(long)]
    metrics: bool,
    /// It may ask for backups
    #[arg(long)]
    backup: bool,
}

impl Token {
    /// Creates the token.
    #[expect(clippy::unused_async, reason = "commands are run as one")]
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let all = |all: bool, named: Vec<String>| if all { vec!["*".to_owned()] } else { named };
        let grant = Grant {
            name: self.name,
            read: all(self.read_all, self.read),
            append: all(self.append_all, self.append),
            metrics: self.metrics,
            backup: self.backup,
        };
        if grant.read.is_empty() && grant.append.is_empty() && !grant.metrics && !grant.backup {
            bail!(
                "the token gives no right: add --read CATEGORY or --read-all, --append CATEGORY or --append-all, --metrics, \
                 or --backup"
            );
        }
        let issued = grant.issue().map_err(anyhow::Error::msg)?;
        add(&self.tokens, &issued.line)?;
        let mut output = Output::standard();
        output.line(&issued.token)?;
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Appends a line to the file, if the file is valid with it.
fn add(path: &Path, line: &str) -> anyhow::Result<()> {
    let file = path.display();
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("{file} cannot be read")),
    };
    // An edited file may have no line break at its end.
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let added = format!("{gap}{line}");
    if let Err(problem) = check_tokens(&format!("{before}{added}")) {
        bail!("{file} would be wrong with this token: {problem}; nothing was written");
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut opened = options.open(path).with_context(|| format!("{file} cannot be written"))?;
    // In one write: a server may be reading the file.
    opened
        .write_all(added.as_bytes())
        .and_then(|()| opened.sync_all())
        .with_context(|| format!("{file} cannot be written"))
}
