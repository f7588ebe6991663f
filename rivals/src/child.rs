//! A process of its own for a store: its memory is the store's alone, and it can be killed in the middle of a write.
//!
//! It is this binary, started with `--child WHAT PEER DIRECTORY STREAMS`. It says `open BYTES` when the store is open,
//! `loaded BYTES` when it is loaded (the most memory that it had), and then appends until it is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::runtime::Handle;

use crate::bench::load;
use crate::disk::memory;
use crate::drive::together;
use crate::events::{orders, stream_name};
use crate::peers::{Opener, Peer};
use crate::rival::{Part, Request, Rival, Seen};

const WRITERS: usize = 8;
/// Beyond every stream that a workload names.
const STREAMS_FROM: u64 = 100_000_000;

/// What a child is to do before it appends until it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Load the store.
    Load,
    /// Nothing.
    Write,
}

/// What a child told of itself before it was killed.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Memory when the store was open.
    pub open_bytes: u64,
    /// The most memory that it had.
    pub most_bytes: u64,
}

/// Runs a child on the store until it has done what it is to do, lets it append a little, and kills it.
///
/// # Errors
/// If it fails before.
pub fn run_and_kill(what: What, peer: Peer, directory: &Path, streams: u64) -> Result<Told> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--child")
        .args([format!("{what:?}"), peer.to_string(), directory.display().to_string(), streams.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let told = listen(&mut child);
    std::thread::sleep(Duration::from_millis(200));
    child.kill()?;
    child.wait()?;
    told.with_context(|| format!("the child of {peer} failed"))
}

fn listen(child: &mut Child) -> Result<Told> {
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut expect = |word: &str| -> Result<u64> {
        let line = lines.next().context("it ended early")??;
        Ok(line.strip_prefix(word).with_context(|| format!("it said `{line}`"))?.trim().parse()?)
    };
    Ok(Told { open_bytes: expect("open")?, most_bytes: expect("loaded")? })
}

/// The child's side.
///
/// # Errors
/// As the store's.
pub fn be(arguments: &[String], runtime: &Handle) -> Result<()> {
    let [what, peer, directory, streams] = arguments else { anyhow::bail!("a child needs four arguments") };
    let peer = Peer::from_str(peer, false).map_err(anyhow::Error::msg)?;
    let store = Opener::new(runtime.clone(), None).open(peer, Path::new(directory))?;
    println!("open {}", memory("VmRSS")?);
    if what == "Load" {
        runtime.block_on(load(&*store, store.drives()[0], streams.parse()?, 1))?;
    }
    println!("loaded {}", memory("VmHWM")?);
    append_forever(runtime, &store)
}

fn append_forever(runtime: &Handle, store: &Arc<dyn Rival>) -> Result<()> {
    let drive = store.drives()[0];
    // Streams of their own for every process, so that no append is refused.
    let from = STREAMS_FROM + u64::from(std::process::id()) * 1_000_000;
    together(runtime, drive, WRITERS, |writer| {
        let store = store.clone();
        async move {
            for stream in (from + writer as u64 * 100_000).. {
                let part = Part { stream: stream_name(stream), seen: Seen::default(), data: orders(stream, 1, 1) };
                let request = Request { parts: vec![part], conditional: true };
                store.append(request, writer, drive).await?.written()?;
            }
            anyhow::Ok(())
        }
    })?;
    Ok(())
}
