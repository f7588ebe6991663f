//! An older program runs beside a newer one, or in place of it: the table of the guide `evolving_events`,
//! "The order of a deploy".

use std::sync::{Arc, Mutex};

use annals::{
    Aggregate, Annals, Context, Decide, Decision, Event, HandlerError, MemoryStore, Phase, Position,
    Projection, Recorded, State, Status, Tx, emit,
};
use serde::{Deserialize, Serialize};

use crate::bank::until;
use crate::orders::{Former, InWords, Order, OrderEvent, Pay, in_words, rows_of, store_raw};

/// The events of an order as the older program knows them.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "order")]
enum OlderEvent {
    #[event(version = 2, former_name = "order.began")]
    Placed { item: String, cents: u64 },
}

fn older_words(event: &OlderEvent) -> String {
    let OlderEvent::Placed { item, cents } = event;
    format!("{item} for {cents}")
}

#[derive(Clone, Debug, Default)]
struct OlderOrder;

impl Aggregate for OlderOrder {
    const NAME: &'static str = "order";
    type Event = OlderEvent;
    fn initial(_: &str) -> Self {
        Self
    }
    fn evolve(&mut self, _: &OlderEvent) {}
}

struct Place;

impl Decide<Place> for OlderOrder {
    type Error = std::convert::Infallible;
    fn decide(&self, _: &Place, _: &Context) -> Decision<Self, Self::Error> {
        emit(OlderEvent::Placed { item: "z".into(), cents: 1 })
    }
}

/// [`InWords`] of the older program.
struct OlderInWords;

impl Projection for OlderInWords {
    const NAME: &'static str = InWords::NAME;
    const SCHEMA: &'static str = InWords::SCHEMA;
    type Event = OlderEvent;
    fn apply(&self, event: &Recorded<OlderEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let row = (event.position(), event.part, event.stream(), older_words(&event.event));
        rows.execute("INSERT INTO in_words VALUES (?1, ?2, ?3, ?4)", row)?;
        Ok(())
    }
}

