//! Values and statements of read models: what fits, what is refused, and that both is said.

use annals::{Annals, Dialect, HandlerError, Position, Projection, Recorded, SqlError, Tx, Value, ViewError};

use crate::databases::counter::{CounterEvent, QUICKLY, increase, until};
use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    values_come_out_as_they_went_in,
    types_of_the_database_are_read,
    a_query_cannot_write_and_says_what_is_wrong_with_it,
    no_statement_of_a_projection_can_part_rows_from_checkpoint,
    versions_at_the_end_are_refused_as_others,
    metadata_at_the_limit_is_kept,
    callers_that_go_away_leave_everything_whole,
}

const EVERYTHING: [&str; 3] = ["it's ?1 -- \"text\" \\ 한글", "", "trailing "];

/// One row for each kind of value.
struct Kinds;

impl Projection for Kinds {
    const NAME: &'static str = "kinds";
    const SCHEMA: &'static str = "
        CREATE TABLE kinds (
            id BIGINT PRIMARY KEY, small SMALLINT, medium INTEGER, large BIGINT, fraction DOUBLE PRECISION,
            words VARCHAR(100), more TEXT, exact NUMERIC(30, 4), flag BOOLEAN)";
    type Event = CounterEvent;

    fn schema(dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Postgres => {
                "CREATE TABLE kinds (
                    id BIGINT PRIMARY KEY, small SMALLINT, medium INTEGER, large BIGINT, fraction DOUBLE PRECISION,
                    words VARCHAR(100), more TEXT, exact NUMERIC(30, 4), flag BOOLEAN);
                 CREATE TABLE bytes (content BYTEA NOT NULL, id UUID, at TIMESTAMPTZ, json JSONB)"
            }
            _ => {
                "CREATE TABLE kinds (
                    id BIGINT PRIMARY KEY, small SMALLINT, medium INTEGER, large BIGINT, fraction DOUBLE PRECISION,
                    words VARCHAR(100), more TEXT, exact NUMERIC(30, 4), flag BOOLEAN);
                 CREATE TABLE bytes (content LONGBLOB NOT NULL, id BINARY(16), at BIGINT, json LONGTEXT)"
            }
        }
    }

    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        let insert = "INSERT INTO kinds VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        for (id, words) in EVERYTHING.iter().enumerate() {
            rows.execute(insert, (id, -5, i64::MIN, 2.5, words, words.repeat(1_000), 7, true))?;
        }
        let nothing: (Option<i64>, Option<String>, Option<f64>) = (None, None, None);
        let (number, words, fraction) = nothing;
        rows.execute(insert, (9, number, number, fraction, &words, &words, number, number))?;
        let count =
            rows.one("SELECT COUNT(*) FROM kinds WHERE small = ?1", (-5,), |row| row.get::<u64>(0))?;
        assert_eq!(count, Some(3), "what was written is seen");
        let (bytes, id) = (vec![0_u8, 1, 255], event.id().as_bytes().to_vec());
        rows.execute("INSERT INTO bytes VALUES (?1, ?2, ?3, ?4)", (bytes, id, event.time(), "{\"a\": 1}"))?;
        Ok(())
    }
}

async fn kinds(place: &Place) -> Annals {
    let annals = Annals::open(&place.url).await.unwrap();
    annals.project(Kinds).retry(QUICKLY).start().await.unwrap();
    increase(&annals, "a", 1).await;
    annals.settle().await.unwrap();
    annals
}

async fn values_come_out_as_they_went_in(place: Place) {
    let annals = kinds(&place).await;
    let view = annals.view::<Kinds>().at_least(Position::FIRST);
    let sql = "SELECT small, medium, large, fraction, words, more, exact, flag FROM kinds ORDER BY id";
    let rows = view.rows(sql, ()).await.unwrap();
    for (row, words) in rows.iter().zip(EVERYTHING) {
        type Columns = (i16, i32, i64, f64, String, String, i64, bool);
        let expected = (-5, -5, i64::MIN, 2.5, words.to_owned(), words.repeat(1_000), 7, true);
        assert_eq!(row.read::<Columns>().unwrap(), expected);
    }
    assert_eq!(rows[3].values(), vec![Value::Null; 8]);
    let found =
        view.query("SELECT id FROM kinds WHERE words = ?1", (EVERYTHING[2],), |row| row.get::<u64>(0));
    assert_eq!(found.await.unwrap(), [2]);
    let none = view.query("SELECT id FROM kinds WHERE words = ?1", ("trailing",), |row| row.get::<u64>(0));
    assert!(none.await.unwrap().is_empty(), "text is compared to the last blank");
    let bytes = view.one("SELECT content, id, at FROM bytes", (), |row| row.read::<(Vec<u8>, Value, i64)>());
    let (content, id, at) = bytes.await.unwrap().unwrap();
    let events = annals::EventStoreExt::log_events(&**annals.store(), annals::Query::all()).await.unwrap();
    assert_eq!((content, at), (vec![0, 1, 255], events[0].recorded_at().as_micros()));
    let expected = events[0].id();
    match id {
        Value::Blob(bytes) => assert_eq!(bytes, expected.as_bytes()),
        other => assert_eq!(other, Value::Text(expected.to_string())),
    }
}

