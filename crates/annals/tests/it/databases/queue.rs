//! Statements whose results are not asked for (`Tx::queue`): they do what the same statements do that are
//! awaited, and an event that fails is found as exactly.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::{Annals, Dialect, HandlerError, Phase, Position, Projection, Recorded, SqlError, Tx};
use annals_testservers::kind::Kind;
use annals_testservers::place::Place;

use crate::databases::counter::{CounterEvent, QUICKLY, increase, until};

annals_testservers::on_each_database! {
    an_event_whose_queued_statement_fails_is_named_and_those_before_it_are_there,
    queued_statements_keep_their_order_with_awaited_ones,
    a_queued_statement_that_is_not_for_a_projection_fails_its_event,
    rows_are_whole_while_connections_are_cut_between_queued_statements,
    a_process_that_dies_with_queued_statements_leaves_rows_and_checkpoint_together,
    queued_statements_are_written_with_the_append,
}

/// One row for each event, queued. An increase by 13 queues its row twice, as long as it is superstitious.
#[derive(Clone, Default)]
struct Seen {
    superstitious: Arc<AtomicBool>,
    /// The event at which the process ends.
    dies_at: Option<u64>,
}

const INSERT: &str = "INSERT INTO seen (position, words) VALUES (?1, ?2)";

impl Projection for Seen {
    const NAME: &'static str = "seen";
    const SCHEMA: &'static str =
        "CREATE TABLE seen (position BIGINT PRIMARY KEY, words VARCHAR(100) NOT NULL);
        CREATE TABLE total (id INTEGER PRIMARY KEY, events BIGINT NOT NULL)";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let CounterEvent::Increased { by } = event.event;
        let words = format!("it's \\ {} \"?1\"", event.aggregate_id());
        tx.queue(INSERT, (event.position(), words.as_str()))?;
        if by == 13 && self.superstitious.load(Ordering::SeqCst) {
            tx.queue(INSERT, (event.position(), words.as_str()))?;
        }
        if event.position() == Position::FIRST {
            tx.queue("INSERT INTO total VALUES (1, 0)", ())?;
        }
        tx.queue("UPDATE total SET events = events + ?1 WHERE id = ?2", (1, 1))?;
        if self.dies_at == Some(event.position().get()) {
            std::process::abort();
        }
        Ok(())
    }
}

