//! Projections and the threads that they run on: a call that does not return, a page that is decoded aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals::{
    Append, Event, EventStore, Expected, HandlerError, NewEvent, Projection, Recorded, StreamId, Tx,
};

use crate::bank::{AccountEvent, bank, open_with};

/// A projection that blocks until it may end.
struct Stuck {
    has_begun: Arc<AtomicBool>,
    may_end: Arc<AtomicBool>,
}

impl Projection for Stuck {
    const NAME: &'static str = "stuck";
    const SCHEMA: &'static str = "CREATE TABLE seen (position INTEGER PRIMARY KEY)";
    type Event = AccountEvent;
    fn apply(&self, _: &Recorded<AccountEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
        self.has_begun.store(true, Ordering::SeqCst);
        while !self.may_end.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Its call ends later, and its transaction with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_projection_that_does_not_return_does_not_keep_a_program_from_stopping() {
    let annals = bank().await;
    let (has_begun, may_end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    annals.project(Stuck { has_begun: has_begun.clone(), may_end: may_end.clone() }).start().await.unwrap();
    open_with(&annals, "a1", 5).await;
    while !has_begun.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stopped = tokio::time::timeout(Duration::from_secs(120), annals.shutdown()).await;
    may_end.store(true, Ordering::SeqCst);
    stopped.expect("it stops after the grace");
}

/// An event whose decoding fails once, with an error that panics when it is dropped.
#[derive(Clone, Debug, PartialEq)]
struct Big;

static FAILURES: AtomicU64 = AtomicU64::new(1);

#[derive(Debug, thiserror::Error)]
#[error("it panics when it is dropped")]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("it is dropped");
    }
}

impl Event for Big {
    const TYPES: &'static [&'static str] = &["big"];
    fn event_type(&self) -> &'static str {
        "big"
    }
    fn encode(&self) -> Result<annals::Bytes, annals::CodecError> {
        unreachable!("the test appends them itself")
    }
    fn decode(event_type: &str, schema_version: u16, data: &[u8]) -> Result<Self, annals::CodecError> {
        let fails =
            || FAILURES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if data.starts_with(b"\"!") && fails() {
            let (event_type, cause) = (event_type.to_owned(), Box::new(Bomb));
            return Err(annals::CodecError::Decode { event_type, schema_version, cause });
        }
        Ok(Self)
    }
}

struct Bigs;

impl Projection for Bigs {
    const NAME: &'static str = "bigs";
    const SCHEMA: &'static str = "CREATE TABLE seen (position INTEGER PRIMARY KEY)";
    type Event = Big;
    fn apply(&self, event: &Recorded<Big>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        // Code that waits on a runtime of its own is at home here.
        tokio::runtime::Handle::current().block_on(tokio::task::yield_now());
        rows.execute("INSERT INTO seen VALUES (?1)", (event.position(),))?;
        Ok(())
    }
}

/// Pages that are large are decoded on another thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_decoding_panics_is_read_again() {
    let annals = bank().await;
    for number in 0..12 {
        let data = format!("\"{}{}\"", if number == 1 { "!" } else { "" }, "x".repeat(200 << 10));
        let append =
            Append::to(StreamId::new("big-1").unwrap(), Expected::Any, [NewEvent::new("big", data).unwrap()]);
        annals.store().append(append).await.unwrap();
    }
    annals.project(Bigs).batch(4).start().await.unwrap();
    annals.settle_within(Duration::from_secs(60)).await.unwrap();
    let view = annals.view::<Bigs>();
    let seen = view.query("SELECT position FROM seen ORDER BY position", (), |row| row.get::<u64>(0));
    assert_eq!(seen.await.unwrap(), (1..=12).collect::<Vec<u64>>());
}
