//! Events of former shapes are read as today's, by every reader alike. What happens between the parts of one
//! event is in `upcasters_in_parts`.

use std::sync::{Arc, Mutex};

use annals::snapshot::every;
use annals::testing::{given, given_stored, given_view, given_view_stored, read_stored};
use annals::{
    Aggregate, Annals, Bytes, CodecError, ContentType, Event, EventStore, HandlerError, LoadError,
    MemorySnapshots, MemoryStore, Projection, RawEvent, Recorded, Snapshot, State, Tx, Upcaster,
};
use serde::{Deserialize, Serialize};

use crate::orders::{Former, InWords, Order, OrderEvent, Pay, in_words, one_of_each, rows_of, store_raw};

type Heard = Arc<Mutex<Vec<(u64, u32, String)>>>;

async fn on(store: &Arc<MemoryStore>) -> Annals {
    Annals::with_store(store.clone(), State::memory()).await.unwrap()
}

async fn hear(annals: &Annals) -> Heard {
    let heard = Heard::default();
    let hearing = heard.clone();
    let subscriber = annals.subscribe("hears").on(move |event: Recorded<OrderEvent>, _| {
        let words = format!("{}: {}", event.stream(), in_words(&event.event));
        hearing.lock().unwrap().push((event.position().get(), event.part, words));
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
    heard
}

/// The words of a stream that were heard.
fn words_of(heard: &Heard, order: &str) -> Vec<String> {
    let begin = format!("order-{order}: ");
    let heard = heard.lock().unwrap();
    heard.iter().filter_map(|(_, _, words)| words.strip_prefix(&begin)).map(str::to_owned).collect()
}

/// A chain of three versions, a renamed type, a split into two and a dropped one.
#[tokio::test]
async fn former_shapes_are_read_as_todays_by_every_reader() {
    let expected: Vec<String> =
        one_of_each().iter().flat_map(Former::today).map(|event| in_words(&event)).collect();
    assert_eq!(
        expected,
        [
            "a for 100 EUR",
            "b for 200 EUR",
            "c for 3 EUR",
            "d for 4 KRW",
            "paid 307",
            "shipped in p1",
            "paid 5"
        ]
    );
    let store = Arc::new(MemoryStore::new());
    let annals = on(&store).await;
    annals.project(InWords).start().await.unwrap();
    let heard = hear(&annals).await;
    for former in one_of_each() {
        store_raw(&*store, "o1", former.stored()).await;
    }
    annals.settle().await.unwrap();

    let orders = annals.repository::<Order>();
    let loaded = orders.load("o1").await.unwrap();
    assert_eq!((loaded.state.story.as_slice(), loaded.version.get()), (&expected[..], 9));
    assert_eq!(
        orders.at("o1", 7).await.unwrap().state.story,
        expected[..6],
        "both parts or none of version 7"
    );
    assert_eq!(orders.at("o1", 6).await.unwrap().state.story, expected[..4]);

    let changes = orders.history("o1").unwrap().all().await.unwrap();
    let of_changes: Vec<_> = changes.iter().map(|change| in_words(&change.event.event)).collect();
    assert_eq!(of_changes, expected);
    for (index, change) in changes.iter().enumerate() {
        assert_eq!(change.before.story, expected[..index]);
        assert_eq!(change.after.story, expected[..=index]);
    }
    let places: Vec<_> =
        changes.iter().map(|change| (change.event.version().get(), change.event.part)).collect();
    assert_eq!(places, [(2, 0), (3, 0), (5, 0), (6, 0), (7, 0), (7, 1), (8, 0)]);

    assert_eq!(rows_of(&annals, "o1").await, expected);
    assert_eq!(words_of(&heard, "o1"), expected);
    let heard: Vec<_> = heard.lock().unwrap().iter().map(|(position, part, _)| (*position, *part)).collect();
    assert_eq!(heard, places);

    let stored = || one_of_each().into_iter().map(|former| former.stored());
    assert_eq!(given_stored::<Order>(stored()).state().story, expected);
    given_stored::<Order>(stored()).when(Pay(7)).then([OrderEvent::Paid { cents: 7 }]);
    let words: Vec<[&str; 1]> = expected.iter().map(|words| [words.as_str()]).collect();
    given_view_stored(InWords, stored().map(|raw| ("order-o1", raw)))
        .then_rows("SELECT words FROM in_words ORDER BY position, part", words);
}

/// The small random numbers of a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn random_event(random: &mut Random) -> Former {
    let (item, parcel) = (format!("i{}", random.below(5)), format!("p{}", random.below(5)));
    let (euros, cents) = (random.below(1_000), random.below(100_000));
    match random.below(8) {
        0 => Former::Began { item, euros },
        1 => Former::PlacedV1 { item, euros },
        2 => Former::PlacedV2 { item, cents },
        3 => Former::PaidAndShipped { cents, parcel },
        4 => Former::Viewed,
        5 => Former::Today(OrderEvent::Placed { item, cents, currency: "KRW".into() }),
        6 => Former::Today(OrderEvent::Paid { cents }),
        _ => Former::Today(OrderEvent::Shipped { parcel }),
    }
}

/// What every reader makes of a log, for one order.
async fn everything_of(
    annals: &Annals,
    heard: &Heard,
    order: &str,
) -> (Order, Vec<(String, Order)>, Vec<String>, Vec<String>) {
    let orders = annals.repository::<Order>().snapshots(every(3));
    let loaded = orders.load(order).await.unwrap().state;
    assert_eq!(orders.load(order).await.unwrap().state, loaded, "with the snapshot that was taken");
    let changes = annals.repository::<Order>().history(order).unwrap().all().await.unwrap();
    let changes = changes.into_iter().map(|change| (in_words(&change.event.event), change.after)).collect();
    (loaded, changes, rows_of(annals, order).await, words_of(heard, order))
}

/// Reading with upcasters is reading a log that was written in today's shapes all along.
#[tokio::test]
async fn a_log_of_former_shapes_reads_as_one_that_was_written_today() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let (formers, todays) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
        let (former, today) = (on(&formers).await, on(&todays).await);
        let (mut heard, batch) = (Vec::new(), 1 + usize::try_from(random.below(4)).unwrap());
        for annals in [&former, &today] {
            annals.project(InWords).batch(batch).start().await.unwrap();
            heard.push(hear(annals).await);
        }
        for _ in 0..random.below(60) {
            let (order, event) = (format!("o{}", random.below(3)), random_event(&mut random));
            store_raw(&*formers, &order, event.stored()).await;
            for event in event.today() {
                store_raw(&*todays, &order, Former::Today(event).stored()).await;
            }
        }
        former.settle().await.unwrap();
        today.settle().await.unwrap();
        for order in ["o0", "o1", "o2"] {
            let expected = everything_of(&today, &heard[1], order).await;
            assert_eq!(
                everything_of(&former, &heard[0], order).await,
                expected,
                "seed {seed}, order {order}"
            );
        }
    }
}

