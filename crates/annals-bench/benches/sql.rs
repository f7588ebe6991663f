//! Appends to a log in PostgreSQL and in MariaDB beside inserts into a table that a good team would make by
//! hand, on one server, in turn:
//!
//! ```text
//! cargo bench -p annals-bench --bench sql -- [SECONDS] [ROUNDS]
//! ```
//!
//! The servers are started here, and each commit waits for the disk. By hand, each writer has a connection of
//! its own and one prepared statement. Its table has what such tables have: a number, a unique index over
//! stream and version, for the ledger an index over the customer. It promises less: its numbers may have gaps
//! and become visible out of order, and an append that is repeated is not known.
//!
//! Two shapes. Orders: each writer has a stream of its own, knows its version, and appends 256 bytes. Ledger:
//! small entries of ten types, each with one tag, to accounts at random, whatever their version.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark speaks to its user and ends at a surprise"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_bench::Ratio;
use annals_core::{Append, EventStore, Expected, NewEvent, StreamId, Tag, Version};
use annals_testservers::kind::Kind;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

const WRITERS: [usize; 2] = [1, 64];
/// Accounts of the ledger, and the entries that it has before it is measured.
const ACCOUNTS: u64 = 20_000;
const ENTRIES: u64 = 50_000;

const POSTGRES: &str = "CREATE TABLE by_hand (
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream TEXT NOT NULL, version BIGINT NOT NULL,
    type TEXT NOT NULL, customer TEXT, data TEXT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT now(),
    UNIQUE (stream, version))";
const MARIADB: &str = "CREATE TABLE by_hand (
    position BIGINT AUTO_INCREMENT PRIMARY KEY, stream VARCHAR(200) NOT NULL, version BIGINT NOT NULL,
    type VARCHAR(200) NOT NULL, customer VARCHAR(200), data LONGTEXT NOT NULL,
    at TIMESTAMP(6) NOT NULL DEFAULT NOW(6), UNIQUE (stream, version), INDEX (customer)) ENGINE = InnoDB";

/// What a writer appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Orders,
    Ledger,
}

/// One event.
struct Entry {
    stream: String,
    /// The version before it; `None` if any will do.
    version: Option<u64>,
    event_type: &'static str,
    customer: Option<String>,
    data: String,
}

