//! A process of the old version stands still for a moment while one of the new version starts.

use std::time::Duration;

use annals::{Annals, HandlerError, Projection, Recorded, Tx};

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, increase, sum, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    rows_stay_as_long_as_a_process_of_their_version_runs,
    rows_removed_under_a_process_are_rebuilt,
    rows_are_not_rebuilt_with_another_schema_while_their_user_is_stuck,
    rows_of_an_older_version_of_annals_are_used,
    a_process_that_waits_says_for_what,
    a_checkpoint_that_cannot_be_read_stops_its_own_subscriber,
}

async fn rows_stay_as_long_as_a_process_of_their_version_runs(place: Place) {
    let url = place.url.clone();
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let old = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let old = Annals::open(&url).await.unwrap();
            old.project(Sums::<1>::default()).start().await.unwrap();
            increase(&old, "a", 5).await;
            old.settle().await.unwrap();
            ready.send(()).unwrap();
            // The process stands still, as on a virtual machine that is moved.
            resumed.recv().unwrap();
            let position = increase(&old, "a", 1).await;
            let view = old.view::<Sums<1>>().at_least(position).within(Duration::from_secs(30));
            let sql = "SELECT amount FROM sums WHERE counter = 'a'";
            view.one(sql, (), |row| row.read::<(u64,)>()).await.map_err(|error| error.to_string())
        })
    });
    is_ready.await.unwrap();
    // The server or the network was away for a moment; or the server has ended a session that was silent for
    // 30 seconds.
    assert!(place.cut().await > 0);
    let new = Annals::open(&place.url).await.unwrap();
    new.project(Sums::<2>::default()).start().await.unwrap();
    new.settle().await.unwrap();
    resume.send(()).unwrap();
    let seen = tokio::task::spawn_blocking(|| old.join().unwrap()).await.unwrap();
    assert_eq!(seen, Ok(Some((6,))), "the process of the old version has no rows any more");
}

/// Somebody removes the rows of a projection that runs.
async fn rows_removed_under_a_process_are_rebuilt(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Sums::<1>::default()).retry(QUICKLY).start().await.unwrap();
    increase(&annals, "a", 5).await;
    annals.settle().await.unwrap();
    let mut beside = place.beside().await;
    let schema = format!("{}$sums_v1", place.name);
    place.drop_schema(&schema).await;
    let position = increase(&annals, "a", 1).await;
    let status =
        until(&annals, "sums", |status| status.position >= position && status.failing.is_none()).await;
    assert!(status.notice.as_ref().is_some_and(|notice| notice.contains("rebuilt")), "{status:?}");
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((6, 2)));
    let holders = beside.number(&format!("SELECT count(*) FROM {schema}.annals_holders")).await;
    assert_eq!(holders, 1, "it is noted again that they are used");
}

/// The sums with another schema, and the same version.
struct OtherSchema;

