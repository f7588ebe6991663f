//! A queued statement writes exactly what the same statement writes that is awaited: values of every kind, at
//! random.

use std::sync::Arc;

use annals::{Annals, Dialect, HandlerError, Projection, Recorded, SqlError, Tx, Value};
use annals_testservers::place::Place;
use parking_lot::Mutex;

use crate::databases::counter::{CounterEvent, QUICKLY, increase, until};

annals_testservers::on_each_database! {
    a_queued_statement_writes_what_an_awaited_one_writes,
    a_value_that_is_refused_is_refused_when_it_is_queued,
}

const ROWS: u64 = 300;

/// A sequence that its seed repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// `NULL` at times.
    fn or_null(&mut self, value: Value) -> Value {
        if self.below(12) == 0 { Value::Null } else { value }
    }

    fn whole(&mut self, least: i64, most: i64) -> Value {
        let width = most.wrapping_sub(least) as u64;
        let any = least.wrapping_add((self.next() % width.saturating_add(1).max(1)) as i64);
        let small = (self.below(21) as i64 - 10).clamp(least, most);
        Value::Integer(self.one(&[any, small, least, most, 0_i64.clamp(least, most)]))
    }

    fn fraction(&mut self, is_postgres: bool) -> Value {
        let any = f64::from_bits(self.next());
        let near = (self.below(2_000_001) as f64 - 1_000_000.0) / 1_000.0;
        let edges = [0.0, -0.0, 1.0, -1.5, 0.1, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e15, 123_456_789.123];
        let edge = self.one(&edges);
        let odd = self.one(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -1e-310]);
        let chosen = self.one(&[any, near, near, edge, edge, odd]);
        // MariaDB and MySQL have numbers only.
        Value::Real(if is_postgres || chosen.is_finite() { chosen } else { near })
    }

    fn single(&mut self) -> Value {
        let any = f32::from_bits(self.next() as u32);
        let near = (self.below(20_001) as f32 - 10_000.0) / 8.0;
        let edge = self.one(&[0.0_f32, -1.5, 0.1, 1e30]);
        let chosen = self.one(&[any, near, edge]);
        Value::Real(if chosen.is_normal() { chosen.into() } else { near.into() })
    }

    /// Words that mean something somewhere in SQL.
    fn words(&mut self, most: usize, has_nul: bool) -> String {
        const PIECES: [&str; 30] = [
            "'",
            "''",
            "\"",
            "\\",
            "\\'",
            "\\\\",
            ";",
            "--",
            "-- ",
            "/*",
            "*/",
            "/*!",
            "#",
            "?1",
            "?",
            "$1",
            "$$",
            "\n",
            "\r",
            "\t",
            "%",
            "_",
            "`",
            "\u{1a}",
            "한글",
            "\u{1F600}",
            "e\u{301}",
            " ",
            "NULL",
            "a",
        ];
        let mut words = String::new();
        for _ in 0..self.below(most) {
            match self.below(8) {
                0 => words.push(char::from_u32(self.next() as u32 % 0x11_0000).unwrap_or('x')),
                1 if has_nul => words.push('\0'),
                _ => words.push_str(PIECES[self.below(PIECES.len())]),
            }
        }
        if has_nul { words } else { words.replace('\0', "") }
    }

    fn text(&mut self, most: usize, has_nul: bool) -> Value {
        Value::Text(self.words(most, has_nul))
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn json(&mut self) -> Value {
        let words = self.words(8, false);
        Value::Text(serde_json::json!({ "words": words, "n": [1, -2.5, null, true] }).to_string())
    }

    fn time(&mut self) -> Value {
        let any = self.whole(-200_000_000_000_000_000, 9_000_000_000_000_000_000);
        let near = self.whole(-62_135_596_800_000_000, 253_402_300_799_999_999);
        self.one(&[any, near.clone(), near])
    }

    /// The values of a row, in the order of the columns.
    fn row(&mut self, id: u64, is_postgres: bool) -> Vec<Value> {
        let columns = [
            self.whole(i16::MIN.into(), i16::MAX.into()),
            self.whole(i32::MIN.into(), i32::MAX.into()),
            self.whole(i64::MIN, i64::MAX),
            self.whole(i64::MIN, i64::MAX),
            self.single(),
            self.fraction(is_postgres),
            Value::Integer(self.below(2) as i64),
            self.text(12, !is_postgres),
            self.text(6, !is_postgres),
            self.text(200, !is_postgres),
            self.whole(i64::MIN, i64::MAX),
            self.json(),
            self.json(),
            Value::Blob(self.bytes(16)),
            {
                let most = self.below(64);
                Value::Blob(self.bytes(most))
            },
            self.time(),
            self.time(),
        ];
        let id = [Value::Integer(i64::try_from(id).unwrap())];
        id.into_iter().chain(columns.map(|value| self.or_null(value))).collect()
    }
}