impl Shape {
    /// The event with this number of this writer, in this round.
    fn entry(self, round: usize, writer: usize, number: u64) -> Entry {
        const TYPES: [&str; 10] = [
            "account.opened",
            "money.deposited",
            "money.withdrawn",
            "transfer.sent",
            "transfer.received",
            "card.charged",
            "card.refunded",
            "fee.booked",
            "interest.booked",
            "limit.changed",
        ];
        let random = |salt: u64| {
            let seed = (round as u64) << 48 | (writer as u64) << 40 | number;
            let mixed = (seed ^ salt << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
        };
        match self {
            Self::Orders => Entry {
                stream: format!("order-{round}-{writer}"),
                version: Some(number),
                event_type: "order.placed",
                customer: None,
                data: format!(r#"{{"line":{number},"token":"{:0>230x}"}}"#, random(1)),
            },
            Self::Ledger => {
                let account = random(1) % ACCOUNTS;
                let (cents, clerk) = (1_000 + random(2) % 9_999_000, random(3) % 1_000);
                let hour = random(4) % 1_000_000;
                Entry {
                    stream: format!("account-{account}"),
                    version: None,
                    event_type: TYPES[random(5) as usize % TYPES.len()],
                    customer: Some(format!("customer:{}", account % (ACCOUNTS * 3 / 10))),
                    data: format!(r#"{{"cents":{cents},"by":"clerk-{clerk:03}","hour":{hour}}}"#),
                }
            }
        }
    }
}

/// A connection of a writer that does it by hand.
enum Hand {
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

impl Hand {
    async fn to(kind: Kind, url: &str) -> Self {
        if kind.is_postgres() {
            Self::Postgres(PgConnection::connect(url).await.unwrap())
        } else {
            let mut connection = MySqlConnection::connect(url).await.unwrap();
            // Otherwise a version that is looked up locks the gap behind it.
            connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
            Self::MariaDb(connection)
        }
    }

    /// Inserts the event; again if another writer took the version.
    async fn insert(&mut self, entry: &Entry) {
        const KNOWN: [&str; 2] = [
            "INSERT INTO by_hand (stream, version, type, customer, data) VALUES ($1, $2, $3, $4, $5)",
            "INSERT INTO by_hand (stream, version, type, customer, data) VALUES (?, ?, ?, ?, ?)",
        ];
        const NEXT: [&str; 2] = [
            "INSERT INTO by_hand (stream, version, type, customer, data)
             SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4 FROM by_hand WHERE stream = $1",
            "INSERT INTO by_hand (stream, version, type, customer, data)
             SELECT ?, coalesce(max(version), 0) + 1, ?, ?, ? FROM by_hand WHERE stream = ?",
        ];
        let Entry { stream, version, event_type, customer, data } = entry;
        let version = version.map(|version| version as i64 + 1);
        loop {
            let done = match (&mut *self, version) {
                (Self::Postgres(connection), Some(version)) => {
                    let insert = sqlx::query(KNOWN[0]).bind(stream).bind(version);
                    let insert = insert.bind(event_type).bind(customer).bind(data);
                    insert.execute(connection).await.map(drop)
                }
                (Self::Postgres(connection), None) => {
                    let insert = sqlx::query(NEXT[0]).bind(stream).bind(event_type).bind(customer).bind(data);
                    insert.execute(connection).await.map(drop)
                }
                (Self::MariaDb(connection), Some(version)) => {
                    let insert = sqlx::query(KNOWN[1]).bind(stream).bind(version);
                    let insert = insert.bind(event_type).bind(customer).bind(data);
                    insert.execute(connection).await.map(drop)
                }
                (Self::MariaDb(connection), None) => {
                    let insert = sqlx::query(NEXT[1]).bind(stream).bind(event_type).bind(customer).bind(data);
                    insert.bind(stream).execute(connection).await.map(drop)
                }
            };
            match done {
                Ok(()) => return,
                Err(sqlx::Error::Database(error)) if version.is_none() && is_race(&*error) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Whether another writer took the version, or waited for this one in another order.
fn is_race(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.is_unique_violation() || error.code().is_some_and(|code| code == "40001" || code == "40P01")
}

fn append(entry: Entry) -> Append {
    let event = NewEvent::new(entry.event_type, entry.data).unwrap();
    let event = match entry.customer {
        Some(customer) => event.with_tag(Tag::new(customer).unwrap()),
        None => event,
    };
    let expected = entry.version.map_or(Expected::Any, |version| Expected::Exact(Version::new(version)));
    Append::to(StreamId::new(entry.stream).unwrap(), expected, [event])
}

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let lasting = Duration::from_secs(numbers.first().copied().unwrap_or(3) as u64);
    let rounds = numbers.get(1).copied().unwrap_or(5);
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let server = kind.start(match kind.is_postgres() {
            true => &["max_connections=200", "shared_buffers=512MB", "max_wal_size=4GB"],
            false => &["innodb-buffer-pool-size=512M", "max-connections=200"],
        });
        println!("{kind:?}, rounds of {lasting:?}, {rounds} of each, medians with the spread");
        for shape in [Shape::Orders, Shape::Ledger] {
            let place = Place::new(kind, &server.url(), shape).await;
            if shape == Shape::Ledger {
                place.fill().await;
            }
            for (index, writers) in WRITERS.into_iter().enumerate() {
                let mut rates = Vec::new();
                for round in 0..rounds {
                    let round = 1 + index * rounds + round;
                    let by_hand = place.by_hand(round, writers, lasting).await;
                    rates.push((place.annals(round, writers, lasting).await, by_hand));
                }
                let of = |each: fn(&(f64, f64)) -> f64| Ratio::spread(rates.iter().map(each)).unwrap();
                println!("{shape:?}, {writers} writers");
                println!("  by hand          events/s  {}", of(|(_, by_hand)| *by_hand));
                println!("  Annals           events/s  {}", of(|(annals, _)| *annals));
                println!("  of that by hand  ratio     {}", Ratio::of(rates).unwrap());
            }
        }
    }
}

/// A log and a table by hand on one server.
struct Place {
    kind: Kind,
    by_hand: String,
    store: Arc<dyn EventStore>,
    shape: Shape,
}

impl Place {
    async fn new(kind: Kind, owner: &str, shape: Shape) -> Self {
        let name = format!("{shape:?}").to_lowercase();
        let (by_hand, log) = if kind.is_postgres() {
            let mut connection = PgConnection::connect(owner).await.unwrap();
            let schema =
                format!("DROP TABLE IF EXISTS by_hand; {POSTGRES}; CREATE INDEX ON by_hand (customer)");
            connection.execute(sqlx::AssertSqlSafe(schema)).await.unwrap();
            (owner.to_owned(), format!("{owner}?schema={name}"))
        } else {
            let mut connection = MySqlConnection::connect(owner).await.unwrap();
            let schema = format!("CREATE DATABASE {name}; USE {name}; {MARIADB}");
            connection.execute(sqlx::AssertSqlSafe(schema)).await.unwrap();
            let server = owner.rsplit_once('/').unwrap().0;
            (format!("{server}/{name}"), format!("{server}/{name}_log"))
        };
        if !kind.is_postgres() {
            let mut connection = MySqlConnection::connect(owner).await.unwrap();
            connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}_log"))).await.unwrap();
        }
        let store = annals::open_store(&log.parse().unwrap()).await.unwrap();
        Self { kind, by_hand, store, shape }
    }

    /// The entries that both have before they are measured.
    async fn fill(&self) {
        let mut hand = Hand::to(self.kind, &self.by_hand).await;
        let entries = |from: u64, to| (from..to).map(|number| self.shape.entry(0, 0, number));
        for from in (0..ENTRIES).step_by(1_000) {
            let mut all = Append::new();
            entries(from, from + 1_000).for_each(|entry| all.writes.extend(append(entry).writes));
            self.store.append(all).await.unwrap();
        }
        let begin = "BEGIN";
        match &mut hand {
            Hand::Postgres(connection) => drop(connection.execute(begin).await.unwrap()),
            Hand::MariaDb(connection) => drop(connection.execute(begin).await.unwrap()),
        }
        for entry in entries(0, ENTRIES) {
            hand.insert(&entry).await;
        }
        match &mut hand {
            Hand::Postgres(connection) => drop(connection.execute("COMMIT; ANALYZE by_hand").await.unwrap()),
            Hand::MariaDb(connection) => drop(connection.execute("COMMIT").await.unwrap()),
        }
    }

    /// Events a second, by hand.
    async fn by_hand(&self, round: usize, writers: usize, lasting: Duration) -> f64 {
        let mut hands = Vec::new();
        for _ in 0..writers {
            hands.push(Hand::to(self.kind, &self.by_hand).await);
        }
        let started = Instant::now();
        let writers = hands.into_iter().enumerate().map(|(writer, mut hand)| {
            let shape = self.shape;
            tokio::spawn(async move {
                let mut count = 0;
                while started.elapsed() < lasting {
                    hand.insert(&shape.entry(round, writer, count)).await;
                    count += 1;
                }
                count
            })
        });
        rate(writers.collect(), started).await
    }

    /// Events a second, by Annals.
    async fn annals(&self, round: usize, writers: usize, lasting: Duration) -> f64 {
        let started = Instant::now();
        let writers = (0..writers).map(|writer| {
            let (store, shape) = (self.store.clone(), self.shape);
            tokio::spawn(async move {
                let mut count = 0;
                while started.elapsed() < lasting {
                    store.append(append(shape.entry(round, writer, count))).await.unwrap();
                    count += 1;
                }
                count
            })
        });
        rate(writers.collect(), started).await
    }
}

async fn rate(writers: Vec<tokio::task::JoinHandle<u64>>, started: Instant) -> f64 {
    let mut count = 0;
    for writer in writers {
        count += writer.await.unwrap();
    }
    count as f64 / started.elapsed().as_secs_f64()
}