/// The log and the state of a service, which its programs open one after the other.
struct Service {
    store: Arc<MemoryStore>,
    state: tempfile::TempDir,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            state: tempfile::tempdir().unwrap(),
            heard: Arc::default(),
        }
    }

    async fn start<P: Projection>(&self, projection: P, words: fn(&P::Event) -> String) -> Annals {
        let state = State::directory(self.state.path());
        let annals = Annals::with_store(self.store.clone(), state).await.unwrap();
        annals.project(projection).start().await.unwrap();
        let heard = self.heard.clone();
        let subscriber = annals.subscribe("hears").on(move |event: Recorded<P::Event>, _| {
            heard.lock().unwrap().push(words(&event.event));
            std::future::ready(Ok(()))
        });
        subscriber.start().await.unwrap();
        annals
    }

    async fn older(&self) -> Annals {
        self.start(OlderInWords, older_words).await
    }

    async fn newer(&self) -> Annals {
        self.start(InWords, in_words).await
    }

    async fn append(&self, event: Former) {
        store_raw(&*self.store, "o1", event.stored()).await;
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn placed(item: &str, cents: u64) -> Former {
    Former::PlacedV2 { item: item.into(), cents }
}

fn placed_today(item: &str, cents: u64) -> Former {
    Former::Today(OrderEvent::Placed { item: item.into(), cents, currency: "KRW".into() })
}

fn paid(cents: u64) -> Former {
    Former::Today(OrderEvent::Paid { cents })
}

/// No event is missed, and none is handled in a shape that is not its own.
#[tokio::test]
async fn a_program_that_does_not_know_a_version_waits_at_its_events_until_a_newer_one_continues() {
    let service = Service::new();
    let older = service.older().await;
    service.append(placed("a", 1)).await;
    service.append(placed_today("b", 2)).await;
    service.append(placed("c", 3)).await;
    for name in ["in_words", "hears"] {
        let is_at_the_first =
            |status: &Status| status.phase == Phase::Retrying && status.position == Position::FIRST;
        let failing = until(&older, name, is_at_the_first).await.failing.unwrap();
        assert_eq!(failing.position.map(|at| at.get()), Some(2), "{name}");
        let problem = "(schema version 3) cannot be read: this program supports schema versions up to 2";
        assert!(failing.error.contains(problem), "{name}: {}", failing.error);
    }
    assert_eq!(rows_of(&older, "o1").await, ["a for 1"]);
    assert_eq!(service.heard(), ["a for 1"]);
    older.shutdown().await;

    let newer = service.newer().await;
    newer.settle().await.unwrap();
    assert_eq!(rows_of(&newer, "o1").await, ["a for 1", "b for 2 KRW", "c for 3 EUR"]);
    assert_eq!(service.heard(), ["a for 1", "b for 2 KRW", "c for 3 EUR"]);
}

/// The events of the new type are missed, which is why the guide says: readers first. The checkpoint of a
/// projection is written with its rows, so it is past them once the older program has applied a later event
/// that it knows.
#[tokio::test]
async fn a_program_that_does_not_know_a_type_moves_the_checkpoint_past_its_events() {
    let service = Service::new();
    let older = service.older().await;
    service.append(placed("a", 1)).await;
    service.append(paid(1)).await;
    service.append(placed("b", 2)).await;
    older.settle().await.unwrap();
    for status in older.status().await.unwrap() {
        assert_eq!((status.position.get(), status.failing), (3, None), "{}", status.name);
    }
    older.shutdown().await;

    let newer = service.newer().await;
    service.append(paid(2)).await;
    newer.settle().await.unwrap();
    let expected = ["a for 1", "b for 2", "paid 2"];
    assert_eq!(rows_of(&newer, "o1").await, expected, "the payment of 1 is before the checkpoint");
    assert_eq!(service.heard(), expected);
    // An aggregate reads every event of its stream.
    let story = newer.repository::<Order>().load("o1").await.unwrap().state.story;
    assert_eq!(story, ["a for 1 EUR", "paid 1", "b for 2 EUR", "paid 2"]);
}

/// Deployed in the order that the guide gives, nothing is missed, and the older program's events are read
/// too.
#[tokio::test]
async fn when_the_reader_is_deployed_before_the_writer_every_event_is_read_once() {
    let service = Service::new();
    let older = service.older().await;
    older.repository::<OlderOrder>().execute("o1", Place).await.unwrap();
    older.settle().await.unwrap();
    older.shutdown().await;
    // It knows payments, and nothing makes one yet.
    let reader = service.newer().await;
    service.append(Former::Began { item: "a".into(), euros: 1 }).await;
    reader.settle().await.unwrap();
    reader.shutdown().await;
    let writer = service.newer().await;
    writer.repository::<Order>().execute("o1", Pay(5)).await.unwrap();
    writer.settle().await.unwrap();
    let expected = ["z for 1", "a for 100 EUR", "paid 5"];
    assert_eq!(rows_of(&writer, "o1").await, expected);
    assert_eq!(service.heard(), expected);
}

/// Neither a type nor a version that it does not know is folded away: the command might decide otherwise if
/// it knew of it.
#[tokio::test]
async fn a_program_that_does_not_know_an_event_of_an_aggregate_executes_no_command_on_it() {
    for (event, problem) in [
        (paid(1), "`order.paid` is not a known event type"),
        (placed_today("b", 2), "this program supports schema versions up to 2"),
    ] {
        let service = Service::new();
        let older = service.older().await;
        service.append(event).await;
        let orders = older.repository::<OlderOrder>();
        let refused = [
            orders.load("o1").await.unwrap_err().to_string(),
            orders.execute("o1", Place).await.unwrap_err().to_string(),
            orders.history("o1").unwrap().next().await.unwrap_err().to_string(),
        ];
        for error in refused {
            assert!(error.contains(problem), "{error}");
        }
        assert_eq!(annals::EventStore::head(&*service.store).await.unwrap().get(), 1);
        assert_eq!(orders.load("o2").await.unwrap().version.get(), 0, "other streams are not concerned");
    }
}
