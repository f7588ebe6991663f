//! `annals streams`: lists streams with their versions.

use std::process::ExitCode;

use annals_core::{Category, StreamInfo, StreamList};
use clap::Args;
use serde::Serialize;

use crate::numbers::count;
use crate::output::{Column, Output, Style, plain};
use crate::store::StoreOption;

/// List streams with their versions
#[derive(Args)]
#[command(after_help = "Example:
  annals streams --category account --store file:./data")]
pub(crate) struct Streams {
    /// Only streams of this category
    #[arg(long)]
    category: Option<Category>,
    /// At most this many; otherwise all
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    limit: Option<u64>,
    /// One line of JSON a stream
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

/// The maximum number of streams per request.
const PAGE_STREAMS: u64 = 1_000;

const COLUMNS: [Column; 3] =
    [Column::text("STREAM", Style::Plain), Column::number("VERSION"), Column::number("NEWEST EVENT")];

impl Streams {
    /// Lists streams page by page.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.open_existing().await?;
        let mut output = Output::standard();
        let mut left = self.limit.unwrap_or(u64::MAX);
        let (mut after, mut printed) = (None, false);
        while left > 0 {
            let limit = usize::try_from(left.min(PAGE_STREAMS)).expect("a page is small");
            let list = StreamList { category: self.category.clone(), after, limit };
            let found = store.list_streams(list).await?;
            left -= found.len() as u64;
            if self.json {
                found.iter().try_for_each(|info| output.line(&line(info)))?;
            } else if !found.is_empty() {
                printed = true;
                output.table(&COLUMNS, &found.iter().map(row).collect::<Vec<_>>())?;
            }
            output.flush()?;
            after = found.last().map(|info| info.stream.clone());
            if found.len() < limit || output.is_closed() {
                break;
            }
        }
        if !self.json && !printed {
            let of =
                self.category.map_or_else(String::new, |category| format!(" of the category `{category}`"));
            output.line(&plain(&format!("no streams{of}")))?;
            output.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A stream as JSON: the position and version of its newest event, with the member names of an event.
#[derive(Serialize)]
struct Line<'a> {
    position: u64,
    stream: &'a str,
    version: u64,
}

fn line(info: &StreamInfo) -> String {
    let StreamInfo { stream, version, position } = info;
    let line = Line { position: position.get(), stream: stream.as_str(), version: version.get() };
    serde_json::to_string(&line).expect("it has only text for keys, so it is JSON")
}

fn row(info: &StreamInfo) -> Vec<String> {
    vec![plain(info.stream.as_str()), info.version.to_string(), info.position.to_string()]
}
