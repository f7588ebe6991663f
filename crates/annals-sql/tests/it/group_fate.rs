//! Appends that are written together share a transaction, not a fate.

use std::sync::Arc;

use annals::{Append, Error, EventStore, EventStoreExt, Expected, NewEvent, Query, StreamId};

use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_row_that_the_database_refuses_refuses_its_append_alone,
    a_trigger_that_objects_refuses_its_append_alone,
}

fn append(number: usize, name: &str) -> Append {
    let event = NewEvent::new(name, "{}").unwrap();
    Append::to(StreamId::new(format!("thing-{number}")).unwrap(), Expected::NoStream, [event])
}

/// Appends many at once, of which some are of the type that the database does not take.
async fn append_many(place: &Place, refused: &[usize]) {
    let store: Arc<dyn EventStore> = annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    let appending: Vec<_> = (1..=64)
        .map(|number| {
            let (store, is_bad) = (store.clone(), refused.contains(&number));
            let append = append(number, if is_bad { "thing.refused" } else { "thing.done" });
            tokio::spawn(async move { store.append(append).await })
        })
        .collect();
    for (number, answer) in (1..).zip(appending) {
        match answer.await.unwrap() {
            Ok(_) => assert!(!refused.contains(&number), "append {number} is written"),
            Err(Error::Invalid(invalid)) => assert!(refused.contains(&number), "append {number}: {invalid}"),
            Err(error) => panic!("append {number}: {}", error.chain()),
        }
    }
    let log = store.log_events(Query::all()).await.unwrap();
    assert_eq!(log.len(), 64 - refused.len());
}

async fn a_row_that_the_database_refuses_refuses_its_append_alone(place: Place) {
    annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    let sql = format!(
        "ALTER TABLE {}.events ADD CONSTRAINT no_such CHECK (event_type <> 'thing.refused')",
        place.name
    );
    place.beside().await.run(&sql).await;
    append_many(&place, &[5, 6, 40]).await;
}

async fn a_trigger_that_objects_refuses_its_append_alone(place: Place) {
    annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    let name = &place.name;
    let sql = if place.is_postgres() {
        format!(
            "CREATE FUNCTION {name}.object() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE EXCEPTION 'not here'; END $$;
            CREATE TRIGGER object BEFORE INSERT ON {name}.events FOR EACH ROW
                WHEN (NEW.event_type = 'thing.refused') EXECUTE FUNCTION {name}.object()"
        )
    } else {
        format!(
            "CREATE TRIGGER {name}.object BEFORE INSERT ON {name}.events FOR EACH ROW
                IF NEW.event_type = 'thing.refused' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not here'; END IF"
        )
    };
    place.beside().await.run(&sql).await;
    append_many(&place, &[17]).await;
}