impl Projection for OtherSchema {
    const NAME: &'static str = "sums";
    const SCHEMA: &'static str = "CREATE TABLE sums (counter VARCHAR(40) PRIMARY KEY, other BIGINT NOT NULL)";
    type Event = CounterEvent;
    fn apply(&self, _: &Recorded<CounterEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn rows_are_not_rebuilt_with_another_schema_while_their_user_is_stuck(place: Place) {
    let old = Annals::open(&place.url).await.unwrap();
    old.project(Sums::<1>::default()).start().await.unwrap();
    old.settle().await.unwrap();
    let mut beside = place.beside().await;
    let schema = format!("{}$sums_v1", place.name);
    // A process that has lost its connection, and one that nobody has seen for longer than that may take.
    let note = async |beside: &mut annals_testservers::place::Beside, age: &str| {
        let at = match place.is_postgres() {
            true => format!("now() + interval '{age}'"),
            false => format!("CURRENT_TIMESTAMP + INTERVAL {}", age.trim_end_matches('s')),
        };
        beside.run(&format!("DELETE FROM {schema}.annals_holders")).await;
        beside
            .run(&format!("INSERT INTO {schema}.annals_holders (instance, seen_at) VALUES ('x', {at})"))
            .await;
    };
    old.shutdown().await;
    let new = Annals::open(&place.url).await.unwrap();
    // A holder with a time in the future neither counts without an end nor is forgotten.
    for age in ["-9 minute", "30 day"] {
        note(&mut beside, age).await;
        let refused = new.project(OtherSchema).start().await.unwrap_err().to_string();
        assert!(refused.contains("raise VERSION") && refused.contains("process x, seen"), "{age}: {refused}");
    }
    let age = match place.is_postgres() {
        true => "extract(epoch FROM now() - seen_at)::bigint",
        false => "TIMESTAMPDIFF(SECOND, seen_at, CURRENT_TIMESTAMP)",
    };
    let seen = beside.number(&format!("SELECT {age} FROM {schema}.annals_holders")).await;
    assert!((0..600).contains(&seen), "it counts from when it was found: {seen}");
    note(&mut beside, "-11 minute").await;
    new.project(OtherSchema).start().await.unwrap();
}

/// Read models of versions of Annals that did not note when a process was seen.
async fn rows_of_an_older_version_of_annals_are_used(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    increase(&annals, "a", 5).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    let mut beside = place.beside().await;
    let schema = format!("{}$sums_v1", place.name);
    let key = if place.is_postgres() { "CONSTRAINT annals_checkpoint_pkey" } else { "PRIMARY KEY" };
    beside.run(&format!("ALTER TABLE {schema}.annals_holders DROP COLUMN seen_at")).await;
    beside.run(&format!("ALTER TABLE {schema}.annals_checkpoint DROP {key}")).await;
    beside.run(&format!("ALTER TABLE {}.checkpoints DROP COLUMN ladder", place.name)).await;
    beside.run(&format!("DELETE FROM {}.state_migrations WHERE step = 2", place.name)).await;
    let sums = Sums::<1>::default();
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(sums.clone()).start().await.unwrap();
    let position = increase(&annals, "a", 1).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((6, 2)));
    assert_eq!(sums.applied.load(std::sync::atomic::Ordering::SeqCst), 1, "the rows were resumed");
    let keys = format!(
        "SELECT count(*) FROM information_schema.table_constraints WHERE table_schema = '{schema}'
         AND table_name LIKE 'annals%' AND constraint_type = 'PRIMARY KEY'"
    );
    assert_eq!(beside.number(&keys).await, 2);
}

/// A process that stands by says for whom.
async fn a_process_that_waits_says_for_what(place: Place) {
    let systems = [Annals::open(&place.url).await.unwrap(), Annals::open(&place.url).await.unwrap()];
    for annals in &systems {
        annals.project(Sums::<1>::default()).start().await.unwrap();
        let subscriber = annals.subscribe("told");
        subscriber.on(|_: Recorded<CounterEvent>, _| std::future::ready(Ok(()))).start().await.unwrap();
        annals.settle().await.unwrap();
    }
    for name in ["sums", "told"] {
        let status = until(&systems[1], name, |status| {
            status.notice.as_ref().is_some_and(|notice| notice.contains("the lease held by connection"))
        });
        assert_eq!(status.await.phase, annals::Phase::Standby);
        assert_eq!(until(&systems[0], name, |_| true).await.notice, None);
    }
}

/// A row of the state that makes no sense stops its own subscriber.
async fn a_checkpoint_that_cannot_be_read_stops_its_own_subscriber(place: Place) {
    let start = async |annals: &Annals| {
        for (name, shares) in [("bad", 1), ("torn", 4), ("good", 1)] {
            let subscriber = annals.subscribe(name).partitions(shares).retry(QUICKLY);
            subscriber.on(|_: Recorded<CounterEvent>, _| std::future::ready(Ok(()))).start().await.unwrap();
        }
    };
    let annals = Annals::open(&place.url).await.unwrap();
    start(&annals).await;
    increase(&annals, "a", 5).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;
    let mut beside = place.beside().await;
    let torn = if place.is_postgres() { "'\\x00'" } else { "x'00'" };
    let table = format!("{}.checkpoints", place.name);
    beside.run(&format!("UPDATE {table} SET position = -5 WHERE subscriber = 'bad'")).await;
    beside.run(&format!("UPDATE {table} SET ladder = {torn} WHERE subscriber = 'torn/2 of 4'")).await;
    let annals = Annals::open(&place.url).await.unwrap();
    start(&annals).await;
    let position = increase(&annals, "a", 5).await;
    until(&annals, "good", |status| status.position == position && status.failing.is_none()).await;
    for name in ["bad", "torn"] {
        let status = until(&annals, name, |status| status.failing.is_some()).await;
        let error = status.failing.unwrap().error;
        assert!(error.contains(name) && error.contains("`checkpoints`"), "{error}");
    }
    beside.run(&format!("DELETE FROM {table} WHERE subscriber = 'bad'")).await;
    beside.run(&format!("DELETE FROM {table} WHERE subscriber = 'torn/2 of 4'")).await;
    for name in ["bad", "torn"] {
        until(&annals, name, |status| status.position == position && status.failing.is_none()).await;
    }
}
