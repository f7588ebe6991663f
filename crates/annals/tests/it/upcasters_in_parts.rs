//! An event that is read as several is one item: a reader gets all of it, in order, or none of it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::{
    Aggregate, Annals, Backoff, Context, Decide, Decision, Delivery, Event, EventStore, HandlerError,
    MemoryStore, Phase, Projection, RawEvent, Recorded, State, Tx, Upcaster, emit, reject,
};
use serde::{Deserialize, Serialize};

use crate::orders::{Former, OrderEvent, in_words, store_raw};

const QUICKLY: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));

fn paid_and_shipped(parcel: &str) -> RawEvent {
    Former::PaidAndShipped { cents: 5, parcel: parcel.to_owned() }.stored()
}

async fn log() -> (Arc<MemoryStore>, Annals) {
    let store = Arc::new(MemoryStore::new());
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    (store, annals)
}

/// Rows that refuse what is shipped, for a while.
struct Careful {
    refuses: Arc<AtomicBool>,
    /// How many events were given at once.
    given: Arc<Mutex<Vec<usize>>>,
}

impl Projection for Careful {
    const NAME: &'static str = "careful";
    const SCHEMA: &'static str = "CREATE TABLE careful (position BIGINT, part BIGINT, words TEXT)";
    type Event = OrderEvent;
    fn apply(&self, event: &Recorded<OrderEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        self.given.lock().unwrap().push(1);
        self.insert(event, rows)
    }
    fn apply_all(&self, events: &[Recorded<OrderEvent>], rows: &Tx<'_>) -> Result<(), HandlerError> {
        self.given.lock().unwrap().push(events.len());
        events.iter().try_for_each(|event| self.insert(event, rows))
    }
}

impl Careful {
    fn insert(&self, event: &Recorded<OrderEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let words = in_words(&event.event);
        rows.execute("INSERT INTO careful VALUES (?1, ?2, ?3)", (event.position(), event.part, &words))?;
        match self.refuses.load(Ordering::SeqCst) && words.starts_with("shipped") {
            true => Err(HandlerError::new("nothing is shipped today")),
            false => Ok(()),
        }
    }
}

async fn careful_rows(annals: &Annals) -> Vec<(u64, u64, String)> {
    let sql = "SELECT position, part, words FROM careful ORDER BY position, part";
    annals.view::<Careful>().query(sql, (), |row| row.read()).await.unwrap()
}

/// In a file, as a service has it, so that what was committed is what is seen.
#[tokio::test]
async fn a_part_that_fails_leaves_no_row_of_the_parts_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let annals = Annals::with_store(store.clone(), State::directory(directory.path())).await.unwrap();
    let (refuses, given) = (Arc::new(AtomicBool::new(true)), Arc::default());
    store_raw(&*store, "o1", Former::Today(OrderEvent::Paid { cents: 1 }).stored()).await;
    store_raw(&*store, "o1", Former::Viewed.stored()).await;
    store_raw(&*store, "o1", paid_and_shipped("p1")).await;
    store_raw(&*store, "o1", Former::Today(OrderEvent::Paid { cents: 2 }).stored()).await;
    let careful = Careful { refuses: refuses.clone(), given: Arc::clone(&given) };
    annals.project(careful).retry(QUICKLY).start().await.unwrap();
    let failing = async {
        loop {
            let status = annals.projection("careful").status().await.unwrap().unwrap();
            if let Some(failing) = status.failing.filter(|failing| failing.attempts > 2) {
                return (failing.position, failing.error);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (position, error) = tokio::time::timeout(Duration::from_secs(60), failing).await.unwrap();
    assert_eq!(position.map(annals::Position::get), Some(3), "{error}");
    assert_eq!(
        careful_rows(&annals).await,
        [(1, 0, "paid 1".to_owned())],
        "of the event that fails there is no part"
    );
    refuses.store(false, Ordering::SeqCst);
    annals.settle().await.unwrap();
    let rows = careful_rows(&annals).await;
    let rows: Vec<_> =
        rows.iter().map(|(position, part, words)| (*position, *part, words.as_str())).collect();
    assert_eq!(rows, [(1, 0, "paid 1"), (3, 0, "paid 5"), (3, 1, "shipped in p1"), (4, 0, "paid 2")]);
    assert_eq!(given.lock().unwrap()[0], 4, "a page is given with all parts of its events");
}

/// A letter whose codec fails for a while, as one that waits for a key does. `dropped` is an event of the
/// past.
#[derive(Clone, Debug, PartialEq)]
struct Letter(String);

static IS_SEALED: AtomicBool = AtomicBool::new(true);

impl Event for Letter {
    const TYPES: &'static [&'static str] = &["letter.written"];
    const UPCASTERS: &'static [Upcaster] = &[Upcaster::Dropped { event_type: "letter.dropped" }];

    fn event_type(&self) -> &'static str {
        "letter.written"
    }

    fn encode(&self) -> Result<annals::Bytes, annals::CodecError> {
        Ok(serde_json::to_vec(&self.0).unwrap().into())
    }

    fn decode(event_type: &str, schema_version: u16, data: &[u8]) -> Result<Self, annals::CodecError> {
        let text: String = serde_json::from_slice(data).unwrap();
        if text == "sealed" && IS_SEALED.load(Ordering::SeqCst) {
            let event_type = event_type.to_owned();
            let cause = "the key is away".into();
            return Err(annals::CodecError::Decode { event_type, schema_version, cause });
        }
        Ok(Self(text))
    }
}

