//! The same rows by hand: a loop that awaits each statement, and the fastest way in that a database has.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use annals_core::{EventStore, LogRead, Position, RecordedEvent};
use annals_testservers::place::Place;
use serde::Deserialize;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::deposits::{SCHEMA, TRANSACTION};

#[derive(Deserialize)]
struct Fields {
    amount: i64,
}

fn row(event: &RecordedEvent) -> (i64, i64) {
    let read: Fields = serde_json::from_slice(event.data()).unwrap();
    (event.position().get() as i64, read.amount)
}

/// Reads the log page by page.
async fn page(log: &dyn EventStore, from: &mut Option<Position>) -> Option<Vec<RecordedEvent>> {
    let page = log.read_log(LogRead::forward((*from)?).limit(TRANSACTION)).await.unwrap();
    *from = (!page.end).then_some(page.next);
    Some(page.events)
}

/// The log is read page by page, and each page is one transaction of prepared statements, each of which is
/// awaited, with where it ends. Events a second.
pub async fn awaited(log: &dyn EventStore, url: &str) -> f64 {
    let (mut from, mut count) = (Some(Position::FIRST), 0);
    let started;
    if let Some((address, schema)) = url.split_once("?schema=") {
        let mut connection = PgConnection::connect(address).await.unwrap();
        // As projections do it.
        let begin =
            format!("SET synchronous_commit TO off; CREATE SCHEMA {schema}; SET search_path TO {schema}");
        connection.execute(AssertSqlSafe(begin)).await.unwrap();
        connection.execute(SCHEMA).await.unwrap();
        connection.execute("CREATE TABLE done (position BIGINT)").await.unwrap();
        connection.execute("INSERT INTO done VALUES (0)").await.unwrap();
        started = Instant::now();
        while let Some(events) = page(log, &mut from).await {
            let mut transaction = connection.begin().await.unwrap();
            for event in &events {
                let (position, amount) = row(event);
                let insert = sqlx::query("INSERT INTO deposits (position, amount) VALUES ($1, $2)");
                insert.bind(position).bind(amount).execute(&mut *transaction).await.unwrap();
                count = position;
            }
            let done = sqlx::query("UPDATE done SET position = $1").bind(count);
            done.execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    } else {
        let mut connection = MySqlConnection::connect(url).await.unwrap();
        connection.execute(SCHEMA).await.unwrap();
        connection.execute("CREATE TABLE done (position BIGINT)").await.unwrap();
        connection.execute("INSERT INTO done VALUES (0)").await.unwrap();
        started = Instant::now();
        while let Some(events) = page(log, &mut from).await {
            let mut transaction = connection.begin().await.unwrap();
            for event in &events {
                let (position, amount) = row(event);
                let insert = sqlx::query("INSERT INTO deposits (position, amount) VALUES (?, ?)");
                insert.bind(position).bind(amount).execute(&mut *transaction).await.unwrap();
                count = position;
            }
            let done = sqlx::query("UPDATE done SET position = ?").bind(count);
            done.execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// All rows at once, which are there as text: `COPY`, or `LOAD DATA` of a file. Rows a second, without
/// reading the log.
pub async fn bulk(log: &dyn EventStore, place: &Place) -> f64 {
    let (mut from, mut text, mut count) = (Some(Position::FIRST), String::new(), 0);
    while let Some(events) = page(log, &mut from).await {
        for event in &events {
            let (position, amount) = row(event);
            writeln!(text, "{position}\t{amount}").unwrap();
            count += 1;
        }
    }
    let started;
    if place.is_postgres() {
        let (address, schema) = place.url.split_once("?schema=").unwrap();
        let mut connection = PgConnection::connect(address).await.unwrap();
        let begin =
            format!("SET synchronous_commit TO off; CREATE SCHEMA {schema}; SET search_path TO {schema}");
        connection.execute(AssertSqlSafe(begin)).await.unwrap();
        connection.execute(SCHEMA).await.unwrap();
        started = Instant::now();
        let mut copy = connection.copy_in_raw("COPY deposits FROM STDIN").await.unwrap();
        copy.send(text.as_bytes()).await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), count);
    } else {
        let directory = tempfile::tempdir().unwrap();
        // The server is another user.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("rows");
        std::fs::write(&file, &text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut owner = place.beside().await;
        owner.run(&format!("USE {}; {SCHEMA}", place.name)).await;
        started = Instant::now();
        owner.run(&format!("LOAD DATA INFILE '{}' INTO TABLE deposits", file.display())).await;
    }
    count as f64 / started.elapsed().as_secs_f64()
}
