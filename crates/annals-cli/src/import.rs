//! `annals import`: imports events from a file. It may be killed at any time and started again.
//!
//! There are two modes:
//! - With `--stream`, each row of any file becomes an event (`input` decodes bytes to text; `csv` and `json`
//!   find the rows; `rows` gives them one form; `columns` extracts their columns; `recipe` converts rows to
//!   events; `chunks` writes them).
//! - Without, the lines of `annals export` restore the log that they came from (`appends` reads them,
//!   `restore` writes them).
//!
//! Neither mode writes an event twice or takes one event for another, and neither keeps a progress file
//! beside the store: the idempotency keys and event ids in the store show what was imported.

mod appends;
mod chunks;
mod columns;
mod csv;
mod input;
mod json;
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

use annals_core::UtcOffset;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::json;

use crate::bad_line::BadLine;
use crate::exit::{Followed, Usage};
use crate::output::{Output, counted, note, thousands};
use crate::progress;
use crate::stop::{self, PATIENCE, stoppable};
use crate::store::StoreOption;
use input::Encoding;
use recipe::{Recipe, Source};
use template::Template;
use value::{Times, Unit};

/// Bring in events from a file
#[derive(Args)]
#[command(after_help = "Examples:
  export ANNALS_STORE=file:./data
  annals import sales.csv --format csv --stream 'customer-{customer_id}' \\
      --type purchased --time date --tag 'product:{sku}'
  annals import events.json --stream 'repo-{repo.name}' --type '{type}' \\
      --time created_at --data payload
  annals import sales.csv --format csv --delimiter ';' --decimal-comma \\
      --encoding cp949 --stream 'sale-{id}' --type sold --dry-run
  zcat log.gz | annals import - --source log --stream '{host}' --type logged
  annals import backup.jsonl        (lines of `annals export`)

Started again, it resumes where it was, and a file that has grown adds only its new lines. A row is known by its \
file (or --source), its line and its content; with --id, by that column alone. Another file of the same name is \
refused until it gets a name of its own with --source. A file that is packed with gzip is unpacked.")]
pub(crate) struct Import {
    /// The file; `-` reads standard input
    file: PathBuf,
    /// The format of the file: JSON objects (one per line, over several lines, or in an array), CSV with a
    /// header line, or columns under a header line that are separated by blanks
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// The stream of each row, such as customer-{customer_id} or repo-{repo.name}; without it, the lines are
    /// those of `annals export`
    #[arg(long, value_name = "TEMPLATE", requires = "event_type")]
    stream: Option<Template>,
    /// The type of each event, such as purchased or {kind}
    #[arg(long = "type", value_name = "TEMPLATE", requires = "stream")]
    event_type: Option<Template>,
    /// The column with the time of the event: RFC 3339, YYYY-MM-DD, YYYYMMDD or seconds since 1970. Numbers
    /// of four to eight digits need --time-unit
    #[arg(long, value_name = "COLUMN", requires = "stream")]
    time: Option<String>,
    /// The unit of numbers in the time column, counted from 1970
    #[arg(long, value_enum, value_name = "UNIT", requires = "time")]
    time_unit: Option<Unit>,
    /// The offset from UTC of times that have none, and of dates, such as Z or +09:00
    #[arg(long, value_name = "OFFSET", requires = "time", allow_hyphen_values = true)]
    time_offset: Option<UtcOffset>,
    /// A tag of each event, such as customer:{customer_id}; may be repeated. It is omitted if its column is
    /// empty
    #[arg(long = "tag", value_name = "TEMPLATE", requires = "stream")]
    tags: Vec<Template>,
    /// The column that identifies each event
    #[arg(long, value_name = "COLUMN", requires = "stream")]
    id: Option<String>,
    /// The column that is the data of each event, as JSON; otherwise the whole row is
    #[arg(long, value_name = "COLUMN", requires = "stream")]
    data: Option<String>,
    /// The name of the source of the rows, if it is not a file that its path identifies
    #[arg(long, value_name = "NAME", requires = "stream")]
    source: Option<String>,
    /// The path under which the file was imported before, if it was moved or renamed since
    #[arg(long, value_name = "PATH", requires = "stream", conflicts_with_all = ["source", "id"])]
    moved_from: Option<PathBuf>,
    /// The sign between two columns of CSV, such as ';', or `tab`
    #[arg(long, value_name = "SIGN", value_parser = delimiter, requires = "stream")]
    delimiter: Option<u8>,
    /// Numbers have a decimal comma: 11,77
    #[arg(long, requires = "stream")]
    decimal_comma: bool,
    /// `NULL`, `NaN`, `\N` and the like are values; without this they are no value where one makes a stream,
    /// a type or an id
    #[arg(long, requires = "stream")]
    null_is_value: bool,
    /// The encoding of the file, such as cp949, utf-16 or latin1 [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<Encoding>,
    /// Read the whole file and report what it would import, or what is wrong with it. Writes nothing, and
    /// does not open the store
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON objects, a line each, over several lines, or in an array
    #[value(alias = "json")]
    Jsonl,
    /// Comma-separated values under a header line
    Csv,
    /// Columns under a header line, separated by blanks
    Columns,
}