/// The positions of the rows, and how many events have been counted.
async fn seen(annals: &Annals) -> (Vec<u64>, u64) {
    let view = annals.view::<Seen>();
    let sql = "SELECT position FROM seen ORDER BY position";
    let counted = "SELECT events FROM total";
    loop {
        let rows = view.query(sql, (), |row| row.get::<u64>(0)).await;
        let total = view.one(counted, (), |row| row.get::<u64>(0)).await;
        match (rows, total) {
            (Ok(rows), Ok(total)) => return (rows, total.unwrap_or_default()),
            // A connection was cut.
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn an_event_whose_queued_statement_fails_is_named_and_those_before_it_are_there(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for number in 1..=10 {
        increase(&annals, "a", if number == 6 { 13 } else { 1 }).await;
    }
    let projection = Seen::default();
    projection.superstitious.store(true, Ordering::SeqCst);
    annals.project(projection.clone()).retry(QUICKLY).start().await.unwrap();
    let failing =
        until(&annals, "seen", |status| status.failing.as_ref().is_some_and(|failing| failing.attempts > 2));
    let failing = failing.await.failing.unwrap();
    assert_eq!(failing.position, Some(Position::new(6)), "{}", failing.error);
    assert!(failing.error.to_lowercase().contains("duplicate"), "{}", failing.error);
    assert_eq!(seen(&annals).await, ((1..=5).collect(), 5), "those before it, and nothing of it");
    projection.superstitious.store(false, Ordering::SeqCst);
    annals.settle().await.unwrap();
    assert_eq!(seen(&annals).await, ((1..=10).collect(), 10), "each once");
}

/// Queues, awaits and asks in turn.
struct Order;

impl Projection for Order {
    const NAME: &'static str = "ordered";
    const SCHEMA: &'static str = "CREATE TABLE ordered (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let id = event.position();
        let double = "UPDATE ordered SET n = n * 2 WHERE id = ?1";
        tx.queue("INSERT INTO ordered (id, n) VALUES (?1, ?2)", (id, 1))?;
        for _ in 0..5 {
            tx.queue(double, (id,))?;
        }
        let n = tx.one("SELECT n FROM ordered WHERE id = ?1", (id,), |row| row.get::<u64>(0))?;
        assert_eq!(n, Some(32), "what is queued is seen by what is asked");
        tx.queue(double, (id,))?;
        assert_eq!(tx.execute("UPDATE ordered SET n = n + 1 WHERE id = ?1 AND n = ?2", (id, 64))?, 1);
        // More than are sent together.
        for _ in 0..1_500 {
            tx.queue("UPDATE ordered SET n = n + ?2 WHERE id = ?1 AND n < ?3", (id, 1, 1_065))?;
        }
        tx.queue("SELECT n FROM ordered", ())?;
        Ok(())
    }
}

async fn queued_statements_keep_their_order_with_awaited_ones(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..3 {
        increase(&annals, "a", 1).await;
    }
    annals.project(Order).start().await.unwrap();
    annals.settle().await.unwrap();
    let rows = annals.view::<Order>().query("SELECT n FROM ordered", (), |row| row.get::<u64>(0)).await;
    assert_eq!(rows.unwrap(), [1_065; 3]);
}

/// Queues a statement at the second event, and ignores what the call returns.
struct Ending(&'static str);

impl Projection for Ending {
    const NAME: &'static str = "ending_queued";
    const SCHEMA: &'static str = "CREATE TABLE seen (position BIGINT PRIMARY KEY)";
    type Event = CounterEvent;

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        tx.queue("INSERT INTO seen VALUES (?1)", (event.position(),))?;
        if event.position().get() == 2 {
            // A second time, when the connection knows it.
            let _ = tx.queue(self.0, ());
            let _ = tx.queue(self.0, ());
        }
        Ok(())
    }
}

async fn a_queued_statement_that_is_not_for_a_projection_fails_its_event(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..4 {
        increase(&annals, "a", 1).await;
    }
    annals.shutdown().await;
    for (ends, taken) in [
        // It is refused where it is queued, and the projection ignores that.
        ("COMMIT", 4),
        ("CREATE TABLE other (a INTEGER)", 4),
        // The server refuses these.
        ("INSERT INTO seen VALUES (100); COMMIT", 1),
        ("INSERT INTO seen VALUES (100) ; ; COMMIT; -- '", 1),
        ("INSERT INTO seen VALUES ('", 1),
        ("INSERT INTO seen VALUES (100) /* ", 1),
        ("SELECT nothing FROM seen", 1),
    ] {
        let annals = Annals::open(&place.url).await.unwrap();
        annals.project(Ending(ends)).retry(QUICKLY).start().await.unwrap();
        let done = |status: &annals::Status| match &status.failing {
            None => status.position.get() == 4,
            Some(failing) => failing.attempts > 2 && failing.position == Some(Position::new(2)),
        };
        until(&annals, "ending_queued", done).await;
        let view = annals.view::<Ending>();
        let rows = view.query("SELECT position FROM seen ORDER BY position", (), |row| row.get::<u64>(0));
        assert_eq!(rows.await.unwrap(), (1..=taken).collect::<Vec<_>>(), "{ends}");
        annals.shutdown().await;
        place.drop_schema(&format!("{}$ending_queued_v1", place.name)).await;
    }
}

async fn rows_are_whole_while_connections_are_cut_between_queued_statements(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..300 {
        increase(&annals, "a", 1).await;
    }
    annals.project(Seen::default()).retry(QUICKLY).batch(20).start().await.unwrap();
    let mut beside = place.beside().await;
    let schema = format!("{}$seen_v1", place.name);
    let whole = place.whole();
    for _ in 0..12 {
        place.cut().await;
        let state = format!(
            "SELECT CAST((SELECT position FROM {schema}.annals_checkpoint) * 1000000 + \
             COALESCE((SELECT events FROM {schema}.total), 0) * 1000 + \
             (SELECT COUNT(*) FROM {schema}.seen) AS {whole})"
        );
        let state = beside.number(&state).await;
        let (position, events, rows) = (state / 1_000_000, state / 1_000 % 1_000, state % 1_000);
        assert_eq!((events, rows), (position, position), "rows and checkpoint are one transaction");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until(&annals, "seen", |status| status.position.get() == 300).await;
    assert_eq!(seen(&annals).await, ((1..=300).collect(), 300));
}

/// The address of the log, which only a process that is to die has.
const LOG: &str = "ANNALS_TEST_QUEUE_LOG";
const BATCH: &str = "ANNALS_TEST_QUEUE_BATCH";
const DIES_AT: u64 = 8;

async fn a_process_that_dies_with_queued_statements_leaves_rows_and_checkpoint_together(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..10 {
        increase(&annals, "a", 1).await;
    }
    let mut beside = place.beside().await;
    let schema = format!("{}$seen_v1", place.name);
    for (batch, done) in [(1_000, 0), (3, 6), (1, 7)] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "databases::queue::dies_with_queued_statements", "--ignored"]);
        let died = command.env(LOG, &place.url).env(BATCH, batch.to_string()).output().unwrap();
        assert!(!died.status.success(), "it was to die");
        let rows = beside.number(&format!("SELECT COUNT(*) FROM {schema}.seen")).await;
        let checkpoint = beside.number(&format!("SELECT position FROM {schema}.annals_checkpoint")).await;
        assert_eq!((rows, checkpoint), (done, done), "batches of {batch}");
    }
    annals.project(Seen::default()).start().await.unwrap();
    annals.settle().await.unwrap();
    assert_eq!(seen(&annals).await, ((1..=10).collect(), 10));
}

