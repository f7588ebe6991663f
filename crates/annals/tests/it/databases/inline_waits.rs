//! An inline projection whose rows are being made for the first time, while others append.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::{
    Annals, Append, Dialect, Event, Expected, HandlerError, NewEvent, Phase, Position, Projection, Recorded,
    StreamId, Tx,
};

use annals_testservers::kind::Kind;

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, increase, sum, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    rows_that_are_being_made_hold_up_no_append,
    rows_that_a_user_has_locked_hold_up_no_append,
    a_projection_that_takes_too_long_holds_up_no_append_for_long,
    a_query_that_takes_too_long_holds_up_no_append_for_long,
    a_change_that_takes_too_long_holds_up_no_append_for_long,
    a_lower_limit_of_the_role_is_kept_while_rows_are_written,
}

/// It takes its time.
struct Slow;

impl Projection for Slow {
    const NAME: &'static str = "slow";
    const SCHEMA: &'static str = "CREATE TABLE slow (counter VARCHAR(40) NOT NULL)";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        std::thread::sleep(Duration::from_millis(50));
        rows.execute("INSERT INTO slow VALUES (?1)", (event.aggregate_id(),))?;
        Ok(())
    }
}

async fn rows_that_are_being_made_hold_up_no_append(place: Place) {
    let other = Annals::open(&place.url).await.unwrap();
    let append = |counter: &str, count: u64| {
        let events = (0..count).map(|_| {
            let event = CounterEvent::Increased { by: 1 };
            NewEvent::new(event.event_type(), event.encode().unwrap()).unwrap()
        });
        Append::to(StreamId::new(format!("counter-{counter}")).unwrap(), Expected::Any, events)
    };
    // 25 seconds of work, in one transaction.
    other.store().append(append("a", 500)).await.unwrap();
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Slow).inline().start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let timed = async |annals: Annals, append: Append| {
        let began = Instant::now();
        let answer = annals.store().append(append).await.map(|appended| appended.last);
        (began.elapsed(), answer.map_err(|error| error.chain()))
    };
    let one = tokio::spawn(timed(annals.clone(), append("b", 1)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let two = tokio::spawn(timed(other.clone(), append("c", 1)));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let soon = Duration::from_secs(3);
    assert!(one.0 < soon && two.0 < soon, "here {one:?}, in another process {two:?}");
}

/// A report has rows of the read model locked.
async fn rows_that_a_user_has_locked_hold_up_no_append(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Sums::<1>::default()).retry(QUICKLY).inline().start().await.unwrap();
    until(&annals, "sums", |status| status.phase == Phase::Live).await;
    increase(&annals, "a", 5).await;
    let mut beside = place.beside().await;
    beside.run("BEGIN").await;
    beside.run(&format!("UPDATE {}$sums_v1.sums SET amount = amount WHERE counter = 'a'", place.name)).await;
    let mut position = Position::ZERO;
    for _ in 0..5 {
        let began = Instant::now();
        position = increase(&annals, "a", 1).await;
        // As long as a lock is waited for, not as long as the report takes.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
    beside.run("COMMIT").await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((10, 6)));
    // Once they are caught up, they are written with the append again.
    let written = async {
        loop {
            let position = increase(&annals, "a", 0).await;
            let sql = format!("SELECT position FROM {}$sums_v1.annals_checkpoint", place.name);
            if beside.number(&sql).await == position.get() as i64 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("it is inline again");
}

/// It does not return.
struct Endless;

impl Projection for Endless {
    const NAME: &'static str = "endless";
    const SCHEMA: &'static str = "";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
        if event.aggregate_id() == "slow" {
            std::thread::sleep(Duration::from_secs(15));
        }
        Ok(())
    }
}

async fn a_projection_that_takes_too_long_holds_up_no_append_for_long(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Endless).inline().start().await.unwrap();
    until(&annals, "endless", |status| status.phase == Phase::Live).await;
    let other = Annals::open(&place.url).await.unwrap();
    let slow = tokio::spawn({
        let annals = annals.clone();
        async move { increase(&annals, "slow", 1).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    increase(&other, "a", 1).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    slow.await.unwrap();
}

/// It has the database do something that takes its time.
struct Asking;

impl Projection for Asking {
    const NAME: &'static str = "asking";
    const SCHEMA: &'static str = "CREATE TABLE asked (answer BIGINT)";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let sleep = match rows.dialect() {
            Dialect::MySql => "SELECT SLEEP(50)",
            _ => "SELECT 1 FROM pg_sleep(50)",
        };
        match event.aggregate_id() {
            "reads" => drop(rows.query(sleep, (), |_| Ok(()))?),
            "writes" => drop(rows.execute(&format!("INSERT INTO asked {sleep}"), ())?),
            _ => {}
        }
        Ok(())
    }
}

async fn a_statement_that_takes_too_long(url: &str, counter: &'static str) {
    let annals = Annals::open(url).await.unwrap();
    annals.project(Asking).inline().start().await.unwrap();
    until(&annals, "asking", |status| status.phase == Phase::Live).await;
    let other = Annals::open(url).await.unwrap();
    let began = Instant::now();
    let slow = tokio::spawn({
        let annals = annals.clone();
        async move { increase(&annals, counter, 1).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    increase(&other, "a", 1).await;
    slow.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // The connection is used on, with the limits that it had.
    increase(&annals, "b", 1).await;
}

async fn a_query_that_takes_too_long_holds_up_no_append_for_long(place: Place) {
    a_statement_that_takes_too_long(&place.url, "reads").await;
}

async fn a_change_that_takes_too_long_holds_up_no_append_for_long(place: Place) {
    a_statement_that_takes_too_long(&place.url, "writes").await;
}

/// It writes down how long a statement of it may take.
struct Limits;

impl Projection for Limits {
    const NAME: &'static str = "limits";
    const SCHEMA: &'static str = "CREATE TABLE limits (millis BIGINT)";
    type Event = CounterEvent;
    fn apply(&self, _: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let limit = match rows.dialect() {
            Dialect::MySql => {
                "CAST(/*M! @@max_statement_time * 1000 */ /*!80000 @@max_execution_time */ AS SIGNED)"
            }
            _ => "(EXTRACT(epoch FROM current_setting('statement_timeout')::interval) * 1000)::bigint",
        };
        rows.execute(&format!("INSERT INTO limits SELECT {limit}"), ())?;
        Ok(())
    }
}

async fn a_lower_limit_of_the_role_is_kept_while_rows_are_written(place: Place) {
    // MySQL has no such limit of a user, so there it is the server's.
    let own = (place.kind() == Kind::MySql).then(|| place.kind().start_quick(&["max-execution-time=1500"]));
    let usual = place.kind() != Kind::MySql;
    let url = own.as_ref().map_or(place.url.clone(), |server| server.url());
    let lowest = async || {
        let annals = Annals::open(&url).await.unwrap();
        annals.project(Limits).inline().start().await.unwrap();
        until(&annals, "limits", |status| status.phase == Phase::Live).await;
        let position = increase(&annals, "a", 1).await;
        let view = annals.view::<Limits>().at_least(position).within(Duration::from_secs(60));
        let lowest = view.one("SELECT MIN(millis) FROM limits", (), |row| row.read::<(u64,)>());
        let lowest = lowest.await.unwrap().unwrap().0;
        annals.shutdown().await;
        lowest
    };
    if usual {
        assert_eq!(lowest().await, 3_000);
    }
    let name = &place.name;
    let mut owner = place.beside().await;
    match place.kind() {
        Kind::Postgres | Kind::NewestPostgres => {
            owner.run(&format!("ALTER ROLE {name} SET statement_timeout = '1500ms'")).await;
        }
        Kind::MariaDb | Kind::NewestMariaDb => {
            owner.run(&format!("ALTER USER {name} WITH MAX_STATEMENT_TIME 1.5")).await;
        }
        Kind::MySql => {}
    }
    assert_eq!(lowest().await, 1_500);
}

/// MySQL ends no statement by itself that changes rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_mysql_does_not_end_is_abandoned() {
    let server = annals_testservers::server::mysql(&["innodb-flush-log-at-trx-commit=2"]);
    a_statement_that_takes_too_long(&server.url(), "writes").await;
}

/// It has the database change something that takes its time, once.
#[derive(Clone, Default)]
struct SlowOnce {
    is_slow: Arc<AtomicBool>,
    applied: Arc<AtomicU64>,
}

impl Projection for SlowOnce {
    const NAME: &'static str = "slow_once";
    const SCHEMA: &'static str = "CREATE TABLE slow_once (n BIGINT NOT NULL PRIMARY KEY)";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let change = match self.is_slow.swap(false, Ordering::SeqCst) {
            true => "INSERT INTO slow_once SELECT ?1 + SLEEP(50)",
            false => "INSERT INTO slow_once VALUES (?1)",
        };
        rows.execute(change, (event.position().get(),))?;
        self.applied.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// The process that gave the rows up does not fill them itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn abandoned_rows_are_written_again_once_another_process_has_filled_them() {
    let server = annals_testservers::server::mysql(&["innodb-flush-log-at-trx-commit=2"]);
    let filling = Annals::open(&server.url()).await.unwrap();
    filling.project(SlowOnce::default()).retry(QUICKLY).inline().start().await.unwrap();
    until(&filling, "slow_once", |status| status.phase == Phase::Live).await;
    let (annals, projection) = (Annals::open(&server.url()).await.unwrap(), SlowOnce::default());
    annals.project(projection.clone()).retry(QUICKLY).inline().start().await.unwrap();
    until(&annals, "slow_once", |status| status.phase == Phase::Standby).await;
    increase(&annals, "a", 1).await;
    assert_eq!(projection.applied.load(Ordering::SeqCst), 1, "with the append");
    projection.is_slow.store(true, Ordering::SeqCst);
    increase(&annals, "a", 1).await;
    assert_eq!(projection.applied.load(Ordering::SeqCst), 1, "without the rows");
    let written = async {
        while projection.applied.load(Ordering::SeqCst) == 1 {
            increase(&annals, "a", 1).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("it is inline again");
}
