//! Outboxes that released versions have written, on every database: what is pending is published in order,
//! once; what was published is not published again; dead letters are listed, retried and published. Where one
//! of these fails, messages of users are about to be lost: `fixtures/README.md` says what to do.
//!
//! `write` writes them.

mod write;

use std::path::PathBuf;
use std::time::Duration;

use annals_outbox::{Message, NewMessage, Options, Pool};
use annals_testservers::dump;
use annals_testservers::fixtures;
use annals_testservers::kind::Kind;
use serde::{Deserialize, Serialize};

use crate::support::{Place, Taker, about, options, until};

/// The name of the outbox in the fixtures. A dump is loaded under the name of its place.
const NAME: &str = "annals_fixture";

/// The state of a message in a fixture.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Standing {
    Published,
    /// Refused once, and to be tried again.
    Failing,
    Dead,
    /// Behind a dead letter.
    Waiting,
    Pending,
}

/// A message, as `expected.json` says it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct Written {
    standing: Standing,
    id: String,
    aggregate_type: String,
    aggregate_id: String,
    sequence: u64,
    event_type: String,
    content_type: String,
    data: Vec<u8>,
    headers: std::collections::BTreeMap<String, String>,
}

impl Written {
    fn of(message: &Message, standing: Standing) -> Self {
        Self {
            standing,
            id: message.id.to_string(),
            aggregate_type: message.aggregate_type.clone(),
            aggregate_id: message.aggregate_id.clone(),
            sequence: message.sequence,
            event_type: message.event_type.clone(),
            content_type: message.content_type.as_str().to_owned(),
            data: message.data.to_vec(),
            headers: message.headers.clone(),
        }
    }
}

/// A fixture, opened.
struct Fixture {
    folder: PathBuf,
    place: Place,
    messages: Vec<Written>,
}

impl Fixture {
    /// Those of databases like this one.
    async fn on(place: &Place) -> Vec<Self> {
        let mut opened = Vec::new();
        for folder in fixtures::of_releases("outbox") {
            let name = format!("f{}_{}", opened.len(), place.name);
            let (url, name) = match &place.pool {
                Pool::Sqlite(_) => {
                    // Beside the database of the place, whose directory ends with it.
                    let path = place.url.strip_prefix("sqlite:").unwrap().split('?').next().unwrap();
                    let path = format!("{path}.{name}");
                    std::fs::copy(folder.join("sqlite.db"), &path).unwrap();
                    (format!("sqlite:{path}"), NAME.to_owned())
                }
                _ => {
                    let file = folder.join(file_name(place.kind()));
                    dump::load(&place.url, &std::fs::read_to_string(file).unwrap().replace(NAME, &name));
                    (place.url.clone(), name)
                }
            };
            let expected = std::fs::read(folder.join("expected.json")).unwrap();
            let messages = serde_json::from_slice(&expected).unwrap();
            let place = Place::at(&url, &name).await;
            place.outbox.migrate().await.unwrap_or_else(|error| {
                panic!("{error}: {}", fixtures::lost("the whole outbox", &folder));
            });
            opened.push(Self { folder, place, messages });
        }
        opened
    }

    fn standing(&self, standing: Standing) -> Vec<Written> {
        self.messages.iter().filter(|message| message.standing == standing).cloned().collect()
    }

    fn lost(&self, what: &str) -> String {
        fixtures::lost(what, &self.folder)
    }
}

/// The file of the fixtures of this kind of server.
fn file_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres | Kind::NewestPostgres => "postgres.sql",
        Kind::MariaDb | Kind::NewestMariaDb => "mariadb.sql",
        Kind::MySql => "mysql.sql",
    }
}

/// Messages, aggregate by aggregate, each in the order in which it is here.
fn by_aggregate(mut messages: Vec<Written>) -> Vec<Written> {
    messages.sort_by_key(|message| message.aggregate_id.clone());
    messages
}

/// These messages, as they were taken.
fn taken(messages: &[Message], as_what: impl Fn(&Message) -> Standing) -> Vec<Written> {
    by_aggregate(messages.iter().map(|message| Written::of(message, as_what(message))).collect())
}

/// Published rows are kept: the fixture may be older than a publisher keeps them.
fn keeping() -> Options {
    Options { keep: Duration::from_secs(100 * 365 * 86_400), ..options() }
}