struct Letters;

impl Projection for Letters {
    const NAME: &'static str = "letters";
    const SCHEMA: &'static str = "CREATE TABLE letters (position BIGINT, words TEXT)";
    type Event = Letter;
    fn apply(&self, event: &Recorded<Letter>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        rows.execute("INSERT INTO letters VALUES (?1, ?2)", (event.position(), &event.event.0))?;
        Ok(())
    }
}

#[tokio::test]
async fn an_event_that_could_not_be_decoded_with_its_page_is_decoded_again() {
    let (store, annals) = log().await;
    let raw = |event_type: &str, text: &str| RawEvent::json(event_type, 1, &text).unwrap();
    for text in ["first", "sealed", "after it"] {
        store_raw(&*store, "n1", raw("letter.dropped", "")).await;
        store_raw(&*store, "n1", raw("letter.written", text)).await;
    }
    annals.project(Letters).retry(QUICKLY).start().await.unwrap();
    let failing = async {
        loop {
            let status = annals.projection("letters").status().await.unwrap().unwrap();
            if let Some(failing) = status.failing.filter(|failing| failing.attempts > 2) {
                return failing;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let failing = tokio::time::timeout(Duration::from_secs(60), failing).await.unwrap();
    assert_eq!(failing.position.map(annals::Position::get), Some(4), "{}", failing.error);
    assert!(failing.error.contains("the key is away"), "{}", failing.error);
    IS_SEALED.store(false, Ordering::SeqCst);
    annals.settle().await.unwrap();
    let sql = "SELECT position, words FROM letters ORDER BY position";
    let rows: Vec<(u64, String)> = annals.view::<Letters>().query(sql, (), |row| row.read()).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|(position, words)| (*position, words.as_str())).collect();
    assert_eq!(rows, [(2, "first"), (4, "sealed"), (6, "after it")]);
}

/// The parcels of an order, by which a part of an event commands.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "parcel")]
enum ParcelEvent {
    Noted { what: String },
}

#[derive(Clone, Debug, Default)]
struct Parcel(Vec<String>);

impl Aggregate for Parcel {
    const NAME: &'static str = "parcel";
    type Event = ParcelEvent;
    fn initial(_: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &ParcelEvent) {
        let ParcelEvent::Noted { what } = event;
        self.0.push(what.clone());
    }
}

struct Note(String);

#[derive(Debug, thiserror::Error)]
#[error("it is not noted")]
struct NotNoted;

impl Decide<Note> for Parcel {
    type Error = NotNoted;
    fn decide(&self, command: &Note, _: &Context) -> Decision<Self, NotNoted> {
        if command.0.contains("secret") {
            return reject(NotNoted);
        }
        emit(ParcelEvent::Noted { what: command.0.clone() })
    }
}

async fn note(event: &Recorded<OrderEvent>, handling: &Delivery) -> Result<(), HandlerError> {
    handling.execute::<Parcel, _>("all", Note(in_words(&event.event))).await?;
    Ok(())
}

/// The second part fails twice. The first is handled again each time, the third event only afterwards; and
/// what each part commanded has happened once.
#[tokio::test]
async fn when_a_part_fails_all_parts_are_handled_again_and_their_commands_are_executed_once() {
    let (store, annals) = log().await;
    store_raw(&*store, "o1", paid_and_shipped("p1")).await;
    store_raw(&*store, "o1", Former::Today(OrderEvent::Paid { cents: 9 }).stored()).await;
    let (handled, failures) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(0)));
    let handling_of = handled.clone();
    let subscriber =
        annals.subscribe("notes").retry(QUICKLY).on(move |event: Recorded<OrderEvent>, handling| {
            let (handled, failures) = (handling_of.clone(), failures.clone());
            async move {
                handled.lock().unwrap().push((event.position().get(), event.part, handling.attempt()));
                note(&event, &handling).await?;
                if event.part == 1 && failures.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(HandlerError::new("not now"));
                }
                Ok(())
            }
        });
    subscriber.start().await.unwrap();
    annals.settle().await.unwrap();
    let expected = [(1, 0, 1), (1, 1, 1), (1, 0, 2), (1, 1, 2), (1, 0, 3), (1, 1, 3), (2, 0, 1)];
    assert_eq!(*handled.lock().unwrap(), expected);
    let parcel = annals.repository::<Parcel>().load("all").await.unwrap();
    assert_eq!(parcel.state.0, ["paid 5", "shipped in p1", "paid 9"]);
}