/// Parses the delimiter of columns.
fn delimiter(text: &str) -> Result<u8, &'static str> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [sign] if !matches!(sign, b'"' | b'\n' | b'\r') && sign.is_ascii() => Ok(*sign),
        _ => Err("is not one sign of ASCII, such as `;`, nor `tab`"),
    }
}

/// The counts of imported events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Written now.
    pub(crate) new: u64,
    /// Written by an earlier run.
    pub(crate) there: u64,
    /// Of these, events after a row that was written now.
    pub(crate) between: u64,
    /// At other positions than in the file, because the log had other events before.
    pub(crate) moved: u64,
}

impl Counts {
    /// Adds the counts of later rows.
    fn add(&mut self, later: Self) {
        self.between += if self.new > 0 { later.there } else { later.between };
        self.new += later.new;
        self.there += later.there;
        self.moved += later.moved;
    }
}

impl Import {
    /// Imports the file and reports the counts.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.stream.is_none() && self.format != Format::Jsonl {
            return Err(Usage(format!("--format {} needs --stream and --type", self.format)).into());
        }
        if self.delimiter.is_some() && self.format != Format::Csv {
            return Err(Usage("--delimiter is for --format csv".to_owned()).into());
        }
        let name = self.file.display().to_string();
        let (file, length) = self.open().with_context(|| format!("cannot open {name}"))?;
        // A pipe has no name that distinguishes its rows from those of another pipe.
        if length.is_none()
            && self.stream.is_some()
            && self.source.is_none()
            && self.id.is_none()
            && !self.dry_run
        {
            let last = self.file.file_name().unwrap_or(self.file.as_os_str()).display();
            return Err(Usage(format!(
                "{name} has no name of its own: name what the rows come from with --source NAME (what an earlier version \
                 began from there is named {last}), or the column that identifies each with --id"
            ))
            .into());
        }
        let bar = progress::bytes(length);
        let (started, shown, runtime) = (Instant::now(), bar.clone(), tokio::runtime::Handle::current());
        let (json, of_rows) = (self.json, self.stream.is_some());
        let done = stoppable(RESUME, PATIENCE, move || runtime.block_on(self.bring_in(file, &shown))).await;
        bar.finish_and_clear();
        let done = done.and_then(|done| done).with_context(|| name.clone())?;
        let mut output = Output::standard();
        match done {
            Done::Checked { events, streams } => report_check(&mut output, events, streams, json)?,
            Done::Written(counts) => {
                if counts.between > 0 && of_rows {
                    note(&format!(
                        "annals: {} of the rows were in the store already, after rows that were not: \
                         their ids come twice, or are those of an earlier import",
                        thousands(counts.between)
                    ));
                }
                report(&mut output, &counts, started.elapsed().as_secs_f64(), json)?;
            }
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    async fn bring_in(&self, file: Box<dyn Read + Send>, bar: &ProgressBar) -> anyhow::Result<Done> {
        let reader = input::utf8(progress::watched(file, bar), self.encoding)?;
        let recipe = self.recipe();
        if self.dry_run {
            let (events, streams) = match recipe {
                None => restore::check_all(reader)?,
                Some(recipe) => {
                    chunks::check_all(rows::Rows::open(self.format, self.delimiter, reader)?, recipe)?
                }
            };
            return Ok(Done::Checked { events, streams });
        }
        let store = self.store.open().await?;
        let show = |counts: &Counts| bar.set_message(counted(counts.new + counts.there, "event"));
        Ok(Done::Written(match recipe {
            None => restore::restore(&store, reader, show).await?,
            Some(recipe) => {
                let rows = rows::Rows::open(self.format, self.delimiter, reader);
                let rows = rows.map_err(|error| stopped(error.into(), &Counts::default()))?;
                chunks::write_all(&store, rows, recipe, show).await?
            }
        }))
    }

    fn open(&self) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
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

    /// The recipe for rows; `None` if the lines are those of an export.
    fn recipe(&self) -> Option<Recipe> {
        let (stream, event_type) = (self.stream.clone()?, self.event_type.clone()?);
        Some(Recipe {
            source: match &self.source {
                Some(name) => Source::name(name),
                None => Source::path(self.moved_from.as_ref().unwrap_or(&self.file)),
            },
            format: self.format,
            stream,
            event_type,
            time: self.time.clone(),
            times: Times { unit: self.time_unit, offset: self.time_offset },
            tags: self.tags.clone(),
            id: self.id.clone(),
            data: self.data.clone(),
            decimal_comma: self.decimal_comma,
            null_is_value: self.null_is_value,
            by_last_name: false,
        })
    }
}

