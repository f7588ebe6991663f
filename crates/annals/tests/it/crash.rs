//! The process ends in the middle of a batch: a second process is started for it and kills itself.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use annals::{
    Annals, Append, EventId, EventStore, Expected, HandlerError, MemoryStore, NewEvent, Projection, Recorded,
    State, StoreId, StreamId, Tx,
};

use crate::bank::AccountEvent;
use crate::faulty::FaultyStore;

/// Where the process that dies keeps its state. Only it has this.
const DIRECTORY: &str = "ANNALS_TEST_DIRECTORY";
const EVENTS: u64 = 10;
const DIES_AT: u64 = 8;

/// The same log in every process: its identity, its events and their ids.
async fn log() -> Arc<FaultyStore> {
    let store = FaultyStore::over(Arc::new(MemoryStore::new()), StoreId::from_bytes([7; 16]), []);
    for number in 1..=EVENTS {
        let event = NewEvent::new("account.deposited", r#"{"amount":1}"#).unwrap();
        let event = event.with_id(EventId::from_name(&number.to_be_bytes()));
        store.append(Append::to(StreamId::new("account-a1").unwrap(), Expected::Any, [event])).await.unwrap();
    }
    store
}

/// Adds up, so that an event that is applied twice is seen. Ends the process at one event, if told to.
struct Sum {
    dies: bool,
}

impl Projection for Sum {
    const NAME: &'static str = "sum";
    const SCHEMA: &'static str = "CREATE TABLE sum (amount INTEGER); INSERT INTO sum VALUES (0);";
    type Event = AccountEvent;
    fn apply(&self, event: &Recorded<AccountEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        rows.execute("UPDATE sum SET amount = amount + 1", ())?;
        if self.dies && event.position().get() == DIES_AT {
            std::process::abort();
        }
        Ok(())
    }
}

async fn start(directory: &Path, batch: usize, dies: bool) -> Annals {
    let annals = Annals::with_store(log().await, State::directory(directory)).await.unwrap();
    annals.project(Sum { dies }).batch(batch).start().await.unwrap();
    annals
}

/// Rows and checkpoint as they are in the file.
fn in_file(directory: &Path) -> (u64, u64) {
    let file = rusqlite::Connection::open(directory.join("views/sum.v1.sqlite")).unwrap();
    let read = |sql| file.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap().unsigned_abs();
    (read("SELECT amount FROM sum"), read("SELECT position FROM annals_checkpoint"))
}

#[tokio::test]
async fn a_process_that_dies_between_rows_and_checkpoint_leaves_both_or_neither() {
    for (batch, done) in [(1_000, 0), (3, 6), (1, 7)] {
        let directory = tempfile::tempdir().unwrap();
        let died = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::dies_in_the_middle_of_a_batch", "--ignored"])
            .env(DIRECTORY, directory.path())
            .env("ANNALS_TEST_BATCH", batch.to_string())
            .output()
            .unwrap();
        assert!(!died.status.success(), "it was to die");
        assert_eq!(in_file(directory.path()), (done, done), "batches of {batch}");
        let annals = start(directory.path(), batch, false).await;
        annals.settle().await.unwrap();
        annals.shutdown().await;
        assert_eq!(in_file(directory.path()), (EVENTS, EVENTS), "each event has its effect once");
    }
}

#[tokio::test]
#[ignore = "ends its process; the test above starts it"]
async fn dies_in_the_middle_of_a_batch() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let batch = std::env::var("ANNALS_TEST_BATCH").unwrap().parse().unwrap();
    let annals = start(Path::new(&directory), batch, true).await;
    annals.settle().await.unwrap();
}