/// The same rows twice: awaited and queued. With the error of each, if it is a value alone that is written.
#[derive(Clone, Default)]
struct Both {
    seed: u64,
}

const POSTGRES: &str = "CREATE TABLE awaited (id BIGINT PRIMARY KEY, small SMALLINT, medium INTEGER, large BIGINT,
    exact NUMERIC(30, 4), single REAL, fraction DOUBLE PRECISION, flag BOOLEAN, words VARCHAR(200), blanks CHAR(60),
    more TEXT, digits TEXT, json JSON, jsonb JSONB, uuid UUID, content BYTEA, at TIMESTAMPTZ, at_local TIMESTAMP);
    CREATE TABLE queued (LIKE awaited INCLUDING ALL);
    CREATE TABLE awaited_terms (id BIGINT PRIMARY KEY, a TEXT, b BIGINT, c DOUBLE PRECISION, d BOOLEAN);
    CREATE TABLE queued_terms (LIKE awaited_terms INCLUDING ALL)";

const MYSQL: &str = "CREATE TABLE awaited (id BIGINT PRIMARY KEY, small SMALLINT, medium INTEGER, large BIGINT,
    exact DECIMAL(30, 4), single FLOAT, fraction DOUBLE, flag BOOLEAN, words VARCHAR(200), blanks CHAR(60),
    more LONGTEXT, digits LONGTEXT, json LONGTEXT, jsonb JSON, uuid BINARY(16), content LONGBLOB, at BIGINT, at_local BIGINT);
    CREATE TABLE queued LIKE awaited;
    CREATE TABLE awaited_terms (id BIGINT PRIMARY KEY, a LONGTEXT, b BIGINT, c DOUBLE, d BOOLEAN);
    CREATE TABLE queued_terms LIKE awaited_terms";

/// Values that stand in terms, where literals of another type would make another result.
fn terms(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => {
            "INSERT INTO {} SELECT ?1::bigint, ?2::text || ?3::text, 5-?4::bigint, ?4::bigint / 7 + ?5::float8, \
             ?2::text = ?3::text OR ?2::text < 'M'"
        }
        _ => "INSERT INTO {} SELECT ?1, ?2||?3, 5-?4, ?4/7+?5, ?2=?3 OR ?2<'M'",
    }
}

impl Projection for Both {
    const NAME: &'static str = "both";
    const SCHEMA: &'static str = POSTGRES;
    type Event = CounterEvent;

    fn schema(dialect: Dialect) -> &'static str {
        if dialect == Dialect::Postgres { POSTGRES } else { MYSQL }
    }

    fn apply(&self, event: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let is_postgres = tx.dialect() == Dialect::Postgres;
        let marks: Vec<String> = (1..=18).map(|place| format!("?{place}")).collect();
        let insert = |table: &str| format!("INSERT INTO {table} VALUES ({})", marks.join(", "));
        let terms = |table: &str| terms(tx.dialect()).replace("{}", table);
        let mut random = Random(self.seed ^ event.position().get());
        let rows: Vec<Vec<Value>> = (0..ROWS).map(|id| random.row(id, is_postgres)).collect();
        let mut of_terms = |id: u64| {
            let small = random.whole(-1_000, 1_000);
            let (a, b) = (random.text(6, false), random.text(6, false));
            vec![
                Value::Integer(i64::try_from(id).unwrap()),
                a,
                b,
                small,
                Value::Real(random.below(9) as f64 / 8.0),
            ]
        };
        let in_terms: Vec<Vec<Value>> = (0..ROWS).map(&mut of_terms).collect();
        for (row, term) in rows.iter().zip(&in_terms) {
            tx.execute(&insert("awaited"), row)?;
            tx.execute(&terms("awaited_terms"), term)?;
        }
        for (row, term) in rows.iter().zip(&in_terms) {
            tx.queue(&insert("queued"), row)?;
            tx.queue(&terms("queued_terms"), term)?;
        }
        Ok(())
    }
}

