//! `annals torture`: tests on the user's own disk that no acknowledged append is lost when the process is
//! killed.
//!
//! A child process writes and reads; it is killed at a random moment, while it opens the store, works or
//! closes it. Then this process opens the store and checks it against a witness that the child wrote outside
//! of the store. This is repeated.
//!
//! The files: `load` (the generated appends), `child` (the process that is killed), `witness` (the record of
//! appends and acknowledgements), `check` (the checks after a kill), `full` (a full disk), `tamper`
//! (deliberate violations, for tests).

mod check;
mod child;
mod full;
mod load;
mod tamper;
mod witness;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use annals_engine::{EngineStore, Head, verify};
use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use self::check::{Check, Kind, Tally, Violation};
pub(crate) use self::child::Child;
use self::full::Full;
use self::load::{Random, Shape};
use self::tamper::Tamper;
use self::witness::{Ledger, State, Witness};
use crate::output::{Output, Style, thousands};
use crate::{progress, stop};

/// Kill writers on this disk, again and again, and check that nothing acknowledged is lost
#[derive(Args)]
#[command(after_help = "Examples:
  annals torture --dir /mnt/data/torture --minutes 10
  annals torture --dir ./torture --minutes 1 --writers 64 --json

Child processes write to a store in the directory and are killed, while they open it, work or close it. After \
each kill every append that was acknowledged must be there, byte for byte; every other is there as a whole or \
not at all. Exit code 1 if anything is lost, half or wrong; the directory is kept then, and otherwise removed.

A kill is not a power cut: what the system had in its cache survives a kill.")]
pub(crate) struct Torture {
    /// A directory on the disk to test; it must be empty or not exist
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// How long to run, in minutes; may be a fraction, such as 0.5
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    minutes: Duration,
    /// Repeats the random choices of another run; the exact moments of the kills are not repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Writers at once, at most
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    writers: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Damages the store, so that the torture must fail
    #[arg(long, hide = true)]
    tamper: Option<Tamper>,
}

fn minutes(text: &str) -> Result<Duration, &'static str> {
    let minutes: f64 = text.parse().map_err(|_| "is not a number of minutes")?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| "is not a number of minutes")
}

/// A store is replaced by a new one when its log has this many bytes: checks take longer the longer it is.
const STORE_BYTES_MAX: u64 = 48 << 20;
/// A step that takes longer than this counts as hung.
const HANGS: Duration = Duration::from_secs(120);
/// The maximum number of violations that are reported one by one.
const VIOLATIONS_TOLD: usize = 20;

impl Torture {
    /// Runs until the time is over, a violation is found, or a signal stops it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        self.prepare()?;
        let seed = self.seed.unwrap_or_else(|| u64::from_le_bytes(uuid_bytes()) >> 1);
        let (runtime, kept) = (tokio::runtime::Handle::current(), format!("{} is kept", self.dir.display()));
        let work = move || {
            let mut run = Run::new(self, seed, runtime);
            let ended = run.go();
            (run, ended)
        };
        let (run, ended) = stop::stoppable(&kept, Duration::MAX, work).await?;
        run.bar.finish_and_clear();
        ended.with_context(|| format!("seed {seed}; {} is kept", run.torture.dir.display()))?;
        run.summary()
    }

    fn prepare(&self) -> anyhow::Result<()> {
        let name = || format!("cannot use {}", self.dir.display());
        if self.dir.exists() && std::fs::read_dir(&self.dir).with_context(name)?.next().is_some() {
            bail!("{} is not empty", self.dir.display());
        }
        crate::named::refuse_within_store(&self.dir).with_context(name)?;
        std::fs::create_dir_all(&self.dir).with_context(name)
    }
}

fn uuid_bytes() -> [u8; 8] {
    let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
    low.to_le_bytes()
}

