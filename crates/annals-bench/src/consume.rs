//! Consuming a log: subscribers and projections, and the same work by hand.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use annals::{Annals, Event, HandlerError, Projection, Recorded, State, Tx};
use annals_core::{Append, Error, EventStore, Expected, LogRead, NewEvent, Position, StreamId};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Figures;

/// What happens to an account that is consumed.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(prefix = "consumed")]
pub enum ConsumedEvent {
    /// Money came in.
    Deposited {
        /// How much.
        amount: i64,
    },
}

/// The schema of the rows that are written, one for each event.
const SCHEMA: &str = "CREATE TABLE deposits (position INTEGER PRIMARY KEY, amount INTEGER NOT NULL)";
const INSERT: &str = "INSERT INTO deposits (position, amount) VALUES (?1, ?2)";
/// Events of one transaction, by a projection and by hand.
const TRANSACTION: usize = 1_000;

/// Writes that many events, each to one of that many streams in turn.
///
/// # Errors
/// As the store's.
pub async fn fill(store: &dyn EventStore, events: usize, streams: usize) -> Result<(), Error> {
    const BATCH: usize = 1_000;
    for begin in (0..events).step_by(BATCH) {
        let write = |number: usize| {
            let data = format!(r#"{{"amount":{}}}"#, number % 7);
            Ok::<_, Error>((StreamId::of("account", &(number % streams).to_string())?, data))
        };
        let mut append: Option<Append> = None;
        for number in begin..(begin + BATCH).min(events) {
            let (stream, data) = write(number)?;
            let event = NewEvent::new("consumed.deposited", data)?;
            append = Some(match append {
                None => Append::to(stream, Expected::Any, [event]),
                Some(append) => append.and_to(stream, Expected::Any, [event]),
            });
        }
        if let Some(append) = append {
            store.append(append).await?;
        }
    }
    Ok(())
}

/// Reads the log page by page and looks at each event: what a consumer cannot be faster than.
///
/// # Errors
/// As the store's.
pub async fn read_by_hand(store: &dyn EventStore) -> Result<Figures, Error> {
    let started = Instant::now();
    let (mut from, mut count, mut digest) = (Position::FIRST, 0, 0);
    loop {
        let page = store.read_log(LogRead::forward(from).limit(1_000)).await?;
        count += page.events.len() as u64;
        digest += page.events.iter().map(|event| event.data().len() as u64).sum::<u64>();
        if page.end {
            return Ok(Figures::new(count, started.elapsed(), Vec::new(), digest));
        }
        from = page.next;
    }
}

/// A subscriber, whose handler counts the event and waits that long, catches up with the log.
///
/// # Errors
/// As the framework's.
pub async fn subscriber(
    store: &Arc<dyn EventStore>,
    state: State,
    name: &str,
    lanes: usize,
    wait: Duration,
) -> Result<Figures, Error> {
    let annals = Annals::with_store(store.clone(), state).await?;
    let events = store.head().await?.get();
    let (seen, mut all) = watch::channel(false);
    let (count, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(seen));
    let counted = count.clone();
    let started = Instant::now();
    let subscribe = annals.subscribe(name).concurrency(lanes).on(move |_: Recorded<ConsumedEvent>, _| {
        let (count, seen) = (counted.clone(), seen.clone());
        async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            if count.fetch_add(1, Ordering::Relaxed) + 1 == events {
                seen.send_replace(true);
            }
            Ok(())
        }
    });
    subscribe.start().await?;
    all.wait_for(|all| *all).await.map_err(|error| Error::Internal(error.into()))?;
    let elapsed = started.elapsed();
    annals.shutdown().await;
    Ok(Figures::new(events, elapsed, Vec::new(), count.load(Ordering::Relaxed)))
}

/// Loops that wait that long for each event, without a log.
pub async fn timers(loops: usize, events: u64, wait: Duration) -> Figures {
    let started = Instant::now();
    let tasks: Vec<_> = (0..loops as u64)
        .map(|number| {
            let each = events / loops as u64 + u64::from(number < events % loops as u64);
            tokio::spawn(async move {
                for _ in 0..each {
                    tokio::time::sleep(wait).await;
                }
                each
            })
        })
        .collect();
    let mut digest = 0;
    for task in tasks {
        digest += task.await.unwrap_or_default();
    }
    Figures::new(digest, started.elapsed(), Vec::new(), digest)
}

/// A row an event, each with a statement of its own.
pub struct Deposits;

impl Projection for Deposits {
    const NAME: &'static str = "deposits";
    const SCHEMA: &'static str = SCHEMA;
    type Event = ConsumedEvent;

    fn apply(&self, event: &Recorded<ConsumedEvent>, tx: &Tx) -> Result<(), HandlerError> {
        let ConsumedEvent::Deposited { amount } = event.event;
        tx.execute(INSERT, (event.position().get(), amount))?;
        Ok(())
    }
}

/// A row an event, many with one statement.
pub struct ManyDeposits;

/// Rows of one statement.
const ROWS: usize = 100;

