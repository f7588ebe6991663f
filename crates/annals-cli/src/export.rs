//! `annals export`: writes events as lines of JSON, from which `annals import` restores the same log. Each
//! line has its number within its append and the size of the append, so that an import detects a truncated
//! file or missing lines.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use annals_core::{
    Direction, EventStore, EventStoreExt as _, LogRead, Position, RecordedEvent, StreamId, StreamRead,
    Version, Witness,
};
use annals_json::InAppend;
use anyhow::Context as _;
use clap::Args;

use crate::begin::BeginOptions;
use crate::named::NamedFile;
use crate::output::{Standard, counted, is_closed, note};
use crate::progress;
use crate::read::no_stream;
use crate::stop::{self, PATIENCE, stoppable};
use crate::store::StoreOption;

/// Write events as lines of JSON that `annals import` reads back
#[derive(Args)]
#[command(after_help = "Examples:
  annals export --store file:./data -o backup.jsonl
  annals export --stream account-42 --store file:./data | jq .data
  annals import backup.jsonl --store file:./restored")]
pub(crate) struct Export {
    #[command(flatten)]
    begin: BeginOptions,
    /// Only this stream
    #[arg(long)]
    stream: Option<StreamId>,
    /// The file to write, which appears under its name when it is whole; `-`, or none, is standard output. A
    /// file that it replaces keeps its mode, a new one is private
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    store: StoreOption,
}

impl Export {
    /// Writes all events that the store has now.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.store.open_existing().await?;
        let runtime = tokio::runtime::Handle::current();
        let written = stoppable(AGAIN, PATIENCE, move || runtime.block_on(self.write_out(&*store)));
        reader_may_leave(written.await.and_then(|written| written))
    }

    async fn write_out(self, store: &dyn EventStore) -> anyhow::Result<()> {
        let Some(path) = self.output.as_ref().filter(|path| path.as_os_str() != "-") else {
            let mut out = BufWriter::with_capacity(256 << 10, Standard::new());
            self.write(store, &mut out).await?;
            return Ok(out.flush()?);
        };
        let name = || format!("cannot write {}", path.display());
        let mut out = BufWriter::with_capacity(256 << 10, NamedFile::create(path).with_context(name)?);
        let count = self.write(store, &mut out).await.with_context(name)?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .with_context(name)?
            .finish()
            .with_context(name)?;
        note(&format!("{} in {}", counted(count, "event"), path.display()));
        Ok(())
    }

    async fn write(&self, store: &dyn EventStore, out: &mut dyn Write) -> anyhow::Result<u64> {
        let begin = self.begin.resolve(store, self.stream.as_ref(), Direction::Forward).await?;
        let written = match begin {
            Some(from) => write(store, self.stream.as_ref(), from, out).await?,
            None => 0,
        };
        if let (Some(stream), 0) = (&self.stream, written)
            && store.stream_version(stream).await? == Version::ZERO
        {
            return Err(no_stream(stream, &self.store.url));
        }
        Ok(written)
    }
}

/// The hint for an export that was stopped.
const AGAIN: &str = "export again";

/// Writes events line by line, and returns their number.
pub(crate) async fn write(
    store: &dyn EventStore,
    stream: Option<&StreamId>,
    from: u64,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let bar = progress::events(0);
    let (mut count, mut from) = (0, from);
    let mut append = OneAppend { one_stream: stream.is_some(), before: 0, events: Vec::new() };
    // The export ends at the newest event of this moment. At the end, the log must still have that event.
    let Some(last) = store.newest_event(stream).await? else { return Ok(0) };
    bar.set_length(if stream.is_some() { last.version().get() } else { last.position().get() });
    loop {
        stop::check(AGAIN)?;
        let (events, next, end) = match stream {
            Some(stream) => {
                let read = StreamRead::forward(stream, Version::new(from)).to(last.version());
                let page = store.read_stream(read).await?;
                (page.events, page.next.get(), page.end)
            }
            None => {
                let page = store.read_log(LogRead::forward(Position::new(from)).to(last.position())).await?;
                (page.events, page.next.get(), page.end)
            }
        };
        for event in events {
            if count == 0 {
                append.before = match stream {
                    Some(stream) => events_before(store, stream, &event).await?,
                    None => event.position().get() - event.append().get(),
                };
            }
            count += 1;
            append.add(event, out)?;
        }
        from = next;
        bar.set_position(next - 1);
        if end {
            append.write(out)?;
            Witness::of(&last).expect(store).await?;
            bar.finish_and_clear();
            return Ok(count);
        }
    }
}

/// The events of one append. They are written when all are known, because each line has their number.
struct OneAppend {
    one_stream: bool,
    /// The number of events of the append before the exported ones.
    before: u64,
    events: Vec<RecordedEvent>,
}

impl OneAppend {
    /// Adds the next event; first writes the collected events if they are of another append.
    fn add(&mut self, event: RecordedEvent, out: &mut dyn Write) -> io::Result<()> {
        if self.events.last().is_some_and(|last| last.append() != event.append()) {
            self.write(out)?;
        }
        self.events.push(event);
        Ok(())
    }

    /// Writes the lines of the append.
    fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let (before, one_stream) = (std::mem::take(&mut self.before), self.one_stream);
        let events = before + self.events.len() as u64;
        for (event, number) in self.events.drain(..).zip(before + 1..) {
            out.write_all(&annals_json::export_line(&event, InAppend { event: number, events, one_stream }))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// The number of events of a stream before this one that are of the same append.
async fn events_before(
    store: &dyn EventStore,
    stream: &StreamId,
    event: &RecordedEvent,
) -> anyhow::Result<u64> {
    let (mut count, mut from) = (0, event.version().previous());
    while from >= Version::FIRST {
        let page = store.read_stream(StreamRead::backward(stream, from)).await?;
        let same = page.events.iter().take_while(|before| before.append() == event.append()).count();
        count += same as u64;
        if page.end || same < page.events.len() {
            break;
        }
        from = page.next;
    }
    Ok(count)
}

/// The result of an export. A closed pipe at standard output is not a failure.
fn reader_may_leave(written: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let closed = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref().is_some_and(is_closed);
    match written {
        Err(error) if !error.chain().any(closed) => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}
