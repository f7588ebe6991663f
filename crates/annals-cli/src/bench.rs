//! `annals bench`: measures the embedded store on this machine, next to the raw speed of the disk.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use annals_bench::{
    AccountFigures, Figures, Load, Ratio, account, append, bare, commands, commands_by_hand, rehydrated,
};
use annals_core::EventStore;
use annals_engine::{EngineStore, Options};
use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::output::{Column, Output, Style, is_dumb, thousands};
use crate::stop;

/// Measure the embedded store on this machine: durable appends, commands, and loading an account
#[derive(Args)]
#[command(after_help = "Examples:
  annals bench
  annals bench --dir /mnt/fast --rounds 9
  annals bench --quick --json

Appends are durable before they are acknowledged, conditional on the version of their stream, with 256 bytes of \
data. Rounds of the disk itself (a write of as many bytes and a sync) stand between those of the store, so the \
ratio holds on a noisy machine; in brackets the smallest and the largest. What the framework does is done by \
hand beside it: events made, appended, read, decoded, folded.")]
pub(crate) struct Bench {
    /// Measure in a new directory below this one; it is removed afterwards
    #[arg(long, default_value = ".", value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Rounds of each workload
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// A tenth of the work: the figures are rougher
    #[arg(long)]
    quick: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The size of an event's data in bytes.
const DATA_BYTES: usize = 256;
/// The approximate size of the frame of one such event in bytes, for the measurement of the disk.
const FRAME_BYTES: usize = 400;
/// The number of events of the account.
const ACCOUNT_EVENTS: usize = 10_000;

/// The results of all rounds, by workload.
#[derive(Default)]
struct Rounds {
    bare: Vec<Figures>,
    one: Vec<Figures>,
    many: Vec<Figures>,
    commands: Vec<Figures>,
    by_hand: Vec<Figures>,
    /// Loads of one account, the same number of times through the framework and by hand.
    loads: Vec<(Figures, Figures)>,
}

impl Bench {
    /// Measures, removes the directory, and prints the results.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.dir.join(format!("annals-bench-{}", std::process::id()));
        crate::named::refuse_in_store(&self.dir)
            .with_context(|| format!("cannot use {}", self.dir.display()))?;
        let asked = stop::asked()?;
        std::fs::create_dir(&directory)
            .with_context(|| format!("cannot make a directory in {}", self.dir.display()))?;
        let measured = tokio::select! {
            measured = self.measure(&directory) => measured,
            () = asked => Err(stop::stopped("nothing was measured").into()),
        };
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
        let (rounds, account) = measured?;
        if self.json { print_json(&rounds, &account) } else { print_table(&rounds, &account) }?;
        Ok(ExitCode::SUCCESS)
    }

    async fn measure(&self, directory: &Path) -> anyhow::Result<(Rounds, AccountFigures)> {
        let part = if self.quick { 10 } else { 1 };
        let one = Load { events: 2_000 / part, batch: 1, writers: 1, data_bytes: DATA_BYTES };
        let many = Load { events: 64_000 / part, writers: 64, ..one };
        let small = Load { data_bytes: 0, ..many };
        let bar = progress(u64::from(self.rounds) * 6 + 1);
        let store: Arc<dyn EventStore> =
            Arc::new(EngineStore::open(directory.join("appends"), Options::default())?);
        // Warm up: these appends are not counted.
        append(&store, Load { events: 200, ..one }, 0).await?;
        let mut rounds = Rounds::default();
        for round in 1..=usize::from(self.rounds) {
            bar.set_message("the disk itself");
            rounds.bare.push(bare(directory, FRAME_BYTES, one.events)?);
            bar.inc(1);
            bar.set_message("appends, 1 writer");
            rounds.one.push(append(&store, one, round * 2).await?);
            bar.inc(1);
            bar.set_message("appends, 64 writers");
            rounds.many.push(append(&store, many, round * 2 + 1).await?);
            bar.inc(1);
            bar.set_message("commands, 64 callers");
            rounds.commands.push(commands(&store, small, round).await?);
            bar.inc(1);
            bar.set_message("the same by hand");
            rounds.by_hand.push(commands_by_hand(&store, small, round).await?);
            bar.inc(1);
            bar.set_message("an account of 10,000 events, through the framework and by hand");
            rounds.loads.push(rehydrated(&store, ACCOUNT_EVENTS + round * 100, 20).await?);
            bar.inc(1);
        }
        drop(store);
        bar.set_message("an account of 10,000 events");
        let account =
            account(&directory.join("account"), ACCOUNT_EVENTS, if self.quick { 5 } else { 21 }).await?;
        bar.finish_and_clear();
        Ok((rounds, account))
    }
}