/// The moment of a kill.
#[derive(Clone, Copy)]
enum Moment {
    /// While the store is opened, this long after the start of opening.
    Open(Duration),
    /// Under load, this long after the store was opened.
    Load(Duration),
    /// After this long under load, and this long after the start of closing.
    Close(Duration, Duration),
}

/// Kills, by moment.
#[derive(Default)]
struct Kills {
    open: u64,
    load: u64,
    close: u64,
}

struct Run {
    torture: Torture,
    seed: u64,
    runtime: tokio::runtime::Handle,
    random: Random,
    bar: ProgressBar,
    started: Instant,
    /// The number of the current store. Each store has its own witness.
    store: u64,
    ledger: Ledger,
    head: Option<Head>,
    cycle: u64,
    kills: Kills,
    /// How long the last opening and the last closing took.
    opening: Duration,
    closing: Duration,
    acknowledged: u64,
    total: Tally,
    violations: Vec<Violation>,
    full: Option<Full>,
}

impl Run {
    fn new(torture: Torture, seed: u64, runtime: tokio::runtime::Handle) -> Self {
        let short = Duration::from_millis(5);
        Self {
            bar: progress::time(torture.minutes),
            torture,
            seed,
            runtime,
            random: Random::new(seed, &[]),
            started: Instant::now(),
            store: 0,
            ledger: Ledger::default(),
            head: None,
            cycle: 0,
            kills: Kills::default(),
            opening: short,
            closing: short,
            acknowledged: 0,
            total: Tally::default(),
            violations: Vec::new(),
            full: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.torture.dir.join(format!("{name}-{}", self.store))
    }

    fn over(&self) -> bool {
        stop::is_asked() || self.started.elapsed() >= self.torture.minutes
    }

    /// Runs cycles until the time is over, then the test of a full disk.
    fn go(&mut self) -> anyhow::Result<()> {
        while !self.over() && self.violations.is_empty() {
            self.cycle()?;
            self.print_outcome();
            if self.violations.is_empty() && bytes_of(&self.path("store").join("log")) > STORE_BYTES_MAX {
                self.end_store()?;
            }
        }
        if self.violations.is_empty() {
            self.end_store()?;
        }
        if self.violations.is_empty() && !stop::is_asked() {
            self.bar.set_message("a full disk");
            let full = full::full(&self.torture.dir.join("full"), self.seed)?;
            if let Full::Broken(problem) = &full {
                let text = format!("full file system {problem}");
                self.violations.push(Violation { kind: Kind::Wrong, text });
            }
            self.full = Some(full);
        }
        Ok(())
    }

    /// Kills a child, possibly several times, and checks the store.
    fn cycle(&mut self) -> anyhow::Result<()> {
        let tamper = self.torture.tamper.filter(|_| self.cycle >= 2);
        if let Some(tamper) = tamper {
            tamper.before(&self.path("store"), &self.path("seen"))?;
        }
        let load = Duration::from_micros(2_000 << self.random.below(10))
            * (50 + self.random.below(100) as u32)
            / 100;
        let moment = if self.random.below(4) == 0 {
            Moment::Close(load, portion(&mut self.random, self.closing))
        } else {
            Moment::Load(load)
        };
        self.kill(moment)?;
        // Recovery is killed too, sometimes repeatedly.
        while self.random.below(2) == 0 && !self.over() && self.violations.is_empty() {
            let moment = Moment::Open(portion(&mut self.random, self.opening));
            self.kill(moment)?;
        }
        if let Some(tamper) = tamper {
            tamper.after(&self.path("store"), &self.path("seen"), &self.path("witness"))?;
        }
        self.check()
    }

    /// Starts a child and kills it.
    fn kill(&mut self, moment: Moment) -> anyhow::Result<()> {
        self.cycle += 1;
        let errors = self.torture.dir.join("child.err");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("torture-child");
        for (name, path) in [("--store", "store"), ("--witness", "witness"), ("--seen", "seen")] {
            command.arg(name).arg(self.path(path));
        }
        for (name, number) in
            [("--cycle", self.cycle), ("--seed", self.seed), ("--writers", self.torture.writers)]
        {
            command.arg(name).arg(number.to_string());
        }
        if let Moment::Close(load, _) = moment {
            command.arg("--close").arg(load.as_millis().to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(&errors)?);
        // Ctrl-C must reach only this process, which ends the child itself.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = Running::start(command.spawn().context("cannot start a child")?);
        let struck = self.strike(&mut child, moment);
        let status = child.kill()?;
        self.total_kill(moment);
        if let Err(problem) = struck? {
            let output = std::fs::read_to_string(&errors).unwrap_or_default();
            let text = format!("child {}: {problem} ({status}) {}", self.cycle, output.trim());
            self.violations.push(Violation { kind: Kind::Wrong, text });
        }
        Ok(())
    }

    /// Waits for the moment of the kill. Returns the problem if the child does not reach it.
    fn strike(&mut self, child: &mut Running, moment: Moment) -> anyhow::Result<Result<(), String>> {
        let started = Instant::now();
        let mut waits = vec![("opening", None)];
        match moment {
            Moment::Open(after) => waits.push(("open", Some(after))),
            Moment::Load(after) => waits.extend([("open", None), ("never", Some(after))]),
            Moment::Close(_, after) => {
                waits.extend([("open", None), ("closing", None), ("closed", Some(after))])
            }
        }
        let mut last = started;
        for (word, limit) in waits {
            match child.wait_for(word, limit.unwrap_or(HANGS)) {
                Reported::Yes => {}
                Reported::Gone => return Ok(Err(format!("ended by itself before it reported `{word}`"))),
                Reported::No if limit.is_some() => return Ok(Ok(())),
                Reported::No => return Ok(Err(format!("hung before it reported `{word}`"))),
            }
            match word {
                "open" => self.opening = last.elapsed(),
                "closed" => self.closing = last.elapsed(),
                _ => {}
            }
            last = Instant::now();
        }
        Ok(Ok(()))
    }

    fn total_kill(&mut self, moment: Moment) {
        *match moment {
            Moment::Open(_) => &mut self.kills.open,
            Moment::Load(_) => &mut self.kills.load,
            Moment::Close(..) => &mut self.kills.close,
        } += 1;
    }

    /// Opens the store and checks it.
    fn check(&mut self) -> anyhow::Result<()> {
        if !self.violations.is_empty() {
            return Ok(());
        }
        self.ledger.read_on(&self.path("witness"))?;
        let store = match self.open()? {
            Ok(store) => store,
            Err(problem) => {
                let known = self.acknowledged_now();
                let text = format!("the store does not open, with {known} appends acknowledged: {problem}");
                self.violations.push(Violation { kind: Kind::Wrong, text });
                return Ok(());
            }
        };
        let witness = Witness::open(&self.path("witness-of-retries"))?;
        let seen = self.path("seen");
        let mut check = Check {
            store: &store,
            ledger: &mut self.ledger,
            seed: self.seed,
            random: Random::new(self.seed, &[self.cycle, 2]),
            tally: Tally::default(),
            violations: Vec::new(),
        };
        let checked = self.runtime.block_on(check.run(&seen, &witness, &mut self.head));
        let Check { tally, mut violations, .. } = check;
        if let Err(error) = checked {
            violations
                .push(Violation { kind: Kind::Wrong, text: format!("the store cannot be read: {error:#}") });
        }
        self.violations.extend(violations);
        self.total.checked += tally.checked;
        self.total.found += tally.found;
        self.total.absent += tally.absent;
        self.total.retried += tally.retried;
        self.total.seen = tally.seen;
        Ok(())
    }

    /// Opens the store, with a time limit.
    fn open(&self) -> anyhow::Result<Result<EngineStore, String>> {
        let shape = Shape::of(self.seed, self.cycle, self.torture.writers);
        let (opened, store) = mpsc::channel();
        let path = self.path("store");
        std::thread::spawn(move || {
            // If opening hung, the receiver is gone.
            let _ = opened.send(EngineStore::open(path, shape.options));
        });
        Ok(match store.recv_timeout(HANGS) {
            Ok(opened) => opened.map_err(|error| error.chain()),
            Err(RecvTimeoutError::Timeout) => Err("opening hangs".into()),
            Err(RecvTimeoutError::Disconnected) => Err("opening panicked".into()),
        })
    }

    fn acknowledged_now(&self) -> u64 {
        let known = self.ledger.appends.values();
        known.filter(|known| matches!(known.state, State::Acknowledged(_))).count() as u64
    }

    /// Verifies a store completely, and starts a new one.
    fn end_store(&mut self) -> anyhow::Result<()> {
        if self.path("store").join("log").exists() {
            match verify(self.path("store"), &mut |_, _| {}) {
                Ok(found) => {
                    let wrong =
                        found.damage.iter().map(|annals_engine::Damage { location, problem, .. }| {
                            Violation {
                                kind: Kind::Wrong,
                                text: format!("verification finds damage at {location}: {problem}"),
                            }
                        });
                    self.violations.extend(wrong);
                }
                Err(error) => {
                    let text = format!("the store cannot be verified: {}", error.chain());
                    self.violations.push(Violation { kind: Kind::Wrong, text });
                }
            }
        }
        self.acknowledged += self.acknowledged_now();
        if self.violations.is_empty() {
            for name in ["store", "witness", "witness-of-retries", "seen"] {
                remove(&self.path(name))?;
            }
            self.store += 1;
            self.ledger = Ledger::default();
            self.head = None;
        }
        Ok(())
    }

    /// Updates the progress bar.
    fn print_outcome(&self) {
        self.bar.set_position(self.started.elapsed().as_secs());
        let kills = self.kills.open + self.kills.load + self.kills.close;
        self.bar.set_message(format!(
            "{} kills, {} appends checked",
            thousands(kills),
            thousands(self.total.checked)
        ));
    }

    /// Whether it was stopped before its end.
    fn is_cut_short(&self) -> bool {
        self.violations.is_empty() && self.full.is_none()
    }

    /// Prints the results. Removes the directory if there are no violations.
    fn summary(mut self) -> anyhow::Result<ExitCode> {
        let (held, cut_short) = (self.violations.is_empty(), self.is_cut_short());
        // The worst violations come first.
        self.violations.sort_by_key(|violation| violation.kind);
        let mut output = Output::standard();
        if self.torture.json {
            output.line(&self.json().to_string())?
        } else {
            self.lines(&mut output)?
        }
        output.flush()?;
        if held {
            std::fs::remove_dir_all(&self.torture.dir)
                .with_context(|| format!("cannot remove {}", self.torture.dir.display()))?;
        }
        Ok(match held {
            true if cut_short => stop::exit_code(),
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    fn count(&self, kind: Kind) -> u64 {
        self.violations.iter().filter(|violation| violation.kind == kind).count() as u64
    }

    /// The number of acknowledged appends in all stores.
    fn acknowledged(&self) -> u64 {
        self.acknowledged + if self.violations.is_empty() { 0 } else { self.acknowledged_now() }
    }

    fn lines(&self, output: &mut Output) -> anyhow::Result<()> {
        let Kills { open, load, close } = self.kills;
        let Tally { checked, found, absent, retried, .. } = self.total;
        output.line(&format!(
            "{} kills in {:.0} s: {} under load, {} while opening, {} while closing; {} stores",
            thousands(open + load + close),
            self.started.elapsed().as_secs_f64(),
            thousands(load),
            thousands(open),
            thousands(close),
            self.store.max(1)
        ))?;
        output.line(&format!(
            "{} appends acknowledged, looked for {} times; {} sent again",
            thousands(self.acknowledged()),
            thousands(checked),
            thousands(retried)
        ))?;
        output.line(&format!(
            "{} in flight at a kill: {} there as a whole, {} not there",
            thousands(found + absent),
            thousands(found),
            thousands(absent)
        ))?;
        match &self.full {
            Some(Full::Held(text)) => output.line(&format!("full file system: {text}"))?,
            Some(Full::Broken(_)) => output.line("full file system: broken")?,
            Some(Full::NotTried(why)) => output.line(&format!("full file system: not tried, {why}"))?,
            None => output.line("full file system: not tried, the run ended before that")?,
        }
        for violation in self.violations.iter().take(VIOLATIONS_TOLD) {
            output.line(&format!("{}: {}", violation.kind.name(), crate::output::plain(&violation.text)))?;
        }
        if self.violations.len() > VIOLATIONS_TOLD {
            output.line(&format!("… and {} more", self.violations.len() - VIOLATIONS_TOLD))?;
        }
        let counts =
            [Kind::Lost, Kind::Half, Kind::Wrong].map(|kind| format!("{} {}", kind.name(), self.count(kind)));
        let line = format!("{}; seed {}", counts.join(", "), self.seed);
        output.line(&output.styled(&line, Style::Strong))?;
        if self.is_cut_short() {
            output.line(&format!(
                "it was stopped after {:.0} of {:.0} s",
                self.started.elapsed().as_secs_f64(),
                self.torture.minutes.as_secs_f64()
            ))?;
        }
        if self.violations.is_empty() {
            output.line(
                "A kill is not a power cut: what the system had in its cache has survived every kill here.",
            )?;
        } else {
            output.line(&format!("{} is kept", self.torture.dir.display()))?;
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let full = match &self.full {
            Some(Full::Held(_)) => "held",
            Some(Full::Broken(_)) => "broken",
            Some(Full::NotTried(_)) | None => "not tried",
        };
        let shown = self.violations.iter().take(VIOLATIONS_TOLD);
        let shown: Vec<_> =
            shown.map(|violation| json!({ "kind": violation.kind.name(), "text": violation.text })).collect();
        json!({
            "seed": self.seed,
            "finished": !self.is_cut_short(),
            "seconds": self.started.elapsed().as_secs_f64(),
            "stores": self.store.max(1),
            "kills": { "open": self.kills.open, "load": self.kills.load, "close": self.kills.close },
            "acknowledged": self.acknowledged(),
            "checked": self.total.checked,
            "sent_again": self.total.retried,
            "in_flight": { "found": self.total.found, "not_found": self.total.absent },
            "full_file_system": full,
            "lost": self.count(Kind::Lost),
            "half": self.count(Kind::Half),
            "wrong": self.count(Kind::Wrong),
            "violations": shown,
        })
    }
}

/// A random part of a duration, up to a little more than all of it.
fn portion(random: &mut Random, of: Duration) -> Duration {
    of * (random.below(130) as u32) / 100
}

fn bytes_of(log: &Path) -> u64 {
    let files = std::fs::read_dir(log).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn remove(path: &Path) -> std::io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A child process and its output.
struct Running {
    child: process::Child,
    lines: mpsc::Receiver<String>,
}

enum Reported {
    Yes,
    No,
    Gone,
}

impl Running {
    fn start(mut child: process::Child) -> Self {
        let out = child.stdout.take().expect("the output was asked for as a pipe");
        let (line, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for text in BufReader::new(out).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits until the child prints this word.
    fn wait_for(&self, word: &str, limit: Duration) -> Reported {
        let until = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line == word => return Reported::Yes,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Reported::No,
                Err(RecvTimeoutError::Disconnected) => return Reported::Gone,
            }
        }
    }

    fn kill(&mut self) -> anyhow::Result<process::ExitStatus> {
        self.child.kill().context("cannot kill the child")?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already killed, unless there was an error.
        let _ = self.child.kill();
    }
}
