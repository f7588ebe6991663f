//! `annals read`: prints events of a stream or of the log, page by page.

use std::process::ExitCode;

use annals_core::{
    Category, Direction, EventId, EventStore, EventStoreExt as _, EventType, LogRead, Position, Query,
    QueryItem, RecordedEvent, StoreUrl, StreamId, StreamRead, Tag, Text, Version, Witness,
};
use clap::Args;

use crate::begin::{BeginOptions, Place};
use crate::exit::NotFound;
use crate::numbers::count;
use crate::output::{Column, Output, Style, plain};
use crate::store::StoreOption;

/// Read the events of a stream, or with --all of every stream
#[derive(Args)]
#[command(after_help = "Examples:
  export ANNALS_STORE=file:./data
  annals read account-42
  annals read --all --backward --limit 10
  annals read --all --category account --type account.opened --json | jq .data
  annals read --all --predecessor 0f8fad5b-d9cb-469f-a165-70867728950e
  annals read --all --after 42@0f8fad5b-d9cb-469f-a165-70867728950e --json

To resume after the last event that was read, give its `position` (with a stream its `version`) and its `id` as \
--after POSITION@ID. If the log does not have that event there any more, because it was restored, the read is \
refused.")]
pub(crate) struct Read {
    /// The stream
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "category", "types", "tags", "process", "initiator", "id", "predecessor"])]
    stream: Option<StreamId>,
    /// Every stream, in the order of the log
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    begin: BeginOptions,
    /// The last position, or for one stream version, to read, inclusive, in either direction; also as 42@UUID
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    to: Option<Place>,
    /// Newest first
    #[arg(long)]
    backward: bool,
    /// At most this many events; otherwise all
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    limit: Option<u64>,
    /// Only streams of this category
    #[arg(long)]
    category: Option<Category>,
    /// Only events of this type; may be repeated to match any of several types
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<EventType>,
    /// Only events with this tag; may be repeated to match events with all of the tags
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Only events of this business process
    #[arg(long)]
    process: Option<String>,
    /// Only events that this initiator started
    #[arg(long)]
    initiator: Option<String>,
    /// Only events with this id: at most one of each stream
    #[arg(long, value_name = "UUID")]
    id: Option<EventId>,
    /// Only events that this has caused: the id of an event or of a message
    #[arg(long, value_name = "ID")]
    predecessor: Option<String>,
    /// One line of JSON an event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

/// The maximum number of events per read.
const PAGE_EVENTS: u64 = 500;

/// The rest of a read.
enum Rest {
    Log(LogRead),
    Stream(StreamRead),
}

impl Rest {
    /// The next page of at most this many events, and whether it is the last.
    async fn page(
        &mut self,
        store: &dyn EventStore,
        most: u64,
    ) -> annals_core::Result<(Vec<RecordedEvent>, bool)> {
        let most = usize::try_from(most.min(PAGE_EVENTS)).expect("a page is small");
        match self {
            Self::Log(read) => {
                let page = store.read_log(read.clone().limit(most)).await?;
                read.from = page.next;
                Ok((page.events, page.end))
            }
            Self::Stream(read) => {
                let page = store.read_stream(read.clone().limit(most)).await?;
                read.from = page.next;
                Ok((page.events, page.end))
            }
        }
    }
}

impl Rest {
    /// Limits the read to the events up to the current newest one, and returns that.
    async fn bound(&mut self, store: &dyn EventStore) -> annals_core::Result<Option<Witness>> {
        let stream = match self {
            Self::Log(_) => None,
            Self::Stream(read) => Some(&read.stream),
        };
        let Some(newest) = store.newest_event(stream).await? else { return Ok(None) };
        match self {
            Self::Log(read) => read.to = read.to.min(newest.position()),
            Self::Stream(read) => read.to = read.to.min(newest.version()),
        }
        Ok(Some(Witness::of(&newest)))
    }
}

