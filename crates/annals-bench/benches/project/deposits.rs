//! The projections: one row an event, each in its way.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use annals::{Annals, Dialect, HandlerError, Projection, Recorded, State, Tx};
use annals_bench::consume::ConsumedEvent;
use annals_core::EventStore;

pub const SCHEMA: &str = "CREATE TABLE deposits (position BIGINT PRIMARY KEY, amount BIGINT NOT NULL)";
const INSERT: &str = "INSERT INTO deposits (position, amount) VALUES (?1, ?2)";
/// Events of one transaction of `apply`, and of the loop by hand.
pub const TRANSACTION: usize = 1_000;
/// Events of one transaction of `apply_all`.
const MANY: usize = 10_000;

fn row(event: &Recorded<ConsumedEvent>) -> (u64, i64) {
    let ConsumedEvent::Deposited { amount } = event.event;
    (event.position().get(), amount)
}

/// How a row is written.
pub trait Way: Projection + Default {
    /// Most events of a transaction.
    const BATCH: usize = TRANSACTION;
}

/// Each statement is awaited.
#[derive(Default)]
pub struct Awaited;

impl Projection for Awaited {
    const NAME: &'static str = "awaited";
    const SCHEMA: &'static str = SCHEMA;
    type Event = ConsumedEvent;

    fn apply(&self, event: &Recorded<ConsumedEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        tx.execute(INSERT, row(event))?;
        Ok(())
    }
}

impl Way for Awaited {}

/// Each statement is queued.
#[derive(Default)]
pub struct Queued;

impl Projection for Queued {
    const NAME: &'static str = "queued";
    const SCHEMA: &'static str = SCHEMA;
    type Event = ConsumedEvent;

    fn apply(&self, event: &Recorded<ConsumedEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        Ok(tx.queue(INSERT, row(event))?)
    }
}

impl Way for Queued {}

/// One statement for many rows, each column in a parameter of its own.
#[derive(Default)]
pub struct All;

impl Projection for All {
    const NAME: &'static str = "all_at_once";
    const SCHEMA: &'static str = SCHEMA;
    type Event = ConsumedEvent;

    fn apply(&self, event: &Recorded<ConsumedEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        Ok(tx.queue(INSERT, row(event))?)
    }

    fn apply_all(&self, events: &[Recorded<ConsumedEvent>], tx: &Tx<'_>) -> Result<(), HandlerError> {
        let rows = events.iter().map(row);
        if tx.dialect() == Dialect::Postgres {
            let (positions, amounts): (Vec<_>, Vec<_>) = rows.unzip();
            let sql = "INSERT INTO deposits (position, amount)
                SELECT * FROM unnest(CAST(CAST(?1 AS text) AS bigint[]), CAST(CAST(?2 AS text) AS bigint[]))";
            return Ok(tx.queue(sql, (list('{', positions, '}'), list('{', amounts, '}')))?);
        }
        // One text for all pages that are full.
        let rows: Vec<_> = rows.collect();
        for rows in rows.chunks(TRANSACTION) {
            let marks = (1..).step_by(2).take(rows.len()).map(|place| format!("(?{place},?{})", place + 1));
            let marks = marks.collect::<Vec<_>>().join(",");
            let values: Vec<i64> =
                rows.iter().flat_map(|(position, amount)| [*position as i64, *amount]).collect();
            tx.queue(&format!("INSERT INTO deposits (position, amount) VALUES {marks}"), values)?;
        }
        Ok(())
    }
}

impl Way for All {
    const BATCH: usize = MANY;
}

/// A list as text.
fn list<T: std::fmt::Display>(begins: char, items: Vec<T>, ends: char) -> String {
    let mut text = String::from(begins);
    for item in items {
        if text.len() > 1 {
            text.push(',');
        }
        let _ = write!(text, "{item}");
    }
    text.push(ends);
    text
}

/// The projection catches up with the log, its rows in the database of this address. Events a second, once it
/// has started.
pub async fn project<P: Way>(log: &Arc<dyn EventStore>, url: &str) -> f64 {
    let annals = Annals::with_store(log.clone(), State::database(url).unwrap()).await.unwrap();
    let events = log.head().await.unwrap().get();
    annals.project(P::default()).batch(P::BATCH).start().await.unwrap();
    let started = Instant::now();
    annals.settle_within(std::time::Duration::from_secs(600)).await.unwrap();
    let elapsed = started.elapsed();
    let view = annals.view::<P>();
    let sql = "SELECT COUNT(*), SUM(amount) FROM deposits";
    let found = view.one(sql, (), |row| row.read::<(u64, u64)>()).await.unwrap();
    assert_eq!(found, Some((events, (0..events).map(|number| number % 7).sum())));
    annals.shutdown().await;
    events as f64 / elapsed.as_secs_f64()
}