async fn a_queued_statement_writes_what_an_awaited_one_writes(place: Place) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = now.as_nanos() as u64;
    let annals = Annals::open(&place.url).await.unwrap();
    increase(&annals, "a", 1).await;
    annals.project(Both { seed }).retry(QUICKLY).start().await.unwrap();
    let status =
        until(&annals, "both", |status| status.failing.is_some() || status.position.get() == 1).await;
    assert_eq!(status.failing, None, "seed {seed}");
    let mut beside = place.beside().await;
    let schema = format!("{}$both_v1", place.name);
    let columns = [
        "small", "medium", "large", "exact", "single", "fraction", "flag", "words", "blanks", "more",
        "digits", "json", "jsonb", "uuid", "content", "at", "at_local",
    ];
    for (table, columns) in [("", &columns[..]), ("_terms", &["a", "b", "c", "d"])] {
        for column in columns {
            let same = match place.is_postgres() {
                true => format!("a.{column}::text IS NOT DISTINCT FROM q.{column}::text"),
                false => format!("CAST(a.{column} AS BINARY) <=> CAST(q.{column} AS BINARY)"),
            };
            let sql = format!(
                "SELECT COUNT(*) FROM {schema}.awaited{table} AS a JOIN {schema}.queued{table} AS q \
                 ON a.id = q.id WHERE {same}"
            );
            let count = beside.number(&sql).await;
            assert_eq!(count, ROWS as i64, "column {column} of `awaited{table}`, seed {seed}");
        }
    }
}

/// Writes one value, awaited or queued, after one that the connection knows the statement by.
struct One {
    value: Value,
    is_queued: bool,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Projection for One {
    const NAME: &'static str = "one_value";
    const SCHEMA: &'static str = "CREATE TABLE one (n SMALLINT, flag BOOLEAN, words VARCHAR(3), f REAL)";
    type Event = CounterEvent;

    fn apply(&self, _: &Recorded<CounterEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let column = match &self.value {
            Value::Integer(_) | Value::Blob(_) => "n",
            Value::Real(_) => "f",
            _ => "words",
        };
        let insert = format!("INSERT INTO one ({column}) VALUES (?1)");
        let done = match self.is_queued {
            true => tx
                .queue(&insert, (Value::Null,))
                .and_then(|()| tx.queue(&insert, (&self.value,)))
                .and_then(|()| tx.flush()),
            false => tx.execute(&insert, (&self.value,)).map(drop),
        };
        if let Err(error) = &done {
            assert!(matches!(error, SqlError::Statement(_)), "{error:?}");
            self.failures.lock().push(error.to_string());
        }
        Ok(done?)
    }
}

async fn a_value_that_is_refused_is_refused_when_it_is_queued(place: Place) {
    let annals = Annals::open(&place.url).await.unwrap();
    increase(&annals, "a", 1).await;
    annals.shutdown().await;
    let mut refused = vec![Value::Integer(40_000), Value::Text("four".to_owned()), Value::Real(1e300)];
    if place.is_postgres() {
        refused.extend([Value::Text("a\0b".to_owned()), Value::Blob(vec![1])]);
    } else {
        refused.push(Value::Real(f64::NAN));
    }
    for value in refused {
        let mut errors = Vec::new();
        for is_queued in [false, true] {
            let annals = Annals::open(&place.url).await.unwrap();
            let failures = Arc::new(Mutex::new(Vec::new()));
            let one = One { value: value.clone(), is_queued, failures: failures.clone() };
            annals.project(one).retry(QUICKLY).start().await.unwrap();
            let both = |status: &annals::Status| status.failing.is_some() || status.position.get() == 1;
            until(&annals, "one_value", both).await;
            annals.shutdown().await;
            errors.push(failures.lock().first().cloned());
        }
        // Both take it, or both refuse it and say the same.
        assert_eq!(errors[0], errors[1], "{value:?}");
        place.drop_schema(&format!("{}$one_value_v1", place.name)).await;
    }
}
