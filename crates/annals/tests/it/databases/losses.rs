//! A failover that loses events: the primary ends, a standby that did not have the newest events is promoted,
//! and the address leads to it. Readers step back to the last event in common, and rows show what the log
//! has.

use std::sync::Arc;
use std::time::Duration;

use annals::{
    Annals, Append, Error, EventStore, Expected, IdempotencyKey, NewEvent, Position, Recorded, State,
    StreamId, Tenants,
};
use annals_testservers::proxy::Proxy;
use annals_testservers::server::{self, Server};
use parking_lot::Mutex;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, increase, sum, until};
use annals_testservers::place::Place;

/// A primary, a standby, and an address that leads to one of them.
struct Servers {
    primary: Server,
    standby: Server,
    address: Proxy,
}

impl Servers {
    async fn start() -> Self {
        let primary = server::newest_postgres(&["fsync=off", "synchronous_commit=local"]);
        let standby = primary.standby();
        let address = Proxy::to(&primary.url());
        Self { primary, standby, address }
    }

    /// Waits until the standby has everything, and stops it from getting more.
    async fn cut_off(&self) {
        let mut primary = PgConnection::connect(&self.primary.url()).await.unwrap();
        let caught_up =
            "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_insert_lsn()";
        while primary.fetch_one(caught_up).await.unwrap().get::<i64, _>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut standby = PgConnection::connect(&self.standby.url()).await.unwrap();
        standby.execute("ALTER SYSTEM SET primary_conninfo TO ''").await.unwrap();
        standby.execute("SELECT pg_reload_conf()").await.unwrap();
        let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
        while standby.fetch_one(receivers).await.unwrap().get::<i64, _>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The standby takes over.
    async fn fail_over(&mut self) {
        self.primary.crash();
        let mut standby = PgConnection::connect(&self.standby.url()).await.unwrap();
        standby.execute("SELECT pg_promote()").await.unwrap();
        self.address.lead_to(&self.standby.url());
    }
}

type Heard = Arc<Mutex<Vec<u64>>>;

async fn hear(annals: &Annals) -> Heard {
    let heard = Heard::default();
    let hearing = heard.clone();
    let subscriber = annals.subscribe("hears").retry(QUICKLY).on(move |event: Recorded<CounterEvent>, _| {
        let CounterEvent::Increased { by } = event.event;
        hearing.lock().push(by);
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
    heard
}

async fn until_heard(heard: &Heard, wanted: &[u64]) {
    let all = async {
        while heard.lock().len() < wanted.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .unwrap_or_else(|_| panic!("{:?}", heard.lock()));
    assert_eq!(std::mem::take(&mut *heard.lock()), wanted);
}

/// The state is beside the log, or where nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_step_back_when_a_failover_loses_events() {
    for state_is_elsewhere in [true, false] {
        let mut servers = Servers::start().await;
        let directory = tempfile::tempdir().unwrap();
        let annals = match state_is_elsewhere {
            true => {
                let store = annals::open_store(&servers.address.url().parse().unwrap()).await.unwrap();
                Annals::with_store(store, State::directory(directory.path())).await.unwrap()
            }
            false => Annals::open(servers.address.url()).await.unwrap(),
        };
        let heard = hear(&annals).await;
        annals.project(Sums::<1>::default()).retry(QUICKLY).start().await.unwrap();
        for by in 1..=5 {
            increase(&annals, "a", by).await;
        }
        annals.settle().await.unwrap();
        until_heard(&heard, &[1, 2, 3, 4, 5]).await;
        servers.cut_off().await;
        for by in 6..=8 {
            increase(&annals, "a", by).await;
        }
        annals.settle().await.unwrap();
        until_heard(&heard, &[6, 7, 8]).await;
        servers.fail_over().await;
        // Another process appends at once: the log is as long as it was, and longer.
        let other = Annals::open(&servers.standby.url()).await.unwrap();
        for by in 101..=104 {
            increase(&other, "a", by).await;
        }
        until_heard(&heard, &[101, 102, 103, 104]).await;
        let status = until(&annals, "hears", |status| status.position.get() == 9).await;
        if state_is_elsewhere {
            assert!(
                status.notice.as_ref().is_some_and(|notice| notice.contains("stepped back")),
                "{status:?}"
            );
        }
        until(&annals, "sums", |status| status.position.get() == 9).await;
        let made = async {
            while sum::<1>(&annals, "a", annals::Position::new(9)).await != Some((425, 9)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), made).await.expect("the rows show what the log has");
        other.shutdown().await;
    }
}

async fn note(log: &dyn EventStore) -> Position {
    let event = NewEvent::new("thing.noted", "{}").unwrap();
    let append = Append::to(StreamId::new("note-1").unwrap(), Expected::Any, [event]);
    log.append(append).await.unwrap().last
}

/// The directory is on the servers: what is said at the standby takes the positions of what was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn moves_are_followed_although_the_directory_lost_events() {
    let mut servers = Servers::start().await;
    let (one, two, three) =
        (Place::postgres().await.url, Place::postgres().await.url, Place::postgres().await.url);
    let tenants = Tenants::open(servers.address.url()).await.unwrap();
    tenants.add("acme", &one).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    note(&*log).await;
    servers.cut_off().await;
    tenants.move_to("acme", &two, |_| {}).await.unwrap();
    let head = note(&*log).await;
    let directory = annals::open_store(&servers.address.url().parse().unwrap()).await.unwrap();
    for _ in 0..20 {
        note(&*directory).await;
    }
    servers.fail_over().await;
    // The directory says that the log is where it was before.
    let other = Tenants::open(&servers.standby.url()).await.unwrap();
    assert_eq!(other.place("acme").await.unwrap(), Some(one.clone()));
    // Somebody begins the move again, and wants to call it off.
    let begun = tokio::spawn({
        let (other, two) = (other.clone(), two.clone());
        async move { other.move_to("acme", &two, |_| panic!("that is far enough")).await }
    });
    assert!(begun.await.is_err(), "it was broken off");
    let refused = other.move_to("acme", &one, |_| {}).await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid(_)), "{}", refused.chain());
    assert!(refused.chain().contains("again"), "{}", refused.chain());
    for _ in 0..20 {
        assert_eq!(log.head().await.unwrap(), head, "it is not led back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    other.move_to("acme", &two, |_| {}).await.unwrap();
    assert_eq!(note(&*log).await, head.next());
    other.move_to("acme", &three, |_| {}).await.unwrap();
    // By a process that only reads: it learns of the move from the directory alone.
    let there = other.log("acme").await.unwrap();
    let head = note(&*there).await;
    let followed = tokio::time::timeout(Duration::from_secs(120), log.wait(head.previous())).await;
    assert_eq!(followed.expect("the last move is followed").unwrap(), head);
}

/// Between the look for a key and the look at its append the log loses that append.
#[tokio::test]
async fn the_outcome_of_a_key_is_not_that_of_what_took_its_position() {
    let store = annals_testkit::failover::Failover::new();
    let append = |count: usize, key: &str| {
        let events = (0..count).map(|_| NewEvent::new("thing.done", "{}").unwrap());
        let append = Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, events.collect::<Vec<_>>());
        append.once(IdempotencyKey::new(key).unwrap())
    };
    let key = IdempotencyKey::new("mine").unwrap();
    for (mine, others) in [(1, 1), (40, 40), (1, 0)] {
        store.lose(Position::ZERO, []).await;
        let appended = store.append(append(mine, "mine")).await.unwrap();
        let outcome = annals_sql::outcome_at(&*store, appended.first, &key).await.unwrap();
        assert_eq!(outcome.map(|outcome| outcome.last), Some(appended.last));
        store.lose(Position::ZERO, (others > 0).then(|| append(others, "another"))).await;
        assert_eq!(annals_sql::outcome_at(&*store, appended.first, &key).await.unwrap(), None);
    }
}