/// Counts distinct streams by eight bytes of a hash of each name, because there may be many millions.
#[derive(Default)]
struct Distinct(std::collections::HashSet<u64>);

impl Distinct {
    fn add(&mut self, stream: &annals_core::StreamId) {
        let id = annals_core::EventId::from_name(stream.as_str().as_bytes());
        self.0.insert(u64::from_le_bytes(std::array::from_fn(|byte| id.as_bytes()[byte])));
    }

    fn count(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The hint for an import that was stopped.
const RESUME: &str = "start the import again, and it resumes after what is in the store";

/// The result of an import.
enum Done {
    /// Events were written.
    Written(Counts),
    /// The file was only read.
    Checked { events: u64, streams: u64 },
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

/// Ends an import between two appends after a signal to stop.
fn check_signal() -> anyhow::Result<()> {
    Ok(stop::check(RESUME)?)
}

fn report(output: &mut Output, counts: &Counts, seconds: f64, json: bool) -> io::Result<()> {
    let Counts { new, there, moved, .. } = *counts;
    if json {
        let answer = json!({"new": new, "already_there": there, "moved": moved, "seconds": seconds});
        return output.line(&answer.to_string());
    }
    output.line(&format!(
        "{}: {} new, {} already there, in {seconds:.1} s",
        counted(new + there, "event"),
        thousands(new),
        thousands(there),
    ))?;
    if moved > 0 {
        let note = "are at other positions than in the file: the log held other events before them";
        output.line(&format!("{} {note}", thousands(moved)))?;
    }
    Ok(())
}

fn report_check(output: &mut Output, events: u64, streams: u64, json: bool) -> io::Result<()> {
    if json {
        return output.line(&json!({"dry_run": true, "events": events, "streams": streams}).to_string());
    }
    let (events, streams) = (counted(events, "event"), counted(streams, "stream"));
    output.line(&format!("{events} in {streams}; nothing was written"))
}

/// Adds to an error how many events were imported before it.
fn stopped(error: anyhow::Error, counts: &Counts) -> anyhow::Error {
    use annals_core::Error;
    // Either it is unknown what was written, or the error has it.
    let says_more = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(Error::Indeterminate(_) | Error::Reused(_)))
    };
    match counts.new + counts.there {
        0 if error.chain().any(says_more) => error,
        0 => Followed { error, by: "nothing was written" }.into(),
        before => error.context(format!("stopped after {before} events, which are in the store")),
    }
}
