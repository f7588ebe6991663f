//! One account with many events: how long it takes to load. The scenario of the Spring talk of 2017.

use std::path::Path;
use std::time::{Duration, Instant};

use annals::snapshot::every;
use annals::{
    Aggregate, Annals, Context, Decide, Decision, Event, ExecuteError, LoadError, Snapshot, emit_all,
};
use serde::{Deserialize, Serialize};

use crate::bare::forget_pages;

/// What happens to an account of the benchmark.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(prefix = "account")]
pub enum AccountEvent {
    /// Money came in.
    Deposited {
        /// How much.
        amount: i64,
    },
}

/// An account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The sum of all deposits.
    pub balance: i64,
}

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type Event = AccountEvent;

    fn initial(_id: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, event: &AccountEvent) {
        let AccountEvent::Deposited { amount } = event;
        self.balance += amount;
    }
}

impl Snapshot for Account {}

/// Pays in one unit, this many times.
pub(crate) struct Deposit(pub(crate) usize);

impl Decide<Deposit> for Account {
    type Error = std::convert::Infallible;

    fn decide(&self, command: &Deposit, _: &Context) -> Decision<Self, Self::Error> {
        emit_all((0..command.0).map(|_| AccountEvent::Deposited { amount: 1 }))
    }
}

/// How long it takes to load an account, in the middle of several times.
#[derive(Clone, Copy, Debug)]
pub struct AccountFigures {
    /// Events of the account.
    pub events: u64,
    /// From a store that was just opened and whose files are not in memory.
    pub cold: Duration,
    /// From a store that has it in memory.
    pub warm: Duration,
    /// With a snapshot on disk of the account some hundred events ago, from a store that was just opened.
    pub snapshot_cold: Duration,
    /// The same, from a store that has it in memory.
    pub snapshot_warm: Duration,
}

/// Why the benchmark could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] annals::Error),
    /// A command failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError<std::convert::Infallible>),
    /// The account cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Events of one append while the account is filled.
const BATCH: usize = 100;

/// Fills an account with events in an embedded store below this directory, and loads it, `times` times each
/// way.
///
/// # Errors
/// As the store's.
pub async fn account(directory: &Path, events: usize, times: usize) -> Result<AccountFigures, AccountError> {
    let url = format!("file:{}", directory.display());
    let id = "benchmark";
    let annals = Annals::open(&url).await?;
    let accounts = annals.repository::<Account>();
    for _ in 0..events / BATCH {
        accounts.execute(id, Deposit(BATCH)).await?;
    }
    let mut warm = Vec::new();
    let mut count = 0;
    for _ in 0..times {
        let asked = Instant::now();
        count = accounts.load(id).await?.version.get();
        warm.push(asked.elapsed());
    }
    drop((accounts, annals));
    let cold = opened(directory, &url, times, false).await?;

    // The snapshot is taken, and then some more happens.
    let annals = Annals::open(&url).await?;
    let accounts = annals.repository::<Account>().snapshots(every(events as u64));
    accounts.execute(id, Deposit(1)).await?;
    for _ in 0..BATCH {
        accounts.execute(id, Deposit(1)).await?;
    }
    let mut snapshot_warm = Vec::new();
    for _ in 0..times {
        let asked = Instant::now();
        accounts.load(id).await?;
        snapshot_warm.push(asked.elapsed());
    }
    drop((accounts, annals));
    let snapshot_cold = opened(directory, &url, times, true).await?;
    Ok(AccountFigures {
        events: count,
        cold: median(cold),
        warm: median(warm),
        snapshot_cold: median(snapshot_cold),
        snapshot_warm: median(snapshot_warm),
    })
}

/// Loads the account from a store that is opened for each load, with its files forgotten by the system.
async fn opened(
    directory: &Path,
    url: &str,
    times: usize,
    snapshots: bool,
) -> Result<Vec<Duration>, AccountError> {
    let mut took = Vec::new();
    for _ in 0..times {
        let annals = Annals::open(url).await?;
        let mut accounts = annals.repository::<Account>();
        if snapshots {
            accounts = accounts.snapshots(every(u64::MAX));
        }
        forget_pages(directory)?;
        let asked = Instant::now();
        let loaded = accounts.load("benchmark").await?;
        took.push(asked.elapsed());
        assert!(loaded.exists(), "the account was filled");
    }
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