fn progress(steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() || is_dumb(std::env::var_os("TERM")) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}").expect("the template is right");
    ProgressBar::new(steps).with_style(style)
}

/// Requests per second: the median and the spread.
fn rate(rounds: &[Figures]) -> Ratio {
    Ratio::spread(rounds.iter().map(Figures::requests_per_second)).expect("there is a round at least")
}

/// A latency percentile: the median of the rounds.
fn latency(rounds: &[Figures], share: f64) -> Duration {
    let mut all: Vec<Duration> = rounds.iter().map(|figures| figures.latency(share)).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

fn beside(rounds: &[Figures], bare: &[Figures]) -> Ratio {
    let pairs = rounds.iter().zip(bare);
    Ratio::of(pairs.map(|(one, other)| (one.requests_per_second(), other.requests_per_second())))
        .expect("there is a round at least")
}

fn print_table(rounds: &Rounds, account: &AccountFigures) -> anyhow::Result<()> {
    let mut output = Output::standard();
    let columns = [
        Column::text("durable appends of 1 event", Style::Plain),
        Column::number("a second"),
        Column::number("p50"),
        Column::number("p99"),
        Column::text("of the disk's own rate", Style::Plain),
    ];
    let row = |name: &str, figures: &[Figures], ratio: String| {
        let rate = thousands(rate(figures).median.round() as u64);
        vec![name.to_owned(), rate, took(latency(figures, 0.5)), took(latency(figures, 0.99)), ratio]
    };
    let rows = [
        row("the disk itself: write, sync", &rounds.bare, String::new()),
        row("1 writer", &rounds.one, beside(&rounds.one, &rounds.bare).to_string()),
        row("64 writers", &rounds.many, beside(&rounds.many, &rounds.bare).to_string()),
    ];
    output.table(&columns, &rows)?;
    output.line("")?;
    let columns = [
        Column::text("the framework", Style::Plain),
        Column::number("a second"),
        Column::number("p50"),
        Column::number("p99"),
        Column::text("of the same by hand", Style::Plain),
    ];
    let (loads, folds): (Vec<_>, Vec<_>) = rounds.loads.iter().cloned().unzip();
    let rows = [
        row("commands, 64 callers", &rounds.commands, beside(&rounds.commands, &rounds.by_hand).to_string()),
        row("loads of 10,000 events", &loads, beside(&loads, &folds).to_string()),
    ];
    output.table(&columns, &rows)?;
    output.line("")?;
    let columns =
        [Column::text("load an account", Style::Plain), Column::number("cold"), Column::number("warm")];
    let rows = [
        vec![format!("of {} events", thousands(account.events)), took(account.cold), took(account.warm)],
        vec!["with a snapshot".to_owned(), took(account.snapshot_cold), took(account.snapshot_warm)],
    ];
    output.table(&columns, &rows)?;
    Ok(output.flush()?)
}

fn print_json(rounds: &Rounds, account: &AccountFigures) -> anyhow::Result<()> {
    let workload = |figures: &[Figures]| {
        let rate = rate(figures);
        json!({
            "per_second": { "median": rate.median, "least": rate.least, "most": rate.most },
            "p50_seconds": latency(figures, 0.5).as_secs_f64(),
            "p99_seconds": latency(figures, 0.99).as_secs_f64(),
            "of_disk": beside(figures, &rounds.bare).median,
        })
    };
    let (loads, folds): (Vec<_>, Vec<_>) = rounds.loads.iter().cloned().unzip();
    let framework = |figures: &[Figures], by_hand: &[Figures]| {
        let rate = rate(figures);
        json!({
            "per_second": { "median": rate.median, "least": rate.least, "most": rate.most },
            "of_by_hand": beside(figures, by_hand).median,
        })
    };
    let result = json!({
        "disk": workload(&rounds.bare),
        "append_1_writer": workload(&rounds.one),
        "append_64_writers": workload(&rounds.many),
        "commands_64_callers": framework(&rounds.commands, &rounds.by_hand),
        "loads_of_10000_events": framework(&loads, &folds),
        "account": {
            "events": account.events,
            "cold_seconds": account.cold.as_secs_f64(),
            "warm_seconds": account.warm.as_secs_f64(),
            "snapshot_cold_seconds": account.snapshot_cold.as_secs_f64(),
            "snapshot_warm_seconds": account.snapshot_warm.as_secs_f64(),
        },
    });
    let mut output = Output::standard();
    output.line(&result.to_string())?;
    Ok(output.flush()?)
}

/// A duration for people: 412 µs, 3.1 ms.
fn took(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
