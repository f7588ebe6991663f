//! The log of a long-running command: structured lines on standard error.
//!
//! A log that cannot be written neither fails nor blocks the command: errors are logged at just the moment
//! when a disk is full. A separate thread writes the lines. It drops and counts a line that it cannot write;
//! a line is also dropped and counted if the queue is full because the reader has stopped reading.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use annals_server::Metric;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::output::colours_are_wanted;

/// The maximum number of lines that wait to be written.
const LINES_MAX: usize = 4_096;
/// How long the end of the process waits for lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);

static WRITER: OnceLock<SyncSender<Entry>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Entry {
    Line(Vec<u8>),
    /// Reports that every line before it was written or dropped.
    Flush(SyncSender<()>),
}

/// Starts logging to standard error, with the filter in `RUST_LOG` or else `default`.
pub(crate) fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let (sender, entries) = mpsc::sync_channel(LINES_MAX);
    // If the thread cannot be started, every line is dropped and counted.
    let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&entries));
    let sender = WRITER.get_or_init(|| sender);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines(sender))
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && colours_are_wanted())
        .init();
}

/// Waits until the queued lines are written, up to [`FLUSH_MAX`].
pub(crate) fn flush() {
    let Some(sender) = WRITER.get() else { return };
    let (done, written) = mpsc::sync_channel(1);
    if sender.try_send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(FLUSH_MAX);
    }
}

/// The metrics of the log.
pub(crate) fn metrics() -> Vec<Metric> {
    vec![Metric {
        name: "annals_log_lines_dropped",
        help: "Lines of the log that could not be written to standard error",
        #[expect(clippy::cast_precision_loss, reason = "a figure of Prometheus is a float")]
        value: DROPPED.load(Ordering::Relaxed) as f64,
        counter: true,
    }]
}

fn write_all(entries: &Receiver<Entry>) {
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                if io::stderr().write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Entry::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Makes a writer for each line.
struct Lines(&'static SyncSender<Entry>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { sender: self.0, text: Vec::new() }
    }
}

/// One line, which is passed to the thread when it is dropped.
struct Line {
    sender: &'static SyncSender<Entry>,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.sender.try_send(Entry::Line(std::mem::take(&mut self.text))).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}
