//! One process: everything is in the database, resumes after a restart, and is made again when it must be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::snapshot::every;
use annals::{
    Annals, Error, EventStore, HandlerError, MemoryStore, Position, Projection, Recorded, State, Tx, Version,
};

use crate::databases::counter::{Counter, CounterEvent, Increase, QUICKLY, Sums, increase, sum};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    a_schema_that_the_database_refuses_is_invalid,
    everything_resumes_after_a_restart,
    snapshots_are_kept_and_used,
    a_changed_schema_is_rebuilt,
    unfinished_and_foreign_entries_are_distinguished,
    a_schema_that_is_wrong_leaves_nothing,
    an_event_that_fails_is_tried_again_and_leaves_nothing,
    the_state_of_an_embedded_log_may_lie_in_a_database,
    rows_that_the_log_does_not_know_are_rebuilt,
}

async fn subscribe(annals: &Annals, heard: &Arc<AtomicU64>) {
    let heard = heard.clone();
    let subscriber = annals.subscribe("heard").retry(QUICKLY).on(move |_: Recorded<CounterEvent>, _| {
        heard.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
}

async fn everything_resumes_after_a_restart(place: Place) {
    let heard = Arc::<AtomicU64>::default();
    for round in 1..=3 {
        let annals = Annals::open(&place.url).await.unwrap();
        let sums = Sums::<1>::default();
        let applied = sums.applied.clone();
        annals.project(sums).start().await.unwrap();
        subscribe(&annals, &heard).await;
        let position = increase(&annals, "a", round).await;
        assert_eq!(sum::<1>(&annals, "a", position).await, Some(((1..=round).sum(), round)));
        annals.settle().await.unwrap();
        assert_eq!(
            (applied.load(Ordering::SeqCst), heard.load(Ordering::SeqCst)),
            (1, round),
            "only what is new"
        );
        annals.shutdown().await;
    }
    let mut beside = place.beside().await;
    let name = &place.name;
    assert_eq!(beside.number(&format!("SELECT position FROM {name}.checkpoints")).await, 3);
    assert_eq!(beside.number(&format!("SELECT amount FROM {name}$sums_v1.sums")).await, 6);
    assert_eq!(beside.number(&format!("SELECT position FROM {name}$sums_v1.annals_checkpoint")).await, 3);
}

async fn snapshots_are_kept_and_used(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    let counters = annals.repository::<Counter>().snapshots(every(2));
    for _ in 0..20 {
        counters.execute("a", Increase(1)).await.unwrap();
    }
    annals.shutdown().await;
    let mut beside = place.beside().await;
    let count = format!("SELECT count(*) FROM {}.snapshots", place.name);
    assert_eq!(beside.number(&count).await, 4, "the newest ones");
    let annals = Annals::open(&place.url).await.unwrap();
    let counters = annals.repository::<Counter>().snapshots(every(2));
    assert_eq!(counters.load("a").await.unwrap().state.sum, 20);
    assert_eq!(counters.at("a", Version::new(15)).await.unwrap().state.sum, 15);
    // A snapshot that lies shows that it is used; one of another history that it is not believed.
    let lie = format!("UPDATE {}.snapshots SET snapshot_json = '{{\"sum\":1000}}'", place.name);
    beside.run(&lie).await;
    assert_eq!(counters.load("a").await.unwrap().state.sum, 1_000);
    let zero = if place.is_postgres() {
        "'00000000-0000-0000-0000-000000000000'"
    } else {
        "x'00000000000000000000000000000000'"
    };
    beside.run(&format!("UPDATE {}.snapshots SET event_id = {zero}", place.name)).await;
    assert_eq!(counters.load("a").await.unwrap().state.sum, 20);
    let wrong = format!("{count} WHERE event_id = {zero}");
    assert_eq!(beside.number(&wrong).await, 0, "what turned out wrong is forgotten");
}

/// `Sums` with another table, as if somebody had changed the schema and not the version.
struct Changed;
impl Projection for Changed {
    const NAME: &'static str = "sums";
    const SCHEMA: &'static str = "CREATE TABLE seen (position BIGINT PRIMARY KEY)";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        rows.execute("INSERT INTO seen VALUES (?1)", (event.position(),))?;
        Ok(())
    }
}

async fn a_changed_schema_is_rebuilt(place: Place) {
    let first = Annals::open(&place.url).await.unwrap();
    first.project(Sums::<1>::default()).start().await.unwrap();
    let position = increase(&first, "a", 5).await;
    assert_eq!(sum::<1>(&first, "a", position).await, Some((5, 1)));
    let second = Annals::open(&place.url).await.unwrap();
    let refused = second.project(Changed).start().await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
    assert!(refused.chain().contains("raise VERSION"), "{}", refused.chain());
    assert_eq!(sum::<1>(&first, "a", position).await, Some((5, 1)), "nothing was changed");
    first.shutdown().await;
    drop(first);
    // The lock of the first is free when its connection has ended.
    let mut started = second.project(Changed).start().await;
    for _ in 0..600 {
        if started.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        started = second.project(Changed).start().await;
    }
    started.unwrap();
    let view = second.view::<Changed>().at_least(position);
    assert_eq!(view.query("SELECT position FROM seen", (), |row| row.get::<u64>(0)).await.unwrap(), [1]);
}

async fn unfinished_and_foreign_entries_are_distinguished(place: Place) {
    let (mut beside, schema) = (place.beside().await, format!("{}$sums_v1", place.name));
    let annals = Annals::open(&place.url).await.unwrap();
    increase(&annals, "a", 5).await;
    let create = if place.is_postgres() {
        format!("CREATE SCHEMA \"{schema}\" AUTHORIZATION {}; SET ROLE {}", place.name, place.name)
    } else {
        format!("CREATE DATABASE `{schema}`")
    };
    beside.run(&create).await;
    beside.run(&format!("CREATE TABLE {schema}.theirs (a INTEGER)")).await;
    let refused = annals.project(Sums::<1>::default()).start().await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
    assert_eq!(
        beside.number(&format!("SELECT count(*) FROM {schema}.theirs")).await,
        0,
        "it is left as it is"
    );
    // What a process leaves that dies before the row of the checkpoint is written.
    let columns = "projection VARCHAR(100), store_id VARCHAR(1), definition VARCHAR(1), position BIGINT, event_id VARCHAR(1)";
    beside.run(&format!("CREATE TABLE {schema}.annals_checkpoint ({columns})")).await;
    annals.project(Sums::<1>::default()).start().await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(sum::<1>(&annals, "a", Position::FIRST).await, Some((5, 1)));
    struct Alike;
    impl Projection for Alike {
        const NAME: &'static str = "Sums";
        const SCHEMA: &'static str = "";
        type Event = CounterEvent;
        fn apply(&self, _: &Recorded<CounterEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
            Ok(())
        }
    }
    let refused = annals.project(Alike).start().await.unwrap_err().chain();
    assert!(refused.contains("call it otherwise"), "{refused}");
}

async fn a_schema_that_is_wrong_leaves_nothing(place: Place) {
    struct Wrong;
    impl Projection for Wrong {
        const NAME: &'static str = "wrong";
        const SCHEMA: &'static str = "CREATE TABLE good (a INTEGER); CREATE TABEL x";
        type Event = CounterEvent;
        fn apply(&self, _: &Recorded<CounterEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
            Ok(())
        }
    }
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..2 {
        let refused = annals.project(Wrong).start().await.unwrap_err().chain();
        assert!(refused.contains("TABEL"), "{refused}");
        let left = place.beside().await.schemas(&format!("{}$", place.name)).await;
        assert!(left.is_empty(), "{left:?}");
    }
}

async fn an_event_that_fails_is_tried_again_and_leaves_nothing(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    let sums = Sums::<1>::default();
    let superstitious = sums.superstitious.clone();
    superstitious.store(true, Ordering::SeqCst);
    for by in [1, 2, 13, 4] {
        increase(&annals, "a", by).await;
    }
    annals.project(sums).retry(QUICKLY).start().await.unwrap();
    let failing =
        |status: &annals::Status| status.failing.as_ref().is_some_and(|failing| failing.attempts > 3);
    let status = crate::databases::counter::until(&annals, "sums", failing).await;
    assert_eq!(status.position.get(), 2);
    let failing = status.failing.unwrap();
    assert_eq!(failing.position, Some(Position::new(3)));
    assert!(failing.error.contains("bad luck"), "{}", failing.error);
    assert_eq!(sum::<1>(&annals, "a", Position::ZERO).await, Some((3, 2)), "those before it are done");
    superstitious.store(false, Ordering::SeqCst);
    annals.settle().await.unwrap();
    assert_eq!(sum::<1>(&annals, "a", Position::ZERO).await, Some((20, 4)));
}

async fn the_state_of_an_embedded_log_may_lie_in_a_database(place: Place) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display()).parse().unwrap();
    for round in 1..=2 {
        let store = annals::open_store(&url).await.unwrap();
        let annals = Annals::with_store(store, State::database(&place.url).unwrap()).await.unwrap();
        annals.project(Sums::<1>::default()).start().await.unwrap();
        let position = increase(&annals, "a", 5).await;
        assert_eq!(sum::<1>(&annals, "a", position).await, Some((5 * round, round)));
        struct Other;
        impl Projection for Other {
            const NAME: &'static str = "other";
            const SCHEMA: &'static str = "";
            type Event = CounterEvent;
            fn apply(&self, _: &Recorded<CounterEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
                Ok(())
            }
        }
        let refused = annals.project(Other).inline().start().await.unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
        annals.shutdown().await;
    }
    // Another log's is refused and left as it is.
    let other: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
    let refused = Annals::with_store(other, State::database(&place.url).unwrap()).await.err().unwrap();
    assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
    assert!(State::database("file:./data").is_err());
}

