//! The process that is killed: opens the store, writes and reads at full speed, reports its state on standard
//! output, and exits at the end of its standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_consume::Subscription;
use annals_core::{EventStore, EventStoreExt, Position, Query};
use annals_engine::EngineStore;
use anyhow::{Context as _, bail};
use clap::Args;

use super::load::{self, Name, Shape, hash_of};
use super::witness::Witness;
use crate::head::hex;

/// The process that `annals torture` kills
#[derive(Args)]
pub(crate) struct Child {
    /// The store
    #[arg(long)]
    pub(super) store: PathBuf,
    /// The witness
    #[arg(long)]
    pub(super) witness: PathBuf,
    /// What the consumer has seen
    #[arg(long)]
    pub(super) seen: PathBuf,
    #[arg(long)]
    pub(super) cycle: u64,
    #[arg(long)]
    pub(super) seed: u64,
    /// Writers at most
    #[arg(long)]
    pub(super) writers: u64,
    /// Close the store after this many milliseconds
    #[arg(long)]
    pub(super) close: Option<u64>,
    /// Fill the disk on which the store is, instead
    #[arg(long)]
    full: bool,
}

impl Child {
    /// Runs until it is killed.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.full {
            return super::full::fill(&self.store, self.seed).await;
        }
        std::thread::spawn(end_with_parent);
        say("opening")?;
        let shape = Shape::of(self.seed, self.cycle, self.writers);
        let store = Arc::new(EngineStore::open(&self.store, shape.options.clone())?);
        say("open")?;
        let closing = Arc::new(AtomicBool::new(false));
        let witness = Arc::new(Witness::open(&self.witness)?);
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..shape.writers {
            let (store, witness, closing) = (store.clone(), witness.clone(), closing.clone());
            tasks.spawn(write(store, witness, closing, self.seed, self.cycle, writer));
        }
        tasks.spawn(consume(store.clone(), self.seen.clone()));
        let close = async {
            match self.close {
                Some(after) => tokio::time::sleep(Duration::from_millis(after)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = tasks.join_next() => {
                ended.expect("there are tasks").expect("tasks are not aborted")?;
                bail!("a task ended by itself");
            }
            () = close => {}
        }
        // The writers continue until they are refused, so that appends in progress are finished.
        closing.store(true, Ordering::SeqCst);
        say("closing")?;
        store.close().await?;
        say("closed")?;
        std::future::pending().await
    }
}

/// Ends this process with its parent, which holds the other end of standard input.
fn end_with_parent() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

fn say(what: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

/// Makes appends one after the other until the store is closed.
async fn write(
    store: Arc<EngineStore>,
    witness: Arc<Witness>,
    closing: Arc<AtomicBool>,
    seed: u64,
    cycle: u64,
    writer: u64,
) -> anyhow::Result<()> {
    let own_stream = load::own_stream(writer);
    let mut own = store.stream_version(&own_stream).await?;
    for number in 0.. {
        let name = Name { cycle, writer, number };
        let append = load::append(seed, name, own);
        let hash = load::hash_of_append(&append);
        witness.intend(name, own, append.writes.len(), &hash)?;
        let outcome = match store.append(append).await {
            Ok(outcome) => outcome,
            Err(_) if closing.load(Ordering::SeqCst) => break,
            Err(error) => bail!("append {name} was refused: {}", error.chain()),
        };
        if outcome.duplicate {
            bail!("append {name} is new, and was answered as a duplicate");
        }
        if let Some((_, version)) = outcome.streams.iter().find(|(stream, _)| *stream == own_stream) {
            own = *version;
        }
        witness.acknowledge(name, &outcome, &hash).await?;
    }
    std::future::pending().await
}

/// Reads events from its checkpoint on, and records each as a line with its position and hash.
async fn consume(store: Arc<EngineStore>, path: PathBuf) -> anyhow::Result<()> {
    let (mut file, checkpoint) = resume(&path).with_context(|| format!("cannot use {}", path.display()))?;
    let Some(seen) = annals_core::Witness::at(&*store, checkpoint).await? else {
        bail!("the log has lost the event at position {checkpoint}, which was seen");
    };
    let mut subscription = Subscription::new(store, seen, Query::all()).page_limit(200);
    loop {
        let page = subscription.next_page().await?;
        if subscription.losses() > 0 {
            bail!("the log has lost events that were seen");
        }
        let mut lines = String::new();
        for event in page {
            let hash = hash_of(&event.stream_id(), &event.to_new());
            lines.push_str(&format!("{} {}\n", event.position(), hex(&hash[..8])));
        }
        // The effect and the checkpoint are one write, as G7 requires for "exactly once".
        file.write_all(lines.as_bytes())?;
    }
}

/// Opens the record of seen events, removes a line that a kill has truncated, and returns the position in the
/// last line.
fn resume(path: &Path) -> io::Result<(File, Position)> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(false).read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::End(0))?;
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let last = text.lines().next_back().and_then(|line| line.split(' ').next()?.parse().ok());
    Ok((file, last.unwrap_or(Position::ZERO)))
}
