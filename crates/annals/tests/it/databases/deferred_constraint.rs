//! A constraint that PostgreSQL looks at when the transaction ends refuses one append, as any other
//! constraint does.

use annals::{
    Annals, Append, Error, Event, Expected, HandlerError, NewEvent, Projection, Recorded, StreamId, Tx,
};

use crate::databases::counter::CounterEvent;
use annals_testservers::place::Place;

/// No number twice, which is looked at when the transaction ends.
struct Seats;

impl Projection for Seats {
    const NAME: &'static str = "seats";
    const SCHEMA: &'static str = "CREATE TABLE seats (
        counter VARCHAR(40) NOT NULL, seat BIGINT NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let CounterEvent::Increased { by } = event.event;
        rows.execute("INSERT INTO seats VALUES (?1, ?2)", (event.aggregate_id(), by))?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_constraint_that_is_deferred_refuses_its_append_alone() {
    let place = Place::postgres().await;
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Seats).inline().start().await.unwrap();
    let append = |counter: &str, seat| {
        let event = CounterEvent::Increased { by: seat };
        let event = NewEvent::new(event.event_type(), event.encode().unwrap()).unwrap();
        let append = Append::to(StreamId::new(format!("counter-{counter}")).unwrap(), Expected::Any, [event]);
        let store = annals.store().clone();
        tokio::spawn(async move { store.append(append).await })
    };
    append("a", 1).await.unwrap().unwrap();
    annals.settle().await.unwrap();
    // The first one is under way; the others make a group. Seat 1 is taken.
    let all: Vec<_> = (0..8).map(|n| append(&format!("c{n}"), if n == 4 { 1 } else { 100 + n })).collect();
    let mut answers = Vec::new();
    for one in all {
        answers.push(one.await.unwrap());
    }
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Ok(_) => assert_ne!(number, 4),
            Err(Error::Invalid(_)) => assert_eq!(number, 4),
            Err(error) => panic!("append {number}: {}", error.chain()),
        }
    }
}