async fn rows_that_the_log_does_not_know_are_rebuilt(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    let position = increase(&annals, "a", 5).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((5, 1)));
    annals.shutdown().await;
    let mut beside = place.beside().await;
    let schema = format!("{}$sums_v1", place.name);
    let zero = if place.is_postgres() {
        "'00000000-0000-0000-0000-000000000000'"
    } else {
        "x'00000000000000000000000000000000'"
    };
    for lie in ["position = 7".to_owned(), format!("event_id = {zero}")] {
        beside.run(&format!("UPDATE {schema}.sums SET amount = 1000")).await;
        beside.run(&format!("UPDATE {schema}.annals_checkpoint SET {lie}")).await;
        let annals = Annals::open(&place.url).await.unwrap();
        annals.project(Sums::<1>::default()).start().await.unwrap();
        assert_eq!(sum::<1>(&annals, "a", position).await, Some((5, 1)), "{lie}");
        annals.shutdown().await;
    }
}

struct Misspelt;

impl Projection for Misspelt {
    const NAME: &'static str = "misspelt";
    const SCHEMA: &'static str = "CREATE TABEL seen (position BIGINT PRIMARY KEY)";
    type Event = CounterEvent;
    fn apply(&self, _: &Recorded<CounterEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn a_schema_that_the_database_refuses_is_invalid(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    let refused = annals.project(Misspelt).start().await.err().unwrap();
    assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
    assert!(refused.to_string().contains("has a SCHEMA that the database refuses"), "{refused}");
}
