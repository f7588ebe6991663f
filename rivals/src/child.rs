//! A process of its own for a store: its memory is the store's alone, and it can be killed in the middle of a
//! write.
//!
//! It is this binary, started with `--child WHAT PEER DIRECTORY NUMBER`. It says `open BYTES` when the store
//! is open, `part BYTES` when a half is loaded, `loaded BYTES` when all is (the most memory that it had), and
//! then appends until it is killed, or until nobody holds its input any more.

use std::io::{BufRead, BufReader, Read};
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
use crate::events::{Ledger, Random, orders, part};
use crate::peers::{Opener, Peer};
use crate::rival::{Request, Rival, Seen};

const WRITERS: usize = 8;
/// Entries that [`What::Use`] appends.
pub const USED_ENTRIES: u64 = 100_000;
/// Beyond every stream that a workload names.
const STREAMS_FROM: u64 = 100_000_000;

/// What a child is to do before it appends until it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Load this many streams of one event.
    Load(u64),
    /// Nothing; this many children opened the store before.
    Write(u64),
    /// Read a ledger of this many entries here and there, and append to it; then nothing.
    Use(u64),
}

/// What a child told of itself before it was killed.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Memory when the store was open.
    pub open_bytes: u64,
    /// The most memory that it had until a half was loaded.
    pub part_bytes: u64,
    /// The most memory that it had.
    pub most_bytes: u64,
}

/// Runs a child on the store until it has done what it is to do, lets it append a little, and kills it.
///
/// # Errors
/// If it fails before.
pub fn run_and_kill(what: What, peer: Peer, directory: &Path) -> Result<Report> {
    let (what, number) = match what {
        What::Load(streams) => ("load", streams),
        What::Write(before) => ("write", before),
        What::Use(entries) => ("use", entries),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--child")
        .args([what, peer.name(), &directory.display().to_string(), &number.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let report = listen(&mut child);
    std::thread::sleep(Duration::from_millis(200));
    child.kill()?;
    child.wait()?;
    report.with_context(|| format!("the child of {peer} failed"))
}

fn listen(child: &mut Child) -> Result<Report> {
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut expect = |word: &str| -> Result<u64> {
        let line = lines.next().context("it ended early")??;
        Ok(line.strip_prefix(word).with_context(|| format!("it said `{line}`"))?.trim().parse()?)
    };
    let (open_bytes, part_bytes) = (expect("open")?, expect("part")?);
    Ok(Report { open_bytes, part_bytes, most_bytes: expect("loaded")? })
}

/// The child's side.
///
/// # Errors
/// As the store's.
pub fn be(arguments: &[String], runtime: &Handle) -> Result<()> {
    let [what, peer, directory, number] = arguments else { anyhow::bail!("a child needs four arguments") };
    let peer = Peer::from_str(peer, false).map_err(anyhow::Error::msg)?;
    let store = Opener::new(runtime.clone(), None).open(peer, Path::new(directory))?;
    println!("open {}", memory("VmRSS")?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let number: u64 = number.parse()?;
    if what == "use" {
        return use_ledger(runtime, &store, Ledger::of(number));
    }
    let (streams, before) = if what == "load" { (number, 0) } else { (0, number) };
    runtime.block_on(load(&*store, 1..streams / 2 + 1, 1))?;
    println!("part {}", memory("VmHWM")?);
    runtime.block_on(load(&*store, streams / 2 + 1..streams + 1, 1))?;
    println!("loaded {}", memory("VmHWM")?);
    // Streams of its own, so that no append is refused.
    append_forever(runtime, &store, STREAMS_FROM + before * 10_000_000)
}

fn use_ledger(runtime: &Handle, store: &Arc<dyn Rival>, ledger: Ledger) -> Result<()> {
    let mut random = Random::new(ledger.entries);
    runtime.block_on(async {
        for number in 0..10_000 {
            let (account, customer) = (random.below(ledger.accounts), random.below(ledger.customers()));
            store.stream(&Ledger::stream(account), 0, &mut |_| ()).await?;
            store.tag(&Ledger::tag(customer), 0, &mut |_| ()).await?;
            if number == 5_000 {
                println!("part {}", memory("VmHWM")?);
            }
        }
        for first in (0..USED_ENTRIES).step_by(100) {
            // Beyond the entries of every workload.
            let parts = (first..first + 100).map(|number| ledger.entry((1 << 60) + number)).collect();
            store.append(Request { parts, conditional: false }, 0, store.drives()[0]).await?.written()?;
        }
        anyhow::Ok(())
    })?;
    println!("loaded {}", memory("VmHWM")?);
    std::thread::sleep(Duration::MAX);
    Ok(())
}

fn append_forever(runtime: &Handle, store: &Arc<dyn Rival>, from: u64) -> Result<()> {
    let drive = store.drives()[0];
    together(runtime, drive, WRITERS, |writer| {
        let store = store.clone();
        async move {
            for stream in (from + writer as u64 * 1_000_000).. {
                let orders = part(stream, Seen::default(), orders(stream, 1, 1));
                let request = Request { parts: vec![orders], conditional: true };
                store.append(request, writer, drive).await?.written()?;
            }
            anyhow::Ok(())
        }
    })?;
    Ok(())
}
