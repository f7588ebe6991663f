//! The domain of these tests: counters, and what is read of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals::{
    Aggregate, Annals, Backoff, Context, Decide, Decision, Event, HandlerError, Params, Position, Projection,
    Recorded, Snapshot, SqlError, Status, Tx, ViewError, emit,
};
use serde::{Deserialize, Serialize};

pub const QUICKLY: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "counter")]
pub enum CounterEvent {
    Increased { by: u64 },
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Counter {
    pub sum: u64,
}

pub struct Increase(pub u64);

impl Aggregate for Counter {
    const NAME: &'static str = "counter";
    type Event = CounterEvent;
    fn initial(_id: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &CounterEvent) {
        let CounterEvent::Increased { by } = event;
        self.sum += by;
    }
}

impl Snapshot for Counter {}

impl Decide<Increase> for Counter {
    type Error = std::convert::Infallible;
    fn decide(&self, command: &Increase, _: &Context) -> Decision<Self, Self::Error> {
        emit(CounterEvent::Increased { by: command.0 })
    }
}

/// The sum of each counter, and how many events it is made of: an event that is applied twice or not at all
/// shows. It refuses an increase by 13 as long as it is superstitious.
#[derive(Clone, Default)]
pub struct Sums<const VERSION: u32 = 1> {
    pub applied: Arc<AtomicU64>,
    pub superstitious: Arc<AtomicBool>,
}

impl<const VERSION: u32> Projection for Sums<VERSION> {
    const NAME: &'static str = "sums";
    const VERSION: u32 = VERSION;
    const SCHEMA: &'static str = "
        CREATE TABLE sums (counter VARCHAR(40) PRIMARY KEY, amount BIGINT NOT NULL, events BIGINT NOT NULL);
        CREATE INDEX sums_by_amount ON sums (amount, counter);";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let CounterEvent::Increased { by } = event.event;
        change(rows, (event.aggregate_id(), by))?;
        if by == 13 && self.superstitious.load(Ordering::SeqCst) {
            return Err(HandlerError::new("13 brings bad luck"));
        }
        self.applied.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub fn change(rows: &Tx<'_>, values: impl Params) -> Result<(), SqlError> {
    let update = "UPDATE sums SET amount = amount + ?2, events = events + 1 WHERE counter = ?1";
    if rows.execute(update, &values)? == 0 {
        rows.execute("INSERT INTO sums VALUES (?1, ?2, 1)", &values)?;
    }
    Ok(())
}

pub async fn increase(annals: &Annals, counter: &str, by: u64) -> Position {
    annals.repository::<Counter>().execute(counter, Increase(by)).await.unwrap().position
}

/// What the rows say of a counter: its sum, and of how many events. Connections may have been cut meanwhile.
pub async fn sum<const VERSION: u32>(
    annals: &Annals,
    counter: &str,
    at_least: Position,
) -> Option<(u64, u64)> {
    let view = annals.view::<Sums<VERSION>>().at_least(at_least).within(Duration::from_secs(120));
    let sql = "SELECT amount, events FROM sums WHERE counter = ?1";
    loop {
        match view.one(sql, (counter,), |row| row.read()).await {
            Err(ViewError::Sql(SqlError::Unavailable(_))) => {}
            answer => return answer.unwrap(),
        }
    }
}

/// Waits until a projection or subscriber stands as it should.
pub async fn until(annals: &Annals, name: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            // A connection may have been cut.
            let all = annals.status().await.unwrap_or_default();
            if let Some(status) = all.into_iter().find(|status| status.name == name).filter(&wanted) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("it comes to that")
}
