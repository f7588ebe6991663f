//! `rivals`: Annals side by side with other event stores, in one run on one disk.
//!
//! Times on a shared machine are noise; what counts are ratios of rounds that were measured next to each
//! other. The files, in reading order: `events`, `rival` (what is asked of a store) and `peers` (the stores),
//! `drive`, `disk`, `targets` (the table of workloads), `bench` and `workloads`, `child`, `busy` (processes
//! that spin beside), `report`, `say`.

mod events;
mod rival;

mod peers;

mod disk;
mod drive;

mod targets;

mod bench;
mod busy;
mod child;
mod workloads;

mod report;
mod say;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use bench::{Bench, Scale};
use busy::Spinning;
use disk::Used;
use peers::postgres::{MISSING, Server};
use peers::{Opener, Peer};
use report::Report;
use say::{keep_output, say};
use targets::{WORKLOADS, Workload};
use workloads::{append, bulk, growth, ledger, many, single, spread};

/// Measures Annals side by side with other event stores.
///
/// The same work is done by each store in turn, round by round, and by the bare disk. At the end stand the
/// targets and lines for machines: `ratio WORKLOAD PEER VALUE` (Annals over the peer; more is better, also
/// for times and sizes), `limit WORKLOAD VALUE` (Annals over the bare disk), `flat WORKLOAD VALUE` (cost in a
/// large store over cost in a small one; less is better).
#[derive(Parser)]
#[command(after_help = "Examples:
  cargo run --release --manifest-path rivals/Cargo.toml -- --quick
  cargo run --release --manifest-path rivals/Cargo.toml -- --only append,bulk --peer tephra --rounds 9
  cargo run --release --manifest-path rivals/Cargo.toml --features umadb -- --dir /mnt/disk")]