#[tokio::test]
async fn a_part_that_ends_in_a_refusal_is_done_and_the_next_one_is_handled() {
    let (store, annals) = log().await;
    let secret = RawEvent::new("order.paid_and_shipped", 1, r#"{"cents":5,"parcel":"secret"}"#);
    store_raw(&*store, "o1", secret).await;
    store_raw(&*store, "o1", paid_and_shipped("p1")).await;
    let subscriber = annals
        .subscribe("notes")
        .retry(QUICKLY)
        .on(async |event: Recorded<OrderEvent>, handling: Delivery| note(&event, &handling).await);
    subscriber.start().await.unwrap();
    annals.settle().await.unwrap();
    let parcel = annals.repository::<Parcel>().load("all").await.unwrap();
    assert_eq!(parcel.state.0, ["paid 5", "paid 5", "shipped in p1"]);
    let status = annals.status().await.unwrap().remove(0);
    assert_eq!((status.refused, status.failing.is_none()), (1, true));
}

/// The same orders for a consumer that has stopped to care what is paid.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "order", dropped = "order.paid", upcasters = SPLIT)]
enum Shipment {
    Shipped { parcel: String },
}

const SPLIT: &[Upcaster] = &[OrderEvent::UPCASTERS[split()]];

const fn split() -> usize {
    let mut index = 0;
    while !matches!(OrderEvent::UPCASTERS[index].event_type().as_bytes(), b"order.paid_and_shipped") {
        index += 1;
    }
    index
}

/// Rows and keys of commands of before hold the number.
#[tokio::test]
async fn a_part_has_the_same_number_and_commands_after_the_part_before_it_was_dropped() {
    let (store, annals) = log().await;
    let subscriber = annals
        .subscribe("notes")
        .on(async |event: Recorded<OrderEvent>, handling: Delivery| note(&event, &handling).await);
    subscriber.start().await.unwrap();
    store_raw(&*store, "o1", paid_and_shipped("p1")).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    let noted = ["paid 5", "shipped in p1"];
    assert_eq!(annals.repository::<Parcel>().load("all").await.unwrap().state.0, noted);

    // The same subscriber of a later program, without its checkpoint: every event is delivered again.
    let annals = Annals::with_store(store.clone(), State::memory()).await.unwrap();
    let parts = Arc::new(Mutex::new(Vec::new()));
    let parts_of = parts.clone();
    let subscriber = annals.subscribe("notes").on(move |event: Recorded<Shipment>, handling: Delivery| {
        parts_of.lock().unwrap().push(event.part);
        async move {
            let Shipment::Shipped { parcel } = &event.event;
            handling.execute::<Parcel, _>("all", Note(format!("shipped in {parcel}"))).await?;
            Ok(())
        }
    });
    subscriber.start().await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(*parts.lock().unwrap(), [1]);
    let parcel = annals.repository::<Parcel>().load("all").await.unwrap();
    assert_eq!(parcel.state.0, noted, "its command was executed before, under the same key");
}

/// Also over dropped events alone, so that they are not read again at every start.
#[tokio::test]
async fn the_checkpoint_moves_over_events_that_are_dropped() {
    let (store, annals) = log().await;
    for _ in 0..5 {
        store_raw(&*store, "o1", Former::Viewed.stored()).await;
    }
    let heard = Arc::new(AtomicU32::new(0));
    let hearing = heard.clone();
    let subscriber = annals.subscribe("hears").on(move |_: Recorded<OrderEvent>, _| {
        hearing.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
    let given = Arc::default();
    let careful = Careful { refuses: Arc::default(), given: Arc::clone(&given) };
    annals.project(careful).start().await.unwrap();
    annals.settle().await.unwrap();
    let statuses = annals.status().await.unwrap();
    assert_eq!(statuses.len(), 2);
    for status in statuses {
        assert_eq!((status.position, status.phase), (store.head().await.unwrap(), Phase::Live), "{status:?}");
    }
    assert_eq!((heard.load(Ordering::SeqCst), given.lock().unwrap().len()), (0, 0));
    assert_eq!(careful_rows(&annals).await, []);
}
