//! The test of a full disk: appends fill a file system of a few MiB until they are refused.
//!
//! The file system is in memory, mounted in the mount namespace of one process and removed with it. Without
//! the right to mount, the test is skipped and reported as not tried.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use annals_core::{Append, Appended, Error, EventStore, Expected, NewEvent, Position, StreamId};
use annals_engine::EngineStore;
use anyhow::{Context as _, bail};

use super::load::{Random, hash_of_all, hash_of_append, hash_of_scanned};

/// The options of `unshare` that are tried: a mount namespace as root, or one in a user namespace with a
/// mapped root.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
const SCRIPT: &str = "mount -t tmpfs -o size=\"$0\" annals \"$1\" && shift && exec \"$@\"";

/// The result of the test.
pub(super) enum Full {
    /// The store held; the text is the summary.
    Held(String),
    /// A guarantee was violated.
    Broken(String),
    /// The test could not be run, for this reason.
    NotTried(String),
}

/// Fills small file systems of several sizes, each mounted on this directory.
pub(super) fn full(directory: &Path, seed: u64) -> anyhow::Result<Full> {
    std::fs::create_dir_all(directory)?;
    let Some(way) = WAYS.into_iter().find(|way| mounts(way, directory)) else {
        return Ok(Full::NotTried("needs the right to mount".into()));
    };
    let sizes = [6, 9, 16];
    let mut texts = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let mut command = unshare(way, &format!("{size}m"), directory);
        command
            .arg(std::env::current_exe()?)
            .args(["torture-child", "--full", "--store"])
            .arg(directory.join("store"));
        let nowhere = ["--witness", "-", "--seen", "-", "--cycle", "0", "--writers", "1", "--seed"];
        command.args(nowhere).arg((seed ^ number as u64).to_string());
        let output = command.stdin(Stdio::null()).output().context("cannot run the child")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Ok(Full::Broken(format!("of {size} MiB: {error} ({})", output.status)));
        }
        texts.push(format!("{size} MiB: {text}"));
    }
    Ok(Full::Held(texts.join("; ")))
}

fn unshare(way: &[&str], size: &str, directory: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).args(["sh", "-c", SCRIPT, size]).arg(directory);
    command
}

fn mounts(way: &[&str], directory: &Path) -> bool {
    let output = unshare(way, "1m", directory).arg("true").stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// The number of consecutive refused appends after which the disk counts as full.
const REFUSED: usize = 40;
/// The number of bytes that are freed at the end.
const BALLAST_BYTES: usize = 2 << 20;

/// Runs in the child: fills the file system of the store. Any error is a violation.
pub(super) async fn fill(store: &Path, seed: u64) -> anyhow::Result<ExitCode> {
    let ballast = store.with_extension("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).context("cannot write the ballast")?;
    let mut filling =
        Filling { done: Vec::new(), unknown: Vec::new(), number: 0, random: Random::new(seed, &[]) };
    let shape = super::load::Shape::of(seed, 0, 1).options;
    let mut refused = 0;
    for round in 0..3 {
        let opened = EngineStore::open(store, shape.clone());
        let opened = opened
            .map_err(|error| anyhow::anyhow!("cannot open the store in round {round}: {}", error.chain()))?;
        filling.check(&opened).await.with_context(|| format!("opened in round {round}"))?;
        refused += filling.until_refused(&opened).await?;
        filling.check(&opened).await.context("while the disk is full")?;
        close(&opened).await?;
    }
    let full = filling.done.len();
    let verified = annals_engine::verify(store, &mut |_, _| {})?;
    if let Some(annals_engine::Damage { location, problem, .. }) = verified.damage.first() {
        bail!("{problem} at {location}");
    }
    let opened = EngineStore::open(store, shape)?;
    std::fs::remove_file(&ballast)?;
    for _ in 0..20 {
        filling
            .once(&opened, 2_000)
            .await?
            .map_err(|error| anyhow::anyhow!("with room again: {}", error.chain()))?;
    }
    filling.settle(&opened).await?;
    filling.check(&opened).await.context("with room again")?;
    close(&opened).await?;
    println(&format!(
        "{full} appends, {refused} refused, none lost; {} more with room again",
        filling.done.len() - full
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Closes the store. A store that was poisoned by the full disk cannot mark its end and fails with
/// `Poisoned`, which is not a violation.
async fn close(store: &EngineStore) -> anyhow::Result<()> {
    match store.close().await {
        Ok(()) | Err(Error::Poisoned(_)) => Ok(()),
        Err(error) => bail!("closed: {}", error.chain()),
    }
}

fn println(line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}")
}

struct Filling {
    done: Vec<(Append, Appended)>,
    unknown: Vec<Append>,
    number: u64,
    random: Random,
}

impl Filling {
    /// Appends until even small appends are refused.
    async fn until_refused(&mut self, store: &EngineStore) -> anyhow::Result<usize> {
        let (mut row, mut all) = (0, 0);
        while row < REFUSED {
            let bytes = if row > 0 { 10 } else { self.random.below(60_000) };
            match self.once(store, bytes).await? {
                Ok(()) => row = 0,
                Err(Error::Unavailable(_) | Error::Poisoned(_)) => row += 1,
                Err(Error::Indeterminate(_)) => {}
                Err(error) => bail!("a full disk caused an unexpected error: {}", error.chain()),
            }
            all += usize::from(row > 0);
        }
        Ok(all)
    }

    async fn once(&mut self, store: &EngineStore, bytes: u64) -> anyhow::Result<Result<(), Error>> {
        self.number += 1;
        let data = format!("\"{}{}\"", self.number, "x".repeat(bytes as usize));
        let event = NewEvent::new("disk.filled", data)?;
        let append = Append::to(StreamId::new("full")?, Expected::Any, [event]);
        match store.append(append.clone()).await {
            Ok(outcome) => self.done.push((append, outcome)),
            Err(error) => {
                if matches!(error, Error::Indeterminate(_)) {
                    self.unknown.push(append);
                }
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Resends the appends whose outcome is unknown.
    async fn settle(&mut self, store: &EngineStore) -> anyhow::Result<()> {
        for append in std::mem::take(&mut self.unknown) {
            let outcome = store.append(append.clone()).await?;
            self.done.push((append, outcome));
        }
        Ok(())
    }

    /// Checks that every acknowledged append is stored, by its hash.
    async fn check(&self, store: &EngineStore) -> anyhow::Result<()> {
        let mut hashes = Vec::new();
        store.scan(Position::FIRST, |event| {
            hashes.push(hash_of_scanned(event));
            std::ops::ControlFlow::Continue(())
        })?;
        for (append, outcome) in &self.done {
            let found = hashes.get(outcome.first.get() as usize - 1);
            let Some(found) = found else { bail!("lost: position {} was acknowledged", outcome.first) };
            if hash_of_all([*found]) != hash_of_append(append) {
                bail!("wrong: position {} is not what was acknowledged", outcome.first);
            }
        }
        if hashes.len() > self.done.len() + self.unknown.len() {
            bail!("wrong: there are {} events, and {} were appended", hashes.len(), self.done.len());
        }
        Ok(())
    }
}