#[tokio::test]
async fn a_command_that_is_repeated_has_its_first_events_in_todays_shape() {
    let store = Arc::new(MemoryStore::new());
    let annals = on(&store).await;
    let yesterday = annals.repository::<FormerOrder>();
    let first = yesterday.execute("o1", Begin).once("request-1").await.unwrap();
    assert_eq!(first.events, [FormerEvent::Began { item: "a".into(), euros: 2 }]);
    let again = annals.repository::<Order>().execute("o1", Pay(1)).once("request-1").await.unwrap();
    let placed = OrderEvent::Placed { item: "a".into(), cents: 200, currency: "EUR".into() };
    assert_eq!((again.events, again.duplicate, again.version), (vec![placed], true, first.version));
}

/// The aggregate as it was before: it counts how often it was viewed, too.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "order")]
enum FormerEvent {
    Began { item: String, euros: u64 },
    Viewed,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
struct FormerOrder {
    story: Vec<String>,
    owed: i64,
}

impl Aggregate for FormerOrder {
    const NAME: &'static str = "order";
    type Event = FormerEvent;
    fn initial(_: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &FormerEvent) {
        self.story.push(format!("{event:?}"));
    }
}

impl Snapshot for FormerOrder {}

struct Begin;

impl annals::Decide<Begin> for FormerOrder {
    type Error = std::convert::Infallible;
    fn decide(&self, _: &Begin, _: &annals::Context) -> annals::Decision<Self, Self::Error> {
        annals::emit(FormerEvent::Began { item: "a".into(), euros: 2 })
    }
}

#[tokio::test]
async fn a_snapshot_of_before_an_upcaster_is_not_used() {
    let store = Arc::new(MemoryStore::new());
    let annals = on(&store).await;
    let snapshots = Arc::new(MemorySnapshots::new(10));
    for former in [Former::Began { item: "a".into(), euros: 2 }, Former::Viewed] {
        let mut stored = former.stored();
        if stored.event_type.as_str() == "order.viewed" {
            stored = RawEvent::new("order.viewed", 1, "{}");
        }
        store_raw(&*store, "o1", stored).await;
    }
    let yesterday = annals.repository::<FormerOrder>().snapshots_in(snapshots.clone(), every(1));
    assert_eq!(yesterday.load("o1").await.unwrap().state.story.len(), 2);
    // The shape of the state is the same, and so are its name and its version.
    let today = annals.repository::<Order>().snapshots_in(snapshots.clone(), every(1));
    assert_eq!(today.load("o1").await.unwrap().state.story, ["a for 200 EUR"]);
    assert_eq!(today.load("o1").await.unwrap().state.owed, 200, "from its own snapshot");
}

#[tokio::test]
async fn an_unknown_type_is_an_error_with_its_place_and_a_remedy() {
    for (raw, problem) in [
        (RawEvent::new("order.sold", 1, "{}"), "`order.sold` is not a known event type"),
        (
            RawEvent::new("order.placed", 4, "{}"),
            "(schema version 4) cannot be read: this program supports schema versions up to 3",
        ),
        (RawEvent::new("order.began", 9, "{}"), "`order.placed` (schema version 9) cannot be read"),
        (
            RawEvent::new("order.placed", 1, "{}"),
            "`order.placed` (schema version 1) cannot be upcast: missing field `item`",
        ),
        (
            RawEvent::new("order.placed", 1, format!(r#"{{"item":"a","euros":{}}}"#, u64::MAX)),
            "(schema version 1) cannot be upcast: 18446744073709551615 euros are too many",
        ),
        (
            RawEvent::new("order.paid_and_shipped", 1, r#"{"cents":1,"parcel":"panic"}"#),
            "cannot be upcast: panicked: the code of an upcaster may panic",
        ),
        (
            RawEvent::new("order.paid_and_shipped", 2, "{}"),
            "`order.paid_and_shipped` is not a known event type",
        ),
        (
            RawEvent::new("order.paid", 1, r#"{"cents":1}"#).with_content_type(ContentType::Binary),
            "is application/octet-stream, and this program reads application/json",
        ),
    ] {
        let store = Arc::new(MemoryStore::new());
        let annals = on(&store).await;
        store_raw(&*store, "o1", Former::Viewed.stored()).await;
        store_raw(&*store, "o1", raw.clone()).await;
        let orders = annals.repository::<Order>();
        let error = orders.load("o1").await.unwrap_err();
        assert!(matches!(&error, LoadError::Unreadable { version, .. } if version.get() == 2), "{error}");
        let place = "event 2 of stream `order-o1` (position 2) cannot be read: ";
        let text = error.to_string();
        assert!(text.starts_with(place) && text.contains(problem), "{text}");
        assert_eq!(orders.history("o1").unwrap().next().await.unwrap_err().to_string(), text);
        assert!(text.ends_with(&read_stored::<OrderEvent>(raw).unwrap_err().to_string()));
        let stored =
            store.read_log(annals::contract::LogRead::forward(annals::Position::FIRST)).await.unwrap().events;
        let read = Recorded::<OrderEvent>::read(&stored[1]).unwrap_err();
        assert_eq!(read.to_string(), text);
        assert_eq!(Recorded::<OrderEvent>::read(&stored[0]).unwrap(), [], "it is dropped");
    }
}

#[tokio::test]
async fn a_history_of_dropped_events_alone_is_empty_and_continues() {
    let store = Arc::new(MemoryStore::new());
    let annals = on(&store).await;
    // More than a page.
    let stream = annals::StreamId::new("order-o1").unwrap();
    let many = (0..2_500).map(|_| crate::orders::new_event(Former::Viewed.stored()));
    store.append(annals::Append::to(&stream, annals::Expected::Any, many)).await.unwrap();
    let mut history = annals.repository::<Order>().history("o1").unwrap();
    assert!(history.next().await.unwrap().is_none());
    assert_eq!(annals.repository::<Order>().load("o1").await.unwrap().version.get(), 2_500);
    annals.repository::<Order>().execute("o1", Pay(3)).await.unwrap();
    assert_eq!(in_words(&history.next().await.unwrap().unwrap().event.event), "paid 3");
    assert!(history.next().await.unwrap().is_none());
}

// A table that cannot work.

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "ring", upcasters = RING)]
enum RingEvent {
    Begun,
}

const RING: &[Upcaster] = &[
    Upcaster::Renamed { former: "ring.one", event_type: "ring.other" },
    Upcaster::Renamed { former: "ring.other", event_type: "ring.one" },
];

#[derive(Clone, Debug, Default)]
struct Ring;

impl Aggregate for Ring {
    const NAME: &'static str = "ring";
    type Event = RingEvent;
    fn initial(_: &str) -> Self {
        Self
    }
    fn evolve(&mut self, _: &RingEvent) {}
}

struct Rings;

impl Projection for Rings {
    const NAME: &'static str = "rings";
    const SCHEMA: &'static str = "CREATE TABLE rings (ring TEXT)";
    type Event = RingEvent;
    fn apply(&self, _: &Recorded<RingEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test]
async fn upcasters_that_go_round_in_a_circle_are_refused_at_the_start() {
    let annals = on(&Arc::new(MemoryStore::new())).await;
    let refusals = [
        annals.project(Rings).start().await.unwrap_err().to_string(),
        annals
            .subscribe("rings")
            .on(|_: Recorded<RingEvent>, _| std::future::ready(Ok(())))
            .start()
            .await
            .unwrap_err()
            .to_string(),
        annals.repository::<Ring>().load("r1").await.unwrap_err().to_string(),
        annals.repository::<Ring>().history("r1").err().unwrap().to_string(),
        message(|| drop(given::<Ring>([]))),
        message(|| drop(given_stored::<Ring>([]))),
        message(|| drop(given_view(Rings, [("ring-1", RingEvent::Begun)]))),
    ];
    for refusal in refusals {
        assert!(refusal.contains("upcaster of `ring.one`: its output leads back to it"), "{refusal}");
    }
    // One who decodes without a start sees an end all the same.
    let error = read_stored::<RingEvent>(RawEvent::new("ring.one", 1, "{}")).unwrap_err();
    assert!(error.to_string().contains("form a cycle"), "{error}");
}

/// What a panic says.
fn message(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
    *std::panic::catch_unwind(work).unwrap_err().downcast::<String>().unwrap()
}

// Data that is not JSON.

/// Written as eight bytes since version 2, and as JSON before.
#[derive(Clone, Debug, PartialEq)]
struct Measured(u64);

impl Event for Measured {
    const TYPES: &'static [&'static str] = &["meter.measured"];
    const UPCASTERS: &'static [Upcaster] = &[Upcaster::Converted {
        event_type: "meter.measured",
        version: 1,
        into: &[("meter.measured", 2)],
        convert: |stored| {
            let data = Measured(stored.read::<u64>()?).encode()?;
            Ok(vec![RawEvent::new("meter.measured", 2, data).with_content_type(ContentType::Binary)])
        },
    }];
    fn event_type(&self) -> &'static str {
        Self::TYPES[0]
    }
    fn current_version(_: &str) -> u16 {
        2
    }
    fn content_type(_: &str) -> ContentType {
        ContentType::Binary
    }
    fn encode(&self) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(&self.0.to_be_bytes()))
    }
    fn decode(event_type: &str, schema_version: u16, data: &[u8]) -> Result<Self, CodecError> {
        let bytes = data[..].try_into().map_err(|_| CodecError::Decode {
            event_type: event_type.to_owned(),
            schema_version,
            cause: "it is not eight bytes long".into(),
        })?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Meter(Vec<u64>);

impl Aggregate for Meter {
    const NAME: &'static str = "meter";
    type Event = Measured;
    fn initial(_: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &Measured) {
        self.0.push(event.0);
    }
}

impl annals::Decide<u64> for Meter {
    type Error = std::convert::Infallible;
    fn decide(&self, command: &u64, _: &annals::Context) -> annals::Decision<Self, Self::Error> {
        annals::emit(Measured(*command))
    }
}

#[derive(Event, Clone, Debug, PartialEq)]
#[event(union)]
enum Either {
    Order(OrderEvent),
    Meter(Measured),
}

#[tokio::test]
async fn the_content_type_is_that_of_the_codec() {
    let store = Arc::new(MemoryStore::new());
    let annals = on(&store).await;
    let stream = annals::StreamId::new("meter-m1").unwrap();
    let json = crate::orders::new_event(RawEvent::new("meter.measured", 1, "7"));
    store.append(annals::Append::to(&stream, annals::Expected::Any, [json])).await.unwrap();
    let done = annals.repository::<Meter>().execute("m1", 8).await.unwrap();
    assert_eq!(done.state, Meter(vec![7, 8]));
    let stored =
        store.read_log(annals::contract::LogRead::forward(annals::Position::FIRST)).await.unwrap().events;
    assert_eq!(
        (&stored[1].content_type(), stored[1].data()),
        (&ContentType::Binary, &8_u64.to_be_bytes()[..])
    );
    // JSON under the version that is binary is not taken for eight bytes.
    let wrong = read_stored::<Measured>(RawEvent::new("meter.measured", 2, "12345678")).unwrap_err();
    assert!(matches!(wrong, CodecError::ContentType { .. }), "{wrong}");
    // A union has the content types, the versions and the upcasters of its members.
    let read: Vec<_> = stored.iter().flat_map(|stored| Recorded::<Either>::read(stored).unwrap()).collect();
    assert_eq!(
        read.iter().map(|event| &event.event).collect::<Vec<_>>(),
        [&Either::Meter(Measured(7)), &Either::Meter(Measured(8))]
    );
    assert_eq!((Either::current_version("meter.measured"), Either::current_version("order.placed")), (2, 3));
    assert_eq!(Either::content_type("order.placed"), ContentType::Json);
    let split = Former::PaidAndShipped { cents: 1, parcel: "p".into() };
    let expected: Vec<_> = split.today().into_iter().map(Either::Order).collect();
    assert_eq!(read_stored::<Either>(split.stored()).unwrap(), expected);
    let vendor = RawEvent::new("order.paid", 1, r#"{"cents":1}"#)
        .with_content_type(ContentType::new("application/x.order+json"));
    assert_eq!(
        read_stored::<OrderEvent>(vendor).unwrap(),
        [OrderEvent::Paid { cents: 1 }],
        "every JSON is JSON"
    );
}