pub async fn the_files_of_a_release_are_unchanged(place: Place) {
    for fixture in Fixture::on(&place).await {
        let outbox = &fixture.place.outbox;
        let status = outbox.status().await.unwrap();
        let count = |standing| fixture.standing(standing).len() as u64;
        let lost = fixture.lost("messages that are still to be published");
        assert_eq!(status.pending, count(Standing::Pending) + count(Standing::Failing), "{lost}");
        assert_eq!(status.held, count(Standing::Dead) + count(Standing::Waiting), "{lost}");
        assert_eq!(status.dead_letters, count(Standing::Dead), "{lost}");
        let failing = fixture.standing(Standing::Failing);
        let found: Vec<_> = status.failing.iter().map(|one| (one.id.to_string(), one.attempts)).collect();
        assert_eq!(found, [(failing[0].id.clone(), 1)], "{}", fixture.lost("the attempts of a message"));
        let letters = outbox.dead_letters(10).await.unwrap();
        let found: Vec<_> =
            letters.iter().map(|letter| Written::of(&letter.message, Standing::Dead)).collect();
        assert_eq!(found, fixture.standing(Standing::Dead), "{}", fixture.lost("its dead letters"));
        for letter in letters {
            assert_eq!((letter.message.attempt, letter.error.as_str()), (3, "it is not liked"));
            assert_eq!(letter.waiting, count(Standing::Waiting));
        }
    }
}

pub async fn what_a_release_left_pending_is_published_in_order(place: Place) {
    for fixture in Fixture::on(&place).await {
        // It is not waited for its time, which passed when the fixture was a few hours old.
        fixture.place.run("UPDATE outbox_failures SET next_attempt_at = failed_at").await;
        let taker = Taker::new();
        let publisher = fixture.place.outbox.publisher(taker.clone()).options(keeping()).start().await;
        // The publisher that had the lease when the fixture was written has not given it back. It ended a
        // minute later.
        let publisher = publisher.unwrap();
        let pending = [Standing::Failing, Standing::Pending];
        let expected = fixture.messages.iter().filter(|message| pending.contains(&message.standing));
        let expected = by_aggregate(expected.cloned().collect());
        let messages = taker.count(expected.len()).await;
        let as_what = |message: &Message| match message.attempt {
            1 => Standing::Pending,
            _ => Standing::Failing,
        };
        let lost = fixture.lost("messages that are still to be published, or their order");
        assert_eq!(taken(&messages, as_what), expected, "{lost}");
        // Nothing that was published comes again, and the next message of an aggregate has the next number.
        let first = &fixture.standing(Standing::Published)[0];
        let of_it = fixture.messages.iter().filter(|message| message.aggregate_id == first.aggregate_id);
        let before = of_it.count() as u64;
        let mut transaction = fixture.place.begin().await;
        let next = about(&first.aggregate_id, "order.closed");
        let next = NewMessage { aggregate_type: first.aggregate_type.clone(), ..next };
        transaction.write(&fixture.place.outbox, &next).await.unwrap();
        transaction.commit().await;
        let messages = taker.count(expected.len() + 1).await;
        assert_eq!(messages.len(), expected.len() + 1, "{}", fixture.lost("what was published"));
        let last = messages.last().unwrap();
        assert_eq!(
            (last.id, last.sequence),
            (next.id, before + 1),
            "{}",
            fixture.lost("the order of an aggregate")
        );
        publisher.stop().await;
        let rows = fixture.place.number("SELECT COUNT(*) FROM outbox").await;
        assert_eq!(rows, fixture.messages.len() as i64 + 1, "{}", fixture.lost("published messages"));
    }
}

pub async fn a_dead_letter_of_a_release_is_retried_and_published_with_what_waited(place: Place) {
    for fixture in Fixture::on(&place).await {
        let dead = fixture.standing(Standing::Dead);
        let held = [dead.clone(), fixture.standing(Standing::Waiting)].concat();
        let taker = Taker::new();
        let publisher =
            fixture.place.outbox.publisher(taker.clone()).options(keeping()).start().await.unwrap();
        fixture.place.outbox.retry(dead[0].id.parse().unwrap()).await.unwrap();
        let of_it = |messages: &[Message]| -> Vec<Message> {
            let of_it = messages.iter().filter(|message| message.aggregate_id == dead[0].aggregate_id);
            of_it.cloned().collect()
        };
        let messages = of_it(&taker.until(|messages| of_it(messages).len() == held.len()).await);
        let as_what = |message: &Message| match message.sequence == dead[0].sequence {
            true => Standing::Dead,
            false => Standing::Waiting,
        };
        assert_eq!(
            taken(&messages, as_what),
            held,
            "{}",
            fixture.lost("a dead letter, or what waits for it")
        );
        let none_left = async || fixture.place.outbox.status().await.unwrap().held == 0;
        until("nothing is held any more", none_left).await;
        publisher.stop().await;
    }
}

/// A release without the fixture of a database is noticed.
#[test]
fn every_database_has_a_fixture() {
    for folder in fixtures::of_releases("outbox") {
        for file in ["postgres.sql", "mariadb.sql", "mysql.sql", "sqlite.db", "expected.json"] {
            assert!(folder.join(file).is_file(), "{} lacks {file}", folder.display());
        }
    }
}