static INSERT_MANY: LazyLock<String> = LazyLock::new(|| {
    format!("INSERT INTO deposits (position, amount) VALUES {}", ["(?, ?)"; ROWS].join(", "))
});

impl Projection for ManyDeposits {
    const NAME: &'static str = "many_deposits";
    const SCHEMA: &'static str = SCHEMA;
    type Event = ConsumedEvent;

    fn apply(&self, event: &Recorded<ConsumedEvent>, tx: &Tx) -> Result<(), HandlerError> {
        Deposits.apply(event, tx)
    }

    fn apply_all(&self, events: &[Recorded<ConsumedEvent>], tx: &Tx) -> Result<(), HandlerError> {
        let full = events.chunks_exact(ROWS);
        full.remainder().iter().try_for_each(|event| self.apply(event, tx))?;
        for events in full {
            let mut values = Vec::with_capacity(2 * ROWS);
            for event in events {
                let ConsumedEvent::Deposited { amount } = event.event;
                values.extend([event.position().get().cast_signed(), amount]);
            }
            tx.execute(&INSERT_MANY, values)?;
        }
        Ok(())
    }
}

/// A projection that writes one row an event into SQLite catches up with the log.
///
/// # Errors
/// As the framework's.
pub async fn projection<P: Projection>(
    projection: P,
    store: &Arc<dyn EventStore>,
    directory: &Path,
) -> Result<Figures, Error> {
    let annals = Annals::with_store(store.clone(), State::directory(directory)).await?;
    let events = store.head().await?.get();
    let started = Instant::now();
    annals.project(projection).batch(TRANSACTION).start().await?;
    annals.settle().await?;
    let elapsed = started.elapsed();
    let view = annals.view::<P>();
    let sum = view.one("SELECT SUM(amount) FROM deposits", (), |row| row.read()).await;
    let digest: Option<(u64,)> = sum.map_err(|error| Error::Internal(error.into()))?;
    annals.shutdown().await;
    Ok(Figures::new(events, elapsed, Vec::new(), digest.unwrap_or_default().0))
}

/// The same by hand: the log is read page by page, and each page is one transaction of prepared statements.
///
/// # Errors
/// As the store's, and SQLite's.
pub async fn projection_by_hand(store: &dyn EventStore, directory: &Path) -> Result<Figures, Error> {
    let failed = |error: rusqlite::Error| Error::Internal(error.into());
    let started = Instant::now();
    let mut connection = Connection::open(directory.join("by-hand.sqlite")).map_err(failed)?;
    connection
        .execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {SCHEMA}"))
        .map_err(failed)?;
    let (mut from, mut count) = (Position::FIRST, 0);
    loop {
        let page = store.read_log(LogRead::forward(from).limit(TRANSACTION)).await?;
        let transaction = connection.transaction().map_err(failed)?;
        {
            let mut insert = transaction.prepare_cached(INSERT).map_err(failed)?;
            for event in &page.events {
                let read: Fields =
                    serde_json::from_slice(event.data()).map_err(|error| Error::Unreadable(error.into()))?;
                let row = (event.position().get() as i64, read.amount);
                insert.execute(row).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)?;
        count += page.events.len() as u64;
        if page.end {
            break;
        }
        from = page.next;
    }
    let elapsed = started.elapsed();
    let sum = connection.query_row("SELECT SUM(amount) FROM deposits", (), |row| row.get(0));
    Ok(Figures::new(count, elapsed, Vec::new(), sum.map_err(failed).map(i64::cast_unsigned)?))
}

#[derive(Deserialize)]
struct Fields {
    amount: i64,
}

/// Appends one event after the other. Returns how long each append took, and how long it took until a handler
/// had it.
///
/// # Errors
/// As the framework's.
pub async fn live(
    store: &Arc<dyn EventStore>,
    state: State,
    appends: usize,
) -> Result<(Figures, Figures), Error> {
    let annals = Annals::with_store(store.clone(), state).await?;
    let (heard, mut hears) = watch::channel((0, Instant::now()));
    let heard = Arc::new(heard);
    let subscribe = annals.subscribe("live").from_now().on(move |_: Recorded<ConsumedEvent>, _| {
        let now = Instant::now();
        heard.send_modify(|heard| *heard = (heard.0 + 1, now));
        async { Ok(()) }
    });
    subscribe.start().await?;
    let (mut answered, mut handled) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for number in 1..=appends {
        let event = NewEvent::new("consumed.deposited", r#"{"amount":1}"#)?;
        let asked = Instant::now();
        store.append(Append::to(StreamId::of("account", "live")?, Expected::Any, [event])).await?;
        answered.push(asked.elapsed());
        let heard = hears.wait_for(|(count, _)| *count == number).await;
        let (_, at) = *heard.map_err(|error| Error::Internal(error.into()))?;
        handled.push(at.saturating_duration_since(asked));
        // A pause, so that every event finds the subscriber at rest.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let elapsed = started.elapsed();
    annals.shutdown().await;
    let events = appends as u64;
    Ok((Figures::new(events, elapsed, answered, events), Figures::new(events, elapsed, handled, events)))
}