async fn types_of_the_database_are_read(place: Place) {
    let annals = kinds(&place).await;
    let view = annals.view::<Kinds>();
    let sql = "SELECT COUNT(*), SUM(small), AVG(small), MAX(words), 1 = 1, NULL, 'a' || 'b', CAST(2.5 AS DECIMAL(5, 2))
               FROM kinds WHERE id < ?1";
    let row = view.one(sql, (3,), |row| Ok(row.values().to_vec())).await.unwrap().unwrap();
    assert_eq!(row[0], Value::Integer(3));
    assert_eq!(row[1], Value::Integer(-15), "a sum of whole numbers is whole");
    assert_eq!(row[2], Value::Integer(-5));
    assert_eq!((&row[4], &row[5], &row[6]), (&Value::Integer(1), &Value::Null, &Value::Text("ab".into())));
    assert_eq!(row[7], Value::Real(2.5));
    // A parameter of a sum, of a page, of a list.
    let having =
        "SELECT flag FROM kinds GROUP BY flag HAVING SUM(small) < ?1 ORDER BY flag LIMIT ?2 OFFSET ?3";
    assert_eq!(view.query(having, (-14, 10, 0), |row| row.get::<bool>(0)).await.unwrap(), [true]);
    let unknown = view.rows("SELECT CURRENT_DATE", ()).await.unwrap_err().to_string();
    assert!(unknown.contains("cast it"), "{unknown}");
    let wrong = view.rows("SELECT id FROM kinds WHERE id = ?1 AND flag = ?1", ("x",)).await;
    if place.is_postgres() {
        assert!(wrong.unwrap_err().to_string().contains("expects `int8` there and got text"));
    }
}

async fn a_query_cannot_write_and_says_what_is_wrong_with_it(place: Place) {
    let annals = kinds(&place).await;
    let view = annals.view::<Kinds>();
    for wrong in [
        "DELETE FROM kinds",
        "SELECT nothing FROM kinds",
        "SELECT ?1",
        "COMMIT",
        "DROP TABLE kinds",
        "SELECT 1; DELETE FROM kinds",
    ] {
        let refused = view.rows(wrong, ()).await.map(|rows| rows.len());
        assert!(matches!(refused, Err(ViewError::Sql(SqlError::Statement(_)))), "{wrong}: {refused:?}");
    }
    if place.is_postgres() {
        let hidden = "WITH gone AS (DELETE FROM kinds RETURNING id) SELECT id FROM gone";
        let refused = view.rows(hidden, ()).await.unwrap_err();
        assert!(refused.to_string().contains("read-only"), "{refused}");
    }
    let column = view.one("SELECT words FROM kinds", (), |row| row.get::<u64>("words")).await.unwrap_err();
    assert!(column.to_string().contains("`words`"), "{column}");
    assert_eq!(view.rows("SELECT id FROM kinds", ()).await.unwrap().len(), 4);
}

