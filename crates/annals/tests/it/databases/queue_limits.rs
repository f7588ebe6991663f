//! Queued statements (`Tx::queue`) at the edges: more texts than a connection keeps, more values than a
//! statement may have, values that mean something else beside the sign before them, deadlocks, and answers
//! that are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::{Annals, Dialect, HandlerError, Position, Projection, Recorded, SqlError, Tx, Value};
use annals_testservers::kind::Kind;
use annals_testservers::place::Place;
use annals_testservers::proxy::Proxy;

use crate::databases::counter::{CounterEvent, QUICKLY, increase, until};

annals_testservers::on_each_database! {
    an_event_may_queue_more_texts_than_a_connection_keeps,
    a_page_may_queue_more_texts_than_a_connection_keeps,
    what_a_literal_is_beside_other_signs_is_what_the_value_is,
    a_value_that_orders_rows_is_refused_at_once_or_taken,
    a_statement_with_too_many_values_fails_its_event_and_the_next_one_is_taken,
    a_deadlock_between_queued_statements_is_tried_again,
    rows_are_whole_while_answers_to_queued_statements_are_lost,
}

/// Queues statements of many texts, each of them twice and with others between.
struct Texts {
    of_an_event: u64,
}

impl Projection for Texts {
    const NAME: &'static str = "texts";
    const SCHEMA: &'static str = "CREATE TABLE texts (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let (first, texts) = (event.position().get() * 1_000, self.of_an_event);
        for number in 0..texts {
            let insert = format!("INSERT INTO texts (id, n) VALUES (?1, ?2) /* {} */", first + number);
            tx.queue(&insert, (first + number, 0))?;
        }
        for number in 0..texts {
            let update = format!("UPDATE texts SET n = n + {number} WHERE id = ?1 /* {first} */");
            tx.queue(&update, (first + number,))?;
        }
        Ok(())
    }
}

async fn texts(annals: &Annals, of_an_event: u64) {
    annals.project(Texts { of_an_event }).retry(QUICKLY).start().await.unwrap();
    let end = annals.store().head().await.unwrap();
    let status = until(annals, "texts", |status| status.failing.is_some() || status.position == end).await;
    assert_eq!(status.failing, None);
    let sums = annals.view::<Texts>().one("SELECT COUNT(*), SUM(n) FROM texts", (), |row| row.read()).await;
    let events = end.get();
    let of_events = (events * of_an_event, events * (0..of_an_event).sum::<u64>());
    assert_eq!(sums.unwrap(), Some(of_events));
}

async fn an_event_may_queue_more_texts_than_a_connection_keeps(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    increase(&annals, "a", 1).await;
    texts(&annals, 200).await;
}

async fn a_page_may_queue_more_texts_than_a_connection_keeps(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..50 {
        increase(&annals, "a", 1).await;
    }
    texts(&annals, 3).await;
}

/// The same statements awaited and queued. Each is queued twice: a connection has to know it first.
struct Beside;

/// Statements in which a value as a literal could be read as something else.
const TERMS: [(&str, i64); 4] = [
    ("INSERT INTO {} (n) SELECT 5--?1", 2),
    ("INSERT INTO {} (n) SELECT 5--?1", -2),
    ("INSERT INTO {} (n) SELECT 6/?1/*x*/", 2),
    ("INSERT INTO {} (n) SELECT b FROM source ORDER BY a LIMIT ?1", 2),
];

impl Projection for Beside {
    const NAME: &'static str = "beside";
    const SCHEMA: &'static str = "CREATE TABLE source (a BIGINT PRIMARY KEY, b BIGINT NOT NULL);
        CREATE TABLE awaited (term BIGINT NOT NULL DEFAULT 0, n BIGINT NOT NULL);
        CREATE TABLE queued (term BIGINT NOT NULL DEFAULT 0, n BIGINT NOT NULL)";
    type Event = CounterEvent;

    fn apply(&self, _: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        for (a, b) in [(1, 30), (2, 20), (3, 10), (4, 20)] {
            tx.queue("INSERT INTO source VALUES (?1, ?2)", (a, b))?;
        }
        for (term, (sql, value)) in (1_u64..).zip(TERMS) {
            // Two signs of minus begin a comment in PostgreSQL, which also needs types.
            let sql = match tx.dialect() {
                Dialect::Postgres => sql.replace("5--?1", "5- -?1::bigint"),
                _ => sql.to_owned(),
            };
            for table in ["awaited", "queued"] {
                let insert = sql.replace("{}", table);
                for _ in 0..2 {
                    match table {
                        "awaited" => drop(tx.execute(&insert, (value,))?),
                        _ => tx.queue(&insert, (value,))?,
                    }
                }
                let note = format!("UPDATE {table} SET term = ?1 WHERE term = 0");
                tx.queue(&note, (term,))?;
            }
        }
        Ok(())
    }
}

