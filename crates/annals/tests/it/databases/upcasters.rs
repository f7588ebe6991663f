//! Events of former shapes in projections over a database: rows are those of today's events, with the
//! checkpoint and with an append.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals::{
    Annals, Append, Cause, Error, Event, EventStore, Expected, HandlerError, NewEvent, Phase, Position,
    Projection, RawEvent, Recorded, StreamId, Tx, Upcaster,
};
use serde::{Deserialize, Serialize};

use crate::databases::counter::{QUICKLY, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    former_shapes_are_rows_of_todays,
    an_inline_projection_takes_the_parts_of_an_event_with_the_append,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "parcel", dropped = "parcel.viewed", upcasters = SPLIT)]
enum ParcelEvent {
    #[event(version = 3, former_name = "parcel.put", upcast(1 = in_grams, 2 = with_place))]
    Packed {
        grams: u64,
        place: String,
    },
    Sent {
        to: String,
    },
}

const SPLIT: &[Upcaster] = &[Upcaster::Converted {
    event_type: "parcel.packed_and_sent",
    version: 1,
    into: &[("parcel.packed", 2), ("parcel.sent", 1)],
    convert: packed_and_sent,
}];

fn in_grams(former: serde_json::Value) -> Result<serde_json::Value, &'static str> {
    let kilos = former["kilos"].as_u64().ok_or("it has no weight")?;
    Ok(serde_json::json!({ "grams": kilos * 1_000 }))
}

fn with_place(mut former: serde_json::Value) -> Result<serde_json::Value, std::convert::Infallible> {
    former["place"] = "here".into();
    Ok(former)
}

fn packed_and_sent(stored: RawEvent) -> Result<Vec<RawEvent>, Cause> {
    let former: serde_json::Value = stored.read()?;
    let (packed, sent) =
        (serde_json::json!({ "grams": former["grams"] }), serde_json::json!({ "to": former["to"] }));
    Ok(vec![RawEvent::json("parcel.packed", 2, &packed)?, RawEvent::json("parcel.sent", 1, &sent)?])
}

#[derive(Clone, Default)]
struct Parcels {
    /// Whether nothing may be sent.
    refuses: Arc<AtomicBool>,
}

impl Projection for Parcels {
    const NAME: &'static str = "parcels";
    const SCHEMA: &'static str = "CREATE TABLE parcels (position BIGINT, part BIGINT, words VARCHAR(100))";
    type Event = ParcelEvent;

    fn apply(&self, event: &Recorded<ParcelEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let words = match &event.event {
            ParcelEvent::Packed { grams, place } => format!("{grams} g {place}"),
            ParcelEvent::Sent { .. } if self.refuses.load(Ordering::SeqCst) => {
                return Err(HandlerError::new("nothing is sent today"));
            }
            ParcelEvent::Sent { to } => format!("to {to}"),
        };
        rows.execute("INSERT INTO parcels VALUES (?1, ?2, ?3)", (event.position(), event.part, words))?;
        Ok(())
    }
}

async fn append(
    annals: &Annals,
    event_type: &str,
    version: u16,
    data: &'static str,
) -> annals::Result<Position> {
    let mut event = NewEvent::new(event_type, data).unwrap();
    event.schema_version = version;
    let append = Append::to(StreamId::new("parcel-1").unwrap(), Expected::Any, [event]);
    Ok(annals.store().append(append).await?.last)
}

async fn one_of_each(annals: &Annals) -> Position {
    let mut last = Position::ZERO;
    for (event_type, version, data) in [
        ("parcel.viewed", 4, "{}"),
        ("parcel.put", 1, r#"{"kilos":1}"#),
        ("parcel.packed", 1, r#"{"kilos":2}"#),
        ("parcel.packed", 2, r#"{"grams":3}"#),
        ("parcel.packed", 3, r#"{"grams":4,"place":"there"}"#),
        ("parcel.packed_and_sent", 1, r#"{"grams":5,"to":"kim"}"#),
        ("parcel.viewed", 1, "{}"),
    ] {
        last = append(annals, event_type, version, data).await.unwrap();
    }
    last
}

async fn rows(annals: &Annals, at_least: Position) -> Vec<(u64, u64, String)> {
    let view = annals.view::<Parcels>().at_least(at_least);
    let sql = "SELECT position, part, words FROM parcels ORDER BY position, part";
    view.query(sql, (), |row| row.read()).await.unwrap()
}

fn expected() -> Vec<(u64, u64, String)> {
    let expected = [
        (2, 0, "1000 g here"),
        (3, 0, "2000 g here"),
        (4, 0, "3 g here"),
        (5, 0, "4 g there"),
        (6, 0, "5 g here"),
        (6, 1, "to kim"),
    ];
    expected.map(|(position, part, words)| (position, part, words.to_owned())).into()
}

async fn former_shapes_are_rows_of_todays(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    let parcels = Parcels::default();
    parcels.refuses.store(true, Ordering::SeqCst);
    annals.project(parcels.clone()).retry(QUICKLY).start().await.unwrap();
    let last = one_of_each(&annals).await;
    // The second part of one fails: of the first, there is no row.
    until(&annals, "parcels", |status| status.failing.as_ref().is_some_and(|failing| failing.attempts > 1))
        .await;
    assert_eq!(rows(&annals, Position::ZERO).await, expected()[..4]);
    parcels.refuses.store(false, Ordering::SeqCst);
    assert_eq!(rows(&annals, last).await, expected());
    annals.settle().await.unwrap();
}

/// A program of before may append to a log in which a program of today has an inline projection.
async fn an_inline_projection_takes_the_parts_of_an_event_with_the_append(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    let parcels = Parcels::default();
    annals.project(parcels.clone()).retry(QUICKLY).inline().start().await.unwrap();
    until(&annals, "parcels", |status| status.phase == Phase::Live).await;
    one_of_each(&annals).await;
    let mut beside = place.beside().await;
    let sql = format!("SELECT COUNT(*) FROM {}$parcels_v1.parcels", place.name);
    assert_eq!(beside.number(&sql).await, 6, "seen by others without waiting");
    parcels.refuses.store(true, Ordering::SeqCst);
    let refused =
        append(&annals, "parcel.packed_and_sent", 1, r#"{"grams":6,"to":"lee"}"#).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Invalid(invalid) if invalid.problem.contains("nothing is sent today")),
        "{refused}"
    );
    let unreadable = append(&annals, "parcel.packed", 1, r#"{"pounds":6}"#).await.unwrap_err();
    assert!(
        matches!(&unreadable, Error::Invalid(invalid) if invalid.problem.contains("it has no weight")),
        "{unreadable}"
    );
    assert_eq!(beside.number(&sql).await, 6, "not even the part before");
    assert_eq!(rows(&annals, Position::ZERO).await, expected());
}
