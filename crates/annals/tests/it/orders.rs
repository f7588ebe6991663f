//! Orders, whose events have had other shapes and names. `Order` and `OrderEvent` are today's; `Former`
//! writes what earlier programs wrote.
//!
//! ```text
//! order.began v1 {item, euros}                     renamed: order.placed v1
//! order.placed v1 {item, euros}                    -> v2 {item, cents} -> v3 {item, cents, currency}
//! order.paid_and_shipped v1 {cents, parcel}        -> order.paid v1, order.shipped v1
//! order.viewed                                     dropped
//! ```

use annals::{
    Aggregate, Annals, Append, Cause, Context, Decide, Decision, Event, EventStore, Expected, HandlerError,
    NewEvent, Projection, RawEvent, Recorded, Snapshot, StreamId, Tx, Upcaster, emit, no_events,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "order", dropped = "order.viewed", upcasters = PAID_AND_SHIPPED)]
pub enum OrderEvent {
    #[event(version = 3, former_name = "order.began", upcast(1 = in_cents, 2 = with_currency))]
    Placed {
        item: String,
        cents: u64,
        currency: String,
    },
    Paid {
        cents: u64,
    },
    Shipped {
        parcel: String,
    },
}

const PAID_AND_SHIPPED: &[Upcaster] = &[Upcaster::Converted {
    event_type: "order.paid_and_shipped",
    version: 1,
    into: &[("order.paid", 1), ("order.shipped", 1)],
    convert: paid_and_shipped,
}];

#[derive(Deserialize)]
struct PlacedV1 {
    item: String,
    euros: u64,
}

#[derive(Serialize, Deserialize)]
struct PlacedV2 {
    item: String,
    cents: u64,
}

fn in_cents(former: PlacedV1) -> Result<PlacedV2, String> {
    let PlacedV1 { item, euros } = former;
    let cents = euros.checked_mul(100).ok_or_else(|| format!("{euros} euros are too many"))?;
    Ok(PlacedV2 { item, cents })
}

fn with_currency(former: PlacedV2) -> Result<OrderPlaced, std::convert::Infallible> {
    let PlacedV2 { item, cents } = former;
    Ok(OrderPlaced { item, cents, currency: "EUR" })
}

#[derive(Serialize)]
struct OrderPlaced {
    item: String,
    cents: u64,
    currency: &'static str,
}

fn paid_and_shipped(stored: RawEvent) -> Result<Vec<RawEvent>, Cause> {
    #[derive(Deserialize)]
    struct PaidAndShipped {
        cents: u64,
        parcel: String,
    }
    let PaidAndShipped { cents, parcel } = stored.read()?;
    assert!(parcel != "panic", "the code of an upcaster may panic");
    let (paid, shipped) = (OrderEvent::Paid { cents }, OrderEvent::Shipped { parcel });
    [paid, shipped].iter().map(|event| Ok(RawEvent::new(event.event_type(), 1, event.encode()?))).collect()
}

/// An event as an earlier program wrote it.
#[derive(Clone, Debug)]
pub enum Former {
    Began { item: String, euros: u64 },
    PlacedV1 { item: String, euros: u64 },
    PlacedV2 { item: String, cents: u64 },
    PaidAndShipped { cents: u64, parcel: String },
    Viewed,
    Today(OrderEvent),
}