async fn what_a_literal_is_beside_other_signs_is_what_the_value_is(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    increase(&annals, "a", 1).await;
    annals.project(Beside).retry(QUICKLY).start().await.unwrap();
    let status =
        until(&annals, "beside", |status| status.failing.is_some() || status.position.get() == 1).await;
    assert_eq!(status.failing, None);
    let view = annals.view::<Beside>();
    let rows = async |table: &str| {
        let sql = format!("SELECT term, n FROM {table} ORDER BY term, n");
        view.query(&sql, (), |row| row.read::<(u64, i64)>()).await.unwrap()
    };
    assert_eq!(rows("queued").await, rows("awaited").await);
}

/// MySQL would never answer (it describes fewer values than it has announced).
async fn a_value_that_orders_rows_is_refused_at_once_or_taken(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Beside).retry(QUICKLY).start().await.unwrap();
    let view = annals.view::<Beside>();
    let sql = "SELECT b FROM source ORDER BY ?1";
    let answered = view.query(sql, ("b",), |row| row.read::<(i64,)>()).await;
    if place.is_postgres() {
        assert_eq!(answered.unwrap(), []);
    } else {
        let refused = answered.unwrap_err().to_string();
        assert!(refused.contains("write the column"), "{refused}");
    }
    // The connections are as before.
    let rows = view.query("SELECT b FROM source WHERE a > ?1 ORDER BY a", (0,), |row| row.read::<(i64,)>());
    assert_eq!(rows.await.unwrap(), []);
}

/// Inserts rows by one statement with a value each.
#[derive(Clone, Default)]
struct Wide {
    is_queued: bool,
    /// As long as this is so, the second event has more values than a statement may have.
    is_too_wide: Arc<AtomicBool>,
}

impl Projection for Wide {
    const NAME: &'static str = "wide";
    const SCHEMA: &'static str = "CREATE TABLE wide (n BIGINT NOT NULL)";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let is_wide = event.position().get() == 2 && self.is_too_wide.load(Ordering::SeqCst);
        let count = if is_wide { 70_000 } else { 3 };
        let marks: Vec<String> = (1..=count).map(|number| format!("(?{number})")).collect();
        let insert = format!("INSERT INTO wide (n) VALUES {}", marks.join(", "));
        let values: Vec<Value> = (0..count).map(Value::Integer).collect();
        match self.is_queued {
            true => tx.queue(&insert, &values)?,
            false => drop(tx.execute(&insert, &values)?),
        }
        Ok(())
    }
}

async fn a_statement_with_too_many_values_fails_its_event_and_the_next_one_is_taken(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..3 {
        increase(&annals, "a", 1).await;
    }
    annals.shutdown().await;
    for is_queued in [false, true] {
        let annals = Annals::open(&place.url).await.unwrap();
        let wide = Wide { is_queued, is_too_wide: Arc::new(AtomicBool::new(true)) };
        annals.project(wide.clone()).retry(QUICKLY).start().await.unwrap();
        let failing = until(&annals, "wide", |status| {
            status.failing.as_ref().is_some_and(|failing| failing.attempts > 2)
        });
        let failing = failing.await.failing.unwrap();
        assert_eq!(failing.position, Some(Position::new(2)), "{}", failing.error);
        assert!(failing.error.contains("70000 values"), "{:.300}", failing.error);
        assert!(failing.error.contains("65535"), "{:.300}", failing.error);
        assert!(failing.error.len() < 2_000, "not the whole statement: {} bytes", failing.error.len());
        wide.is_too_wide.store(false, Ordering::SeqCst);
        annals.settle().await.unwrap();
        let count = annals.view::<Wide>().one("SELECT COUNT(*) FROM wide", (), |row| row.get::<u64>(0)).await;
        assert_eq!(count.unwrap(), Some(9));
        annals.shutdown().await;
        place.drop_schema(&format!("{}$wide_v1", place.name)).await;
    }
}

/// Changes two rows, one after the other, once the second one is locked by somebody else.
#[derive(Clone, Default)]
struct Pair {
    waits: Arc<AtomicBool>,
    is_begun: Arc<AtomicBool>,
}

impl Projection for Pair {
    const NAME: &'static str = "pair";
    const SCHEMA: &'static str = "CREATE TABLE pair (id BIGINT PRIMARY KEY, n BIGINT NOT NULL);
        INSERT INTO pair VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)";
    type Event = CounterEvent;

    fn apply(&self, _: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let add = "UPDATE pair SET n = n + 1 WHERE id = ?1";
        tx.queue(add, (1,))?;
        tx.flush()?;
        self.is_begun.store(true, Ordering::SeqCst);
        while self.waits.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        tx.queue(add, (2,))?;
        tx.queue(add, (1,))?;
        Ok(())
    }
}

