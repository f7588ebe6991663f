//! `annals import`: brings in events from a file. It may be killed at any time and started again.
//!
//! Two ways in:
//! - With `--stream`, each row of any log becomes an event (`rows` reads rows, `recipe` makes events of them,
//!   `chunks` writes them).
//! - Without, the lines of `annals export` become the log that they came from (`restore`).
//!
//! Neither writes an event twice, and neither keeps a file beside the store to know how far it came: the store
//! itself knows, by idempotency keys and event ids.

mod chunks;
mod csv;
mod recipe;
mod restore;
mod rows;
mod template;
mod value;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::output::{Output, thousands};
use crate::progress;
use crate::store::StoreOption;
use recipe::Recipe;
use template::Template;

/// Bring in events from a file
#[derive(Args)]
#[command(after_help = "Examples:
  annals import sales.csv --format csv --stream 'customer-{customer_id}' --type purchased \\
      --time date --tag 'product:{sku}' --store file:./data
  annals import cdnow.txt --format columns --stream 'customer-{customer_id}' --type purchased \\
      --time date --store file:./data
  annals import backup.jsonl --store file:./restored     (lines of `annals export`)

Started again, it goes on where it was, and a file that has grown adds only its new lines. A row is known by the
name of the file (or --source), its line and its content; with --id, by that column alone.")]
pub(crate) struct Import {
    /// The file; `-` reads standard input
    file: PathBuf,
    /// How the file is written: a JSON object a line, CSV with a header line, or columns under a header line
    /// that are separated by blanks
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// The stream of each row, such as customer-{customer_id}; without it, the lines are those of `annals export`
    #[arg(long, value_name = "TEMPLATE", requires = "event_type")]
    stream: Option<Template>,
    /// The type of each event, such as purchased or {kind}
    #[arg(long = "type", value_name = "TEMPLATE", requires = "stream")]
    event_type: Option<Template>,
    /// The column that says when it happened: RFC 3339, YYYY-MM-DD, YYYYMMDD or seconds since 1970
    #[arg(long, value_name = "COLUMN", requires = "stream")]
    time: Option<String>,
    /// A tag of each event, such as customer:{customer_id}; may be repeated
    #[arg(long = "tag", value_name = "TEMPLATE", requires = "stream")]
    tags: Vec<Template>,
    /// The column that identifies each event
    #[arg(long, value_name = "COLUMN", requires = "stream")]
    id: Option<String>,
    /// What the rows come from, if it is not to be known by the name of the file
    #[arg(long, value_name = "NAME", requires = "stream")]
    source: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object a line
    Jsonl,
    /// Comma-separated values under a header line
    Csv,
    /// Columns under a header line, separated by blanks
    Columns,
}

/// How many events were brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Written now.
    pub(crate) new: u64,
    /// Written by an earlier run.
    pub(crate) there: u64,
    /// At other positions than the file says, because the log held other events before.
    pub(crate) moved: u64,
}

impl Import {
    /// Brings in the file and says how much.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.stream.is_none() && self.format != Format::Jsonl {
            bail!("--format {} needs --stream and --type", self.format);
        }
        let name = self.file.display().to_string();
        let (file, length) = self.open().with_context(|| format!("cannot open {name}"))?;
        let store = self.store.open().await?;
        let bar = progress::bytes(length);
        let reader = progress::watched(file, &bar);
        let started = Instant::now();
        let tell =
            |counts: &Counts| bar.set_message(format!("{} events", thousands(counts.new + counts.there)));
        let brought_in = match self.recipe() {
            None => restore::restore(&store, reader, tell).await,
            Some(recipe) => match rows::Rows::open(self.format, reader) {
                Ok(rows) => chunks::write_all(&store, rows, recipe, tell).await,
                Err(error) => Err(error.into()),
            },
        };
        bar.finish_and_clear();
        let counts = brought_in.context(name)?;
        report(&counts, started.elapsed().as_secs_f64(), self.json)?;
        Ok(ExitCode::SUCCESS)
    }

    fn open(&self) -> io::Result<(Box<dyn Read>, Option<u64>)> {
        if self.file.as_os_str() == "-" {
            return Ok((Box::new(io::stdin()), None));
        }
        let file = File::open(&self.file)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        // A pipe has no length.
        Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
    }

    /// How rows become events; nothing if the lines are events already.
    fn recipe(&self) -> Option<Recipe> {
        let name = self.file.file_name().map_or("-".into(), |name| name.to_string_lossy().into_owned());
        Some(Recipe {
            source: self.source.clone().unwrap_or(name),
            format: self.format,
            stream: self.stream.clone()?,
            event_type: self.event_type.clone()?,
            time: self.time.clone(),
            tags: self.tags.clone(),
            id: self.id.clone(),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Columns => "columns",
        })
    }
}

fn report(counts: &Counts, seconds: f64, json: bool) -> anyhow::Result<()> {
    let mut output = Output::standard();
    let Counts { new, there, moved } = *counts;
    if json {
        let answer = json!({"new": new, "already_there": there, "moved": moved, "seconds": seconds});
        output.line(&answer.to_string())?;
    } else {
        output.line(&format!(
            "{} events: {} new, {} already there, in {seconds:.1} s",
            thousands(new + there),
            thousands(new),
            thousands(there),
        ))?;
        if moved > 0 {
            let note = "stand at other positions than in the file: the log held other events before them";
            output.line(&format!("{} {note}", thousands(moved)))?;
        }
    }
    Ok(output.flush()?)
}

/// The same failure, and how far the import had come.
fn stopped(error: anyhow::Error, counts: &Counts) -> anyhow::Error {
    match counts.new + counts.there {
        0 => error,
        before => error.context(format!("stopped after {before} events, which are in the store")),
    }
}

/// What is wrong with a line of a file.
#[derive(Debug)]
pub(crate) struct BadLine {
    /// The line, counted from 1.
    pub(crate) line: u64,
    /// The column, if it is one column that is wrong.
    pub(crate) column: Option<String>,
    /// What is wrong with it.
    pub(crate) problem: String,
}

impl BadLine {
    /// The whole line has this problem.
    pub(crate) fn new(line: u64, problem: impl Into<String>) -> Self {
        Self { line, column: None, problem: problem.into() }
    }

    /// This column of the line has this problem.
    pub(crate) fn column(line: u64, column: &str, problem: impl Into<String>) -> Self {
        Self { line, column: Some(column.to_owned()), problem: problem.into() }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column `{column}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for BadLine {}
