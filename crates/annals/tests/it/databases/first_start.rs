//! The first start of everything that there is, by several processes at once; and tables that are published.

use annals::{Annals, EventStore as _, HandlerError, Phase, Projection, Recorded, Tx};
use annals_testservers::server;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use crate::databases::counter::{CounterEvent, Sums, increase, sum, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    everything_is_started_by_several_processes_at_once,
    what_only_reads_makes_no_log,
    an_error_of_the_database_is_reported_without_the_librarys_words,
}

async fn an_error_of_the_database_is_reported_without_the_librarys_words(place: Place) {
    let (server, _) = place.url.rsplit_once('/').unwrap();
    let refused = Annals::open(&format!("{server}/nowhere")).await.map(drop).unwrap_err().chain();
    let is_code = |code: &str| refused.ends_with(&format!(" ({code})"));
    assert!(["3D000", "1044", "1049"].into_iter().any(is_code), "{refused}");
    assert!(!refused.contains("at line") && !refused.contains("returned from"), "{refused}");
}

async fn what_only_reads_makes_no_log(place: Place) {
    let url = place.url.parse().unwrap();
    for _ in 0..2 {
        // Had the first one made tables, the second would find a log.
        let refused = annals::open_store_to_read(&url).await.map(drop).unwrap_err();
        assert!(matches!(refused, annals::Error::NoStore(_)), "{}", refused.chain());
        assert!(refused.chain().contains("there is no log"), "{}", refused.chain());
    }
    let annals = Annals::open(&place.url).await.unwrap();
    let position = increase(&annals, "a", 1).await;
    let store = annals::open_store_to_read(&url).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(store.head().await.unwrap(), position);
}

/// Another read model, which is inline.
struct Count;

impl Projection for Count {
    const NAME: &'static str = "count";
    const SCHEMA: &'static str = "CREATE TABLE counted (position BIGINT PRIMARY KEY)";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        rows.execute("INSERT INTO counted VALUES (?1)", (event.position().get(),))?;
        Ok(())
    }
}

async fn everything_is_started_by_several_processes_at_once(place: Place) {
    let mut systems = Vec::new();
    for _ in 0..4 {
        systems.push(Annals::open(&place.url).await.unwrap());
    }
    increase(&systems[0], "a", 1).await;
    let starts = systems.iter().map(|annals| {
        let annals = annals.clone();
        tokio::spawn(async move {
            annals.project(Sums::<1>::default()).start().await?;
            annals.project(Count).inline().start().await?;
            for round in 0..10 {
                let handle = |_: Recorded<CounterEvent>, _| std::future::ready(Ok(()));
                annals.subscribe(format!("one-{round}")).on(handle).start().await?;
                annals.subscribe(format!("new-{round}")).from_now().on(handle).start().await?;
                annals.subscribe(format!("some-{round}")).from_now().partitions(3).on(handle).start().await?;
            }
            annals::Result::Ok(())
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap_or_else(|error: annals::Error| panic!("{}", error.chain()));
    }
    for annals in &systems {
        let position = increase(annals, "a", 1).await;
        assert_eq!(sum::<1>(annals, "a", position).await, Some((position.get(), position.get())));
    }
    for annals in &systems {
        annals.settle().await.unwrap();
        until(annals, "count", |status| matches!(status.phase, Phase::Live | Phase::Standby)).await;
    }
}

/// A table without a key cannot be changed while it is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_tables_can_be_published() {
    let server = server::newest_postgres(&["fsync=off", "wal_level=logical"]);
    let mut owner = PgConnection::connect(&server.url()).await.unwrap();
    owner.execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    for inline in [false, true] {
        let annals = Annals::open(&format!("{}?schema=log_{inline}", server.url())).await.unwrap();
        match inline {
            true => annals.project(Sums::<1>::default()).inline().start().await.unwrap(),
            false => annals.project(Sums::<1>::default()).start().await.unwrap(),
        }
        let subscriber = annals.subscribe("told").partitions(2);
        subscriber.on(|_: Recorded<CounterEvent>, _| std::future::ready(Ok(()))).start().await.unwrap();
        for _ in 0..3 {
            let position = increase(&annals, "a", 1).await;
            assert_eq!(sum::<1>(&annals, "a", position).await, Some((position.get(), position.get())));
        }
        annals.settle().await.unwrap();
        assert!(annals.status().await.unwrap().iter().all(|status| status.failing.is_none()));
        annals.shutdown().await;
    }
}