impl Read {
    /// Reads and prints page by page.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.open_existing().await?;
        let (json, mut left) = (self.json, self.limit.unwrap_or(u64::MAX));
        let (url, stream) = (self.store.url.clone(), self.stream.clone());
        let direction = if self.backward { Direction::Backward } else { Direction::Forward };
        let begin = self.begin.resolve(&*store, self.stream.as_ref(), direction).await?;
        let last = match self.to {
            Some(place) => place.number_in(&*store, self.stream.as_ref()).await?,
            None => u64::MAX,
        };
        if begin.is_none() {
            left = 0;
        }
        let mut rest = self.rest(direction, begin.unwrap_or_default(), last);
        let mut output = Output::standard();
        let mut found = false;
        // If there are several pages, the log must still have these events at the end: then all pages are of
        // one history.
        let mut seen: Vec<Witness> = Vec::new();
        while left > 0 {
            let (events, end) = rest.page(&*store, left).await?;
            left -= events.len() as u64;
            if seen.is_empty() && !end && left > 0 {
                seen.extend(events.last().map(Witness::of));
                seen.extend(rest.bound(&*store).await?);
            }
            found |= !events.is_empty();
            if json {
                events.iter().try_for_each(|event| output.bytes(&annals_json::line(event)))?;
            } else if !events.is_empty() {
                let times = Times::of(&events);
                let rows: Vec<_> = events.iter().map(|event| row(event, times)).collect();
                output.table(&columns(times), &rows)?;
            }
            output.flush()?;
            if end || output.is_closed() {
                break;
            }
        }
        for witness in seen {
            witness.expect(&*store).await?;
        }
        if !found {
            let nothing = nothing_read(&*store, stream.as_ref(), &url).await?;
            if !json {
                output.line(&plain(&nothing))?;
                output.flush()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn rest(self, direction: Direction, from: u64, last: u64) -> Rest {
        if let Some(stream) = self.stream {
            let read = StreamRead::forward(stream, Version::new(from)).to(Version::new(last));
            return Rest::Stream(StreamRead { direction, ..read });
        }
        let item = QueryItem {
            category: self.category,
            types: self.types,
            tags: self.tags,
            process: self.process.map(Text::from),
            initiator: self.initiator.map(Text::from),
            id: self.id,
            predecessor: self.predecessor.map(Text::from),
        };
        let query = if item.is_all() { Query::all() } else { Query::item(item) };
        let read = LogRead::forward(Position::new(from)).to(Position::new(last)).matching(query);
        Rest::Log(LogRead { direction, ..read })
    }
}

/// The message for a read without events: where the log or the stream ends.
///
/// # Errors
/// [`NotFound`] if there is no such stream.
async fn nothing_read(
    store: &dyn EventStore,
    stream: Option<&StreamId>,
    url: &StoreUrl,
) -> anyhow::Result<String> {
    let Some(stream) = stream else {
        return Ok(match store.head().await? {
            Position::ZERO => "no events".to_owned(),
            head => format!("no events; the log ends at position {head}"),
        });
    };
    match store.stream_version(stream).await? {
        Version::ZERO => Err(no_stream(stream, url)),
        version => Ok(format!("no events; {stream} ends at version {version}")),
    }
}

/// The error that there is no such stream.
pub(crate) fn no_stream(stream: &StreamId, url: &StoreUrl) -> anyhow::Error {
    NotFound(format!("there is no stream `{stream}` in {url}")).into()
}

/// The times in the rows of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    /// The recorded time in all rows.
    Recorded,
    /// The time of occurrence in all rows.
    Occurred,
    /// The time of occurrence where there is one; otherwise the recorded time, marked.
    Both,
}

impl Times {
    fn of(events: &[RecordedEvent]) -> Self {
        match events.iter().filter(|event| event.occurred_at().is_some()).count() {
            0 => Self::Recorded,
            all if all == events.len() => Self::Occurred,
            _ => Self::Both,
        }
    }
}

const fn columns(times: Times) -> [Column; 6] {
    let time = match times {
        Times::Recorded => "RECORDED",
        Times::Occurred | Times::Both => "OCCURRED",
    };
    [
        Column::number("POSITION"),
        Column::text("STREAM", Style::Plain),
        Column::number("VERSION"),
        Column::text("TYPE", Style::Strong),
        Column::text(time, Style::Quiet),
        Column::text("DATA", Style::Plain),
    ]
}

fn row(event: &RecordedEvent, times: Times) -> Vec<String> {
    let data = match std::str::from_utf8(event.data()) {
        Ok(text) => plain(text),
        Err(_) => format!("{} bytes of {}", event.data().len(), plain(event.content_type().as_str())),
    };
    let marked = times == Times::Both && event.occurred_at().is_none();
    let time = event.occurred_at().map_or_else(|| event.recorded_at().fixed(), |named| named.to_string());
    vec![
        event.position().to_string(),
        plain(event.stream()),
        event.version().to_string(),
        plain(event.event_type()),
        format!("{time}{}", if marked { " (recorded)" } else { "" }),
        data,
    ]
}