/// Runs a statement, ignores what the database answers, and continues.
struct Ending(&'static str);

impl Projection for Ending {
    const NAME: &'static str = "ending";
    const SCHEMA: &'static str = "CREATE TABLE seen (position BIGINT PRIMARY KEY)";
    type Event = CounterEvent;
    fn apply(&self, event: &Recorded<CounterEvent>, rows: &Tx<'_>) -> Result<(), HandlerError> {
        if event.position().get() == 3 {
            let _ = rows.execute(self.0, ());
        }
        rows.execute("INSERT INTO seen VALUES (?1)", (event.position(),))?;
        Ok(())
    }
}

async fn no_statement_of_a_projection_can_part_rows_from_checkpoint(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    for _ in 0..4 {
        increase(&annals, "a", 1).await;
    }
    annals.shutdown().await;
    for (ends, taken) in [
        ("COMMIT", 4),
        ("ROLLBACK", 4),
        ("CREATE TABLE other (a INTEGER)", 4),
        // The database has undone the transaction: the event fails, and nothing of it stays.
        ("INSERT INTO seen VALUES (1)", 2),
        ("SELECT nothing FROM seen", 2),
    ] {
        let annals = Annals::open(&place.url).await.unwrap();
        annals.project(Ending(ends)).retry(QUICKLY).start().await.unwrap();
        let done = |status: &annals::Status| match &status.failing {
            None => status.position.get() == 4,
            Some(failing) => failing.attempts > 2,
        };
        until(&annals, "ending", done).await;
        let view = annals.view::<Ending>();
        let rows = view.query("SELECT position FROM seen ORDER BY position", (), |row| row.get::<u64>(0));
        assert_eq!(rows.await.unwrap(), (1..=taken).collect::<Vec<_>>(), "{ends}");
        annals.shutdown().await;
        place.drop_schema(&format!("{}$ending_v1", place.name)).await;
    }
}

/// Versions that no column holds are refused as any other that is not so, also in an append to several
/// streams.
async fn versions_at_the_end_are_refused_as_others(place: Place) {
    let store = annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    let write = |stream: &str| {
        let events = [annals::NewEvent::new("thing.done", "{}").unwrap()];
        annals::Append::to(annals::StreamId::new(stream).unwrap(), annals::Expected::Any, events)
    };
    store.append(write("a-1")).await.unwrap();
    for version in [u64::MAX, u64::MAX - 1, i64::MAX as u64, i64::MAX as u64 + 1] {
        for stream in ["a-1", "b-1"] {
            let mut append = write("a-1");
            append.writes.extend(write("c-1").writes);
            append.conditions = vec![annals_core::Condition::Version {
                stream: annals::StreamId::new(stream).unwrap(),
                expected: annals::Expected::Exact(annals::Version::new(version)),
            }];
            let answer = store.append(append).await;
            assert!(matches!(answer, Err(annals::Error::Conflict(_))), "{version} {stream}: {answer:?}");
        }
    }
    assert_eq!(store.head().await.unwrap(), annals::Position::FIRST);
}

/// What passes the limits passes the columns.
async fn metadata_at_the_limit_is_kept(place: Place) {
    let store = annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    for number in 0..3 {
        let mut event = annals::NewEvent::new("thing.done", "{}").unwrap();
        let most = 64 << 10;
        match number {
            0 => event.metadata.trace = Some("x".repeat(most).into()),
            1 => event.metadata.own = [("k".into(), "\u{1f}".repeat(most - 1).into())].into(),
            _ => {
                event.metadata.own =
                    [("\"".repeat(most / 2).into(), "\u{1f600}".repeat(most / 8).into())].into()
            }
        }
        let stream = annals::StreamId::new("a-1").unwrap();
        let append = annals::Append::to(stream, annals::Expected::Any, [event.clone()]);
        let appended = store.append(append).await.unwrap();
        let page = store.read_log(annals_core::LogRead::forward(appended.last)).await.unwrap();
        assert!(page.events[0].metadata() == event.metadata, "{number}");
    }
}

/// Callers that go away in the middle leave a store that works, and appends that are there whole or not at
/// all.
async fn callers_that_go_away_leave_everything_whole(place: Place) {
    let store = annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    for number in 0..300_u64 {
        let events = (0..3).map(|_| annals::NewEvent::new("thing.done", "{}").unwrap());
        let mut append = annals::Append::to(
            annals::StreamId::new("a-1").unwrap(),
            if number % 2 == 0 { annals::Expected::Any } else { annals::Expected::Exists },
            events.collect::<Vec<_>>(),
        );
        append.key = Some(format!("{number}").parse().unwrap());
        let patience = std::time::Duration::from_micros(number * 17 % 4_000);
        let _ = tokio::time::timeout(patience, store.append(append)).await;
        let read = annals_core::LogRead::forward(annals::Position::FIRST);
        let _ = tokio::time::timeout(patience / 2, store.read_log(read)).await;
    }
    let events = annals::EventStoreExt::log_events(&*store, annals::Query::all()).await.unwrap();
    assert!(events.iter().zip(1..).all(|(event, place)| event.position().get() == place));
    for append in events.chunks(3) {
        assert!(append.len() == 3 && append.iter().all(|event| event.append() == append[0].position()));
    }
}
