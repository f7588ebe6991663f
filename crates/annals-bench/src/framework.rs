//! The framework on top of a store, and the same work by hand: what its comfort costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::{Annals, State};
use annals_core::{Append, Error, EventStore, Expected, NewEvent, StreamId, StreamRead, Version};

use tokio::task::JoinHandle;

use crate::account::{Account, AccountError, AccountEvent, Deposit};
use crate::{Figures, Load};

/// Commands from several callers at once, each to an account of its own, through the framework, which keeps
/// the states in memory, as who does it by hand does. `round` names them, so that rounds on one store do not
/// meet.
///
/// # Errors
/// As the store's.
pub async fn commands(
    store: &Arc<dyn EventStore>,
    load: Load,
    round: usize,
) -> Result<Figures, AccountError> {
    let annals = Annals::with_store(store.clone(), State::memory()).await?;
    let accounts = annals.repository::<Account>().cache(load.writers);
    let started = Instant::now();
    let callers: Vec<_> = (0..load.writers)
        .map(|caller| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                let id = format!("framework-{round}-{caller}");
                let mut latencies = Vec::with_capacity(load.appends_each());
                let mut version = Version::ZERO;
                for _ in 0..load.appends_each() {
                    let asked = Instant::now();
                    version = accounts.execute(&id, Deposit(load.batch)).await?.version;
                    latencies.push(asked.elapsed());
                }
                Ok::<_, AccountError>((latencies, version))
            })
        })
        .collect();
    gathered(callers, load, started).await
}

/// The same deposits by hand: events made, appended on the condition of the version that the caller knows,
/// and folded.
///
/// # Errors
/// As the store's.
pub async fn commands_by_hand(
    store: &Arc<dyn EventStore>,
    load: Load,
    round: usize,
) -> Result<Figures, Error> {
    let started = Instant::now();
    let callers: Vec<_> = (0..load.writers)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                let stream = StreamId::of("account", &format!("hand-{round}-{caller}"))?;
                let (mut version, mut balance) = (Version::ZERO, 0);
                let mut latencies = Vec::with_capacity(load.appends_each());
                for _ in 0..load.appends_each() {
                    let asked = Instant::now();
                    let event = || {
                        let event = AccountEvent::Deposited { amount: 1 };
                        NewEvent::new("account.deposited", fields(&event))
                    };
                    let events = (0..load.batch).map(|_| event()).collect::<Result<Vec<_>, _>>()?;
                    let append = Append::to(&stream, Expected::Exact(version), events);
                    version = store.append(append).await?.version();
                    balance += load.batch as i64;
                    latencies.push(asked.elapsed());
                }
                assert_eq!(version.get() as i64, balance, "every deposit is one event");
                Ok::<_, Error>((latencies, version))
            })
        })
        .collect();
    gathered(callers, load, started).await
}

/// What a caller tells: how long each request took, and how far its account has come.
type CallerFigures = (Vec<Duration>, Version);

/// The figures of all callers.
async fn gathered<E>(
    callers: Vec<JoinHandle<Result<CallerFigures, E>>>,
    load: Load,
    started: Instant,
) -> Result<Figures, E> {
    let mut latencies = Vec::new();
    let mut digest = 0;
    for caller in callers {
        let (waited, version) = caller.await.expect("a caller does not panic")?;
        latencies.extend(waited);
        digest += version.get();
    }
    let elapsed = started.elapsed();
    Ok(Figures::new((latencies.len() * load.batch) as u64, elapsed, latencies, digest))
}

/// The data of an event, as the framework stores it: its fields.
fn fields(event: &AccountEvent) -> String {
    let AccountEvent::Deposited { amount } = event;
    format!("{{\"amount\":{amount}}}")
}

/// An account of this many events, read, decoded and folded again and again: through the framework without
/// cache or snapshots, and by hand.
///
/// # Errors
/// As the store's.
pub async fn rehydrated(
    store: &Arc<dyn EventStore>,
    events: usize,
    times: usize,
) -> Result<(Figures, Figures), AccountError> {
    let annals = Annals::with_store(store.clone(), State::memory()).await?;
    let accounts = annals.repository::<Account>();
    let id = format!("rehydrated-{events}");
    for _ in 0..events.div_ceil(100) {
        accounts.execute(&id, Deposit(100)).await?;
    }
    let stream = StreamId::of("account", &id).map_err(Error::from)?;
    let (mut framework, mut hand) = (Vec::new(), Vec::new());
    let (mut by_framework, mut by_hand) = (0, 0);
    for _ in 0..times {
        let asked = Instant::now();
        by_framework = accounts.load(&id).await?.state.balance;
        framework.push(asked.elapsed());
        let asked = Instant::now();
        by_hand = folded(store, &stream).await?;
        hand.push(asked.elapsed());
    }
    assert_eq!(by_framework, by_hand, "both read the same account");
    let figures = |latencies: Vec<Duration>, digest: i64| {
        let elapsed = latencies.iter().sum();
        Figures::new(digest.unsigned_abs() * times as u64, elapsed, latencies, digest.unsigned_abs())
    };
    Ok((figures(framework, by_framework), figures(hand, by_hand)))
}

async fn folded(store: &Arc<dyn EventStore>, stream: &StreamId) -> Result<i64, Error> {
    /// The fields of a deposit.
    #[derive(serde::Deserialize)]
    struct Deposited {
        amount: i64,
    }
    let mut balance = 0;
    let mut read = StreamRead::forward(stream, Version::FIRST);
    loop {
        let page = store.read_stream(read.clone()).await?;
        for event in &page.events {
            let deposited: Deposited = serde_json::from_slice(event.data()).expect("it was written so");
            balance += deposited.amount;
        }
        if page.end {
            return Ok(balance);
        }
        read.from = page.next;
    }
}