#[tokio::test]
#[ignore = "ends its process; a test above starts it"]
async fn dies_with_queued_statements() {
    let Ok(url) = std::env::var(LOG) else { return };
    let batch = std::env::var(BATCH).unwrap().parse().unwrap();
    let annals = Annals::open(&url).await.unwrap();
    let dying = Seen { dies_at: Some(DIES_AT), ..Seen::default() };
    annals.project(dying).batch(batch).start().await.unwrap();
    annals.settle().await.unwrap();
}

async fn queued_statements_are_written_with_the_append(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    let projection = Seen::default();
    annals.project(projection.clone()).retry(QUICKLY).inline().start().await.unwrap();
    until(&annals, "seen", |status| status.phase == Phase::Live).await;
    let mut beside = place.beside().await;
    let count = format!("SELECT COUNT(*) FROM {}$seen_v1.seen", place.name);
    for number in 1..=10 {
        increase(&annals, "a", 1).await;
        assert_eq!(beside.number(&count).await, number, "seen by others without waiting");
    }
    projection.superstitious.store(true, Ordering::SeqCst);
    let append = annals.repository::<crate::databases::counter::Counter>();
    let refused = append.execute("a", crate::databases::counter::Increase(13)).await.unwrap_err().to_string();
    assert!(refused.contains("`seen`") && refused.to_lowercase().contains("duplicate"), "{refused}");
    increase(&annals, "a", 1).await;
    annals.settle().await.unwrap();
    assert_eq!(seen(&annals).await, ((1..=11).collect(), 11));
}

/// Rows of many bytes.
struct Large;

impl Projection for Large {
    const NAME: &'static str = "large";
    const SCHEMA: &'static str = "CREATE TABLE large (id BIGINT PRIMARY KEY, content BYTEA NOT NULL)";
    type Event = CounterEvent;

    fn schema(dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::MySql => "CREATE TABLE large (id BIGINT PRIMARY KEY, content LONGBLOB NOT NULL)",
            _ => Self::SCHEMA,
        }
    }

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        for (number, kilobytes) in (0_u64..).zip([1, 1, 20, 20, 1, 45, 45, 7, 7, 7, 7, 7]) {
            let id = event.position().get() * 100 + number;
            tx.queue("INSERT INTO large VALUES (?1, ?2)", (id, vec![0xA7_u8; kilobytes << 10]))?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_text_is_larger_than_the_server_takes() {
    for kind in [Kind::MariaDb, Kind::MySql, Kind::Postgres] {
        let packet: &[&str] = if kind.is_postgres() { &[] } else { &["max-allowed-packet=65536"] };
        let server = kind.start_quick(packet);
        let annals = Annals::open(&server.url()).await.unwrap();
        for _ in 0..3 {
            increase(&annals, "a", 1).await;
        }
        annals.project(Large).retry(QUICKLY).start().await.unwrap();
        annals.settle().await.unwrap();
        let view = annals.view::<Large>();
        let sum = view.one("SELECT SUM(LENGTH(content)) FROM large", (), |row| row.get(0));
        assert_eq!(sum.await.unwrap(), Some(168 * 3_u64 * 1_024), "{kind:?}");
    }
}

#[test]
fn sqlite_executes_at_once() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY)").unwrap();
    let transaction = connection.unchecked_transaction().unwrap();
    let tx = Tx::new(&transaction);
    tx.queue("INSERT INTO t VALUES (?1)", (1,)).unwrap();
    assert!(matches!(tx.queue("INSERT INTO t VALUES (?1)", (1,)), Err(SqlError::Statement(_))));
    let count: i64 = transaction.query_row("SELECT COUNT(*) FROM t", (), |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}
