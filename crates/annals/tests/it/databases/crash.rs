//! A process ends in the middle: another one is started for that, and kills itself.

use std::process::Command;
use std::time::Duration;

use annals::{Annals, HandlerError, Position, Projection, Recorded, Tx};

use crate::databases::counter::{CounterEvent, Increase, Sums, change, increase, sum, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_process_that_dies_between_rows_and_checkpoint_leaves_both_or_neither,
    a_subscriber_of_a_process_that_dies_resumes_in_another,
}

/// The address of the log, which only a process that is to die has.
const LOG: &str = "ANNALS_TEST_LOG";
const BATCH: &str = "ANNALS_TEST_BATCH";
const DIES_AT: u64 = 8;

fn die(test: &str, place: &Place, batch: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("databases::crash::{test}"), "--ignored"]);
    command.env(LOG, &place.url).env(BATCH, batch.to_string());
    command
}

/// As `Sums`, and ends the process at one event.
struct Dying;

impl Projection for Dying {
    const NAME: &'static str = <Sums as Projection>::NAME;
    const SCHEMA: &'static str = <Sums as Projection>::SCHEMA;
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        change(rows, (event.aggregate_id(), 1_u64))?;
        if event.position().get() == DIES_AT {
            std::process::abort();
        }
        Ok(())
    }
}

async fn a_process_that_dies_between_rows_and_checkpoint_leaves_both_or_neither(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..10 {
        increase(&annals, "a", 1).await;
    }
    let mut beside = place.beside().await;
    let schema = format!("{}$sums_v1", place.name);
    // The rows of one are gone on with by the next.
    for (batch, done) in [(1_000, 0), (3, 6), (1, 7)] {
        let died = die("dies_in_the_middle_of_a_batch", &place, batch).output().unwrap();
        assert!(!died.status.success(), "it was to die");
        let rows = beside
            .number(&format!("SELECT CAST(COALESCE(SUM(events), 0) AS {}) FROM {schema}.sums", place.whole()))
            .await;
        let checkpoint = beside.number(&format!("SELECT position FROM {schema}.annals_checkpoint")).await;
        assert_eq!((rows, checkpoint), (done, done), "batches of {batch}");
    }
    annals.project(Sums::<1>::default()).start().await.unwrap();
    assert_eq!(
        sum::<1>(&annals, "a", Position::new(10)).await,
        Some((10, 10)),
        "each event has its effect once"
    );
}

#[tokio::test]
#[ignore = "ends its process; a test above starts it"]
async fn dies_in_the_middle_of_a_batch() {
    let Ok(url) = std::env::var(LOG) else { return };
    let batch = std::env::var(BATCH).unwrap().parse().unwrap();
    let annals = Annals::open(&url).await.unwrap();
    annals.project(Dying).batch(batch).start().await.unwrap();
    annals.settle().await.unwrap();
}

async fn a_subscriber_of_a_process_that_dies_resumes_in_another(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    let mut other = die("dies_as_the_active_one", &place, 1).spawn().unwrap();
    // It says that it is active by what it writes.
    let counters = annals.repository::<crate::databases::counter::Counter>();
    increase(&annals, "in", 1).await;
    while counters.load("out").await.unwrap().state.sum < 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    echo(&annals, None).await;
    until(&annals, "echo", |status| status.phase == annals::Phase::Standby).await;
    other.kill().unwrap();
    other.wait().unwrap();
    for _ in 0..10 {
        increase(&annals, "in", 1).await;
    }
    annals.settle_within(Duration::from_secs(120)).await.unwrap();
    assert_eq!(counters.load("out").await.unwrap().state.sum, 11, "each event has led to one command");
}

/// Increases `out` with `in`.
async fn echo(annals: &Annals, hang: Option<u64>) {
    let subscriber = annals.subscribe("echo").on(move |event: Recorded<CounterEvent>, handling| async move {
        if event.aggregate_id() == "in" {
            handling.execute::<crate::databases::counter::Counter, _>("out", Increase(1)).await?;
        }
        // It dies before it is done.
        if hang.is_some_and(|at| event.version().get() >= at) {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    subscriber.start().await.unwrap();
}

#[tokio::test]
#[ignore = "its process is ended by a test above"]
async fn dies_as_the_active_one() {
    let Ok(url) = std::env::var(LOG) else { return };
    let annals = Annals::open(&url).await.unwrap();
    echo(&annals, Some(1)).await;
    std::future::pending::<()>().await;
}