struct Arguments {
    /// Do less: about two minutes instead of about a quarter of an hour.
    #[arg(long)]
    quick: bool,
    /// Only these workloads, by name or by the beginning of the name up to a dash.
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    only: Vec<String>,
    /// Only against these peers.
    #[arg(long, value_name = "PEER", value_delimiter = ',', value_enum)]
    peer: Vec<Peer>,
    /// Rounds of each workload; 5 when quick, otherwise 7.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: Option<u16>,
    /// Where stores are made, in a fresh directory that is removed afterwards. It must be on the disk that is
    /// to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// A server of PostgreSQL to use instead of one of our own. The tables made there stay there.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Measure beside as many processes that spin as there are processors, as on a machine with other work.
    /// Without `--only`, the appends. What must be reached then is the peer's own figure.
    #[arg(long)]
    busy: bool,
    /// Instead of the workloads, grow the ledger of Annals alone to 1, 10 and 100 million entries, and
    /// compare what a request costs at each size. Takes about a quarter of an hour and 20 GB.
    #[arg(long, conflicts_with_all = ["only", "peer", "busy", "postgres"])]
    growth: bool,
    /// List the workloads and end.
    #[arg(long)]
    list: bool,
    #[arg(long, num_args = 4, hide = true)]
    child: Vec<String>,
    #[arg(long, hide = true)]
    spin: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.list {
        for workload in WORKLOADS {
            println!("{:<20} {} ({})", workload.name, workload.what, workload.unit);
        }
        return Ok(());
    }
    if arguments.spin {
        busy::spin();
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if !arguments.child.is_empty() {
        return child::be(&arguments.child, runtime.handle());
    }
    let workloads = asked_for(&arguments.only, arguments.busy)?;
    keep_output()?;
    let directory = Directory::new(&arguments.dir)?;
    runtime.spawn(end_on_signal(directory.0.clone()));
    let (peers, server) = match arguments.growth {
        true => (vec![Peer::Annals], None),
        false => compared(&arguments, &directory.0)?,
    };
    let mut scale = if arguments.quick { Scale::QUICK } else { Scale::THOROUGH };
    scale.rounds = arguments.rounds.map_or(scale.rounds, usize::from);
    let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
    say(&format!("{} in {} rounds\n", names.join(", "), scale.rounds));
    let mut bench = Bench {
        opener: Opener::new(runtime.handle().clone(), server),
        runtime: runtime.handle().clone(),
        directory: directory.0.clone(),
        peers,
        scale,
        report: Report::default(),
        used: Used::now(),
    };
    if arguments.growth {
        let sizes = if arguments.quick { &growth::SIZES[..2] } else { &growth::SIZES };
        return growth::run(&mut bench, sizes);
    }
    let spinning = match arguments.busy {
        true => Some(Spinning::start(std::thread::available_parallelism()?.get())?),
        false => None,
    };
    let started = Instant::now();
    let done = run(&mut bench, &workloads);
    drop(spinning);
    say(&bench.report.targets(&workloads, arguments.busy));
    say(&format!("\n{}\ntook {:.0} s\n", bench.report.lines(), started.elapsed().as_secs_f64()));
    done
}

fn run(bench: &mut Bench, workloads: &[&Workload]) -> Result<()> {
    let asked = |name: &str| workloads.iter().any(|workload| workload.name == name);
    if ledger::NAMES.into_iter().any(asked) {
        ledger::run(bench, &asked)?;
    }
    for (name, writers, batch) in append::SHAPES {
        if asked(name) {
            append::run(bench, name, writers, batch)?;
        }
    }
    if asked("bulk") {
        bulk::run(bench)?;
    }
    if spread::NAMES.into_iter().any(asked) {
        spread::run(bench, &asked)?;
    }
    if single::NAMES.into_iter().any(asked) {
        single::run(bench)?;
    }
    if many::NAMES.into_iter().any(asked) {
        many::run(bench, &asked)?;
    }
    Ok(())
}

fn asked_for(only: &[String], busy: bool) -> Result<Vec<&'static Workload>> {
    for asked in only {
        let known = WORKLOADS.iter().any(|workload| workload.is_called(asked));
        ensure!(known, "there is no workload `{asked}`; --list names them");
    }
    let only = if busy && only.is_empty() { &["append".to_owned()] } else { only };
    let is_asked =
        |workload: &&Workload| only.is_empty() || only.iter().any(|asked| workload.is_called(asked));
    Ok(WORKLOADS.iter().filter(is_asked).collect())
}

/// The peers that are compared, Annals first, and the server of PostgreSQL if it is among them. Those that
/// are not available are reported.
fn compared(arguments: &Arguments, directory: &std::path::Path) -> Result<(Vec<Peer>, Option<Server>)> {
    let all = [Peer::Tephra, Peer::Umadb, Peer::Sqlite, Peer::Postgres];
    let mut peers = vec![Peer::Annals];
    peers.extend(all.iter().filter(|peer| arguments.peer.is_empty() || arguments.peer.contains(peer)));
    if cfg!(not(feature = "umadb")) && peers.contains(&Peer::Umadb) {
        say("umadb is skipped: build with --features umadb, which needs protoc (protobuf-compiler)\n");
        peers.retain(|peer| *peer != Peer::Umadb);
    }
    let mut server = None;
    if peers.contains(&Peer::Postgres) {
        server = match &arguments.postgres {
            Some(url) => Some(Server::Given { url: url.clone() }),
            None => Server::start(directory).context("PostgreSQL does not start")?,
        };
        if server.is_none() {
            say(&format!("{MISSING}\n"));
            peers.retain(|peer| *peer != Peer::Postgres);
        }
    }
    Ok((peers, server))
}

/// Leaves nothing behind when the run is ended early.
async fn end_on_signal(directory: PathBuf) {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        peers::postgres::stop_below(&directory);
        let _ = std::fs::remove_dir_all(&directory);
        std::process::exit(130);
    }
}

/// A directory of this run, removed when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(below: &std::path::Path) -> Result<Self> {
        let below = below.canonicalize().with_context(|| format!("cannot work below {}", below.display()))?;
        let directory = below.join(format!("rivals-{}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self(directory))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