async fn a_deadlock_between_queued_statements_is_tried_again(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    increase(&annals, "a", 1).await;
    let pair = Pair::default();
    pair.waits.store(true, Ordering::SeqCst);
    annals.project(pair.clone()).retry(QUICKLY).start().await.unwrap();
    while !pair.is_begun.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut beside = place.beside().await;
    let schema = format!("{}$pair_v1", place.name);
    beside.run("BEGIN").await;
    // MariaDB and MySQL end the transaction that has changed less.
    beside.run(&format!("UPDATE {schema}.pair SET n = n + 100 WHERE id > 1")).await;
    if place.is_postgres() {
        // Not this one, but the projection, which waits first.
        beside.run("SET LOCAL deadlock_timeout TO '60s'").await;
    }
    pair.waits.store(false, Ordering::SeqCst);
    beside.run(&format!("UPDATE {schema}.pair SET n = n + 100 WHERE id = 1")).await;
    beside.run("COMMIT").await;
    annals.settle().await.unwrap();
    let view = annals.view::<Pair>();
    let rows = view.query("SELECT n FROM pair ORDER BY id", (), |row| row.get::<u64>(0)).await;
    assert_eq!(rows.unwrap(), [102, 101, 100, 100, 100, 100]);
}

/// One row for each event and the number of all, both queued.
struct Counted;

impl Projection for Counted {
    const NAME: &'static str = "counted";
    const SCHEMA: &'static str = "CREATE TABLE counted (position BIGINT NOT NULL);
        CREATE TABLE total (events BIGINT NOT NULL);
        INSERT INTO total VALUES (0)";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        // Without a key: an event that is applied twice is no error.
        tx.queue("INSERT INTO counted VALUES (?1)", (event.position(),))?;
        tx.queue("UPDATE total SET events = events + ?1", (1,))?;
        Ok(())
    }
}

async fn rows_are_whole_while_answers_to_queued_statements_are_lost(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    const EVENTS: u64 = 200;
    for _ in 0..EVENTS {
        increase(&annals, "a", 1).await;
    }
    annals.shutdown().await;
    let proxy = Proxy::to(&place.url);
    let annals = Annals::open(proxy.url()).await.unwrap();
    annals.project(Counted).retry(QUICKLY).batch(3).start().await.unwrap();
    // What is sent meanwhile is executed, a commit too, and nobody hears of it.
    for round in 0..25 {
        proxy.lose_answers();
        tokio::time::sleep(Duration::from_millis(3 + round % 4)).await;
        proxy.recover();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until(&annals, "counted", |status| status.position.get() == EVENTS && status.failing.is_none()).await;
    let sql = "SELECT (SELECT COUNT(*) FROM counted), (SELECT COUNT(DISTINCT position) FROM counted), events FROM total";
    let rows = annals.view::<Counted>().one(sql, (), |row| row.read::<(u64, u64, u64)>()).await;
    assert_eq!(rows.unwrap(), Some((EVENTS, EVENTS, EVENTS)));
}

/// Queues a value that is larger than the server takes at once.
#[derive(Clone, Default)]
struct Huge(Arc<AtomicBool>);

impl Projection for Huge {
    const NAME: &'static str = "huge";
    const SCHEMA: &'static str = "CREATE TABLE huge (id BIGINT PRIMARY KEY, content LONGBLOB NOT NULL)";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let is_huge = event.position().get() == 2 && self.0.load(Ordering::SeqCst);
        let bytes = if is_huge { 3 << 20 } else { 10 };
        tx.queue("INSERT INTO huge VALUES (?1, ?2)", (event.position(), vec![7_u8; bytes]))?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_value_that_is_larger_than_the_server_takes_fails_its_event() {
    for kind in [Kind::MariaDb, Kind::MySql] {
        let server = kind.start_quick(&["max-allowed-packet=1048576"]);
        let annals = Annals::open(&server.url()).await.unwrap();
        for _ in 0..3 {
            increase(&annals, "a", 1).await;
        }
        let huge = Huge(Arc::new(AtomicBool::new(true)));
        annals.project(huge.clone()).retry(QUICKLY).start().await.unwrap();
        let failing = until(&annals, "huge", |status| {
            status
                .failing
                .as_ref()
                .is_some_and(|failing| failing.attempts > 2 && failing.position == Some(Position::new(2)))
        });
        let error = failing.await.failing.unwrap().error;
        assert!(error.contains("max_allowed_packet"), "{kind:?}: {error}");
        huge.0.store(false, Ordering::SeqCst);
        annals.settle().await.unwrap();
    }
}

#[test]
fn an_error_of_a_queued_statement_that_is_ignored_undoes_the_event_in_sqlite_too() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY)").unwrap();
    let transaction = connection.unchecked_transaction().unwrap();
    let tx = Tx::new(&transaction);
    tx.queue("INSERT INTO t VALUES (?1)", (1,)).unwrap();
    // Awaited, the caller sees the error and may do something else.
    assert!(tx.execute("INSERT INTO t VALUES (?1)", (1,)).is_err());
    tx.still_one_transaction().unwrap();
    let _ = tx.queue("INSERT INTO t VALUES (?1)", (1,));
    let error = tx.still_one_transaction().unwrap_err();
    assert!(matches!(error, SqlError::Statement(_)) && error.to_string().contains("UNIQUE"), "{error}");
    assert!(tx.queue("INSERT INTO t VALUES (?1)", (2,)).is_err());
}