impl Former {
    /// As it is stored.
    pub fn stored(&self) -> RawEvent {
        match self {
            Self::Began { item, euros } => {
                raw("order.began", 1, format!(r#"{{"item":"{item}","euros":{euros}}}"#))
            }
            Self::PlacedV1 { item, euros } => {
                raw("order.placed", 1, format!(r#"{{"item":"{item}","euros":{euros}}}"#))
            }
            Self::PlacedV2 { item, cents } => {
                raw("order.placed", 2, format!(r#"{{"item":"{item}","cents":{cents}}}"#))
            }
            Self::PaidAndShipped { cents, parcel } => {
                raw("order.paid_and_shipped", 1, format!(r#"{{"cents":{cents},"parcel":"{parcel}"}}"#))
            }
            Self::Viewed => raw("order.viewed", 7, "whatever it was".to_owned()),
            Self::Today(event) => {
                RawEvent::new(event.event_type(), event.schema_version(), event.encode().unwrap())
            }
        }
    }

    /// What would be written for the same today.
    pub fn today(&self) -> Vec<OrderEvent> {
        let placed = |item: &String, cents| {
            vec![OrderEvent::Placed { item: item.clone(), cents, currency: "EUR".into() }]
        };
        match self {
            Self::Began { item, euros } | Self::PlacedV1 { item, euros } => placed(item, euros * 100),
            Self::PlacedV2 { item, cents } => placed(item, *cents),
            Self::PaidAndShipped { cents, parcel } => {
                vec![OrderEvent::Paid { cents: *cents }, OrderEvent::Shipped { parcel: parcel.clone() }]
            }
            Self::Viewed => Vec::new(),
            Self::Today(event) => vec![event.clone()],
        }
    }
}

fn raw(event_type: &str, version: u16, data: String) -> RawEvent {
    RawEvent::new(event_type, version, data)
}

/// As it is appended.
pub fn new_event(raw: RawEvent) -> NewEvent {
    let mut new = NewEvent::new(raw.event_type.as_str(), raw.data).unwrap();
    (new.schema_version, new.content_type) = (raw.schema_version, raw.content_type);
    new
}

/// Appends an event to the stream of an order, as it is stored.
pub async fn store_raw(store: &dyn EventStore, order: &str, raw: RawEvent) {
    let stream = StreamId::new(format!("order-{order}")).unwrap();
    store.append(Append::to(&stream, Expected::Any, [new_event(raw)])).await.unwrap();
}

/// One of each, in the order in which they may happen.
pub fn one_of_each() -> Vec<Former> {
    vec![
        Former::Viewed,
        Former::Began { item: "a".into(), euros: 1 },
        Former::PlacedV1 { item: "b".into(), euros: 2 },
        Former::Viewed,
        Former::PlacedV2 { item: "c".into(), cents: 3 },
        Former::Today(OrderEvent::Placed { item: "d".into(), cents: 4, currency: "KRW".into() }),
        Former::PaidAndShipped { cents: 307, parcel: "p1".into() },
        Former::Today(OrderEvent::Paid { cents: 5 }),
        Former::Viewed,
    ]
}

/// What has happened to an order, in words.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Order {
    pub story: Vec<String>,
    pub owed: i64,
}

pub fn in_words(event: &OrderEvent) -> String {
    match event {
        OrderEvent::Placed { item, cents, currency } => format!("{item} for {cents} {currency}"),
        OrderEvent::Paid { cents } => format!("paid {cents}"),
        OrderEvent::Shipped { parcel } => format!("shipped in {parcel}"),
    }
}

impl Aggregate for Order {
    const NAME: &'static str = "order";
    type Event = OrderEvent;
    fn initial(_: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &OrderEvent) {
        self.story.push(in_words(event));
        match event {
            OrderEvent::Placed { cents, .. } => self.owed += i64::try_from(*cents).unwrap(),
            OrderEvent::Paid { cents } => self.owed -= i64::try_from(*cents).unwrap(),
            OrderEvent::Shipped { .. } => {}
        }
    }
}

impl Snapshot for Order {}

/// A payment of this many cents; no payment if it is 0.
pub struct Pay(pub u64);

impl Decide<Pay> for Order {
    type Error = std::convert::Infallible;
    fn decide(&self, command: &Pay, _: &Context) -> Decision<Self, Self::Error> {
        if command.0 == 0 { no_events() } else { emit(OrderEvent::Paid { cents: command.0 }) }
    }
}

/// One row for each part of an event, with the order in which they were given.
pub struct InWords;

impl Projection for InWords {
    const NAME: &'static str = "in_words";
    const SCHEMA: &'static str =
        "CREATE TABLE in_words (position BIGINT, part BIGINT, stream VARCHAR(100), words VARCHAR(100))";
    type Event = OrderEvent;
    fn apply(&self, event: &Recorded<OrderEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let row = (event.position(), event.part, event.stream(), in_words(&event.event));
        rows.execute("INSERT INTO in_words VALUES (?1, ?2, ?3, ?4)", row)?;
        Ok(())
    }
}

/// The rows of a stream, in order.
pub async fn rows_of(annals: &Annals, order: &str) -> Vec<String> {
    let sql = "SELECT words FROM in_words WHERE stream = ?1 ORDER BY position, part";
    let stream = format!("order-{order}");
    annals.view::<InWords>().query(sql, (stream.as_str(),), |row| row.get(0)).await.unwrap()
}
