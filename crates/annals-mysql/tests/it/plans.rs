//! What a call costs does not grow with the log: the rows that MariaDB looks at are counted, at ten thousand
//! events and at three hundred thousand, with the statistics of empty tables and with those of full ones.

use annals_mysql::{MySqlStore, Options};
use annals_testkit::hot;
use annals_testservers::server;
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use crate::support::{SETTINGS, connect};

/// Rows and entries of indexes that all calls of `hot` may look at together. A call that goes through a table
/// or an index of ten thousand events looks at more.
const ROWS_MAX: i64 = 4_000;

/// Loads events from behind the end of the log up to this position.
async fn load(connection: &mut MySqlConnection, up_to: i64) {
    let events = "
        INSERT INTO events (position, append_position, entity_type, entity_id, entity_version, event_id, event_type,
            schema_version, event_data, event_bytes, tags, process_id, triggering_event, recorded_at, idempotency_key)
        SELECT n, n, 'bulk', CONCAT('bulk-', (n - ?) DIV 10), (n - ?) % 10 + 1, UNHEX(LPAD(HEX(n), 32, '0')),
            IF(n % 1000 = 0, 'rare.noted', 'bulk.noted'), 1, '{}', 2,
            IF(n % 1000 = 0, CONCAT('[\"common\",\"rare:', n, '\"]'), '[\"common\"]'),
            IF(n % 1000 = 0, CONCAT('process-', n), NULL),
            IF(n % 1000 = 0, CONCAT('cause-', n), 'common'), 0, IF(n % 1000 = 0, CONCAT('key-', n), NULL)
        FROM (SELECT seq AS n FROM seq_1_to_100000000) AS s
        WHERE n BETWEEN ? AND ?";
    let head: i64 = connection.fetch_one("SELECT position FROM log").await.unwrap().get(0);
    // The first of them is the first event of the first stream.
    let base = "SELECT CAST(COALESCE(MIN(position), ?) AS SIGNED) FROM events WHERE entity_type = 'bulk'";
    let base: i64 = sqlx::query(base).bind(head + 1).fetch_one(&mut *connection).await.unwrap().get(0);
    let mut from = head + 1;
    while from <= up_to {
        let last = up_to.min(from + 499_999);
        sqlx::query(events)
            .bind(base)
            .bind(base)
            .bind(from)
            .bind(last)
            .execute(&mut *connection)
            .await
            .unwrap();
        from = last + 1;
    }
    for sql in [
        "INSERT IGNORE INTO event_tags SELECT 'common', position FROM events WHERE entity_type = 'bulk'",
        "INSERT IGNORE INTO event_tags
            SELECT CONCAT('rare:', position), position FROM events WHERE event_type = 'rare.noted'",
        "INSERT IGNORE INTO entities SELECT 'bulk', entity_id, MAX(entity_version), MAX(position) FROM events
            WHERE entity_type = 'bulk' GROUP BY entity_id",
        "UPDATE log SET position = (SELECT MAX(position) FROM events)",
    ] {
        connection.execute(sql).await.unwrap();
    }
}

/// What the server has looked at since it was started, by the way it did so.
async fn looked_at(connection: &mut MySqlConnection) -> Vec<(String, i64)> {
    let sql = "SELECT variable_name, CAST(variable_value AS SIGNED) FROM information_schema.global_status
        WHERE variable_name IN ('HANDLER_READ_FIRST', 'HANDLER_READ_KEY', 'HANDLER_READ_LAST', 'HANDLER_READ_NEXT',
            'HANDLER_READ_PREV', 'HANDLER_READ_RND', 'HANDLER_READ_RND_NEXT')";
    let rows = connection.fetch_all(sql).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_at_does_not_grow_with_the_log() {
    let server = server::mariadb(&SETTINGS);
    let url = server.url();
    // Nobody looks at the head meanwhile.
    let poll = std::time::Duration::from_secs(3_600);
    let store = MySqlStore::open(&url, Options { poll, ..Options::default() }).await.unwrap();
    let mut connection = connect(&url).await;
    for size in hot::sizes([10_000, 300_000]) {
        for fresh in [false, true] {
            if fresh {
                connection.execute("ANALYZE TABLE events, event_tags, entities").await.unwrap();
            } else {
                hot::calls(&store, &format!("{size} before")).await;
                load(&mut connection, size).await;
            }
            let before = looked_at(&mut connection).await;
            hot::calls(&store, &format!("{size} {fresh}")).await;
            let after = looked_at(&mut connection).await;
            let rows: Vec<_> = before
                .into_iter()
                .zip(after)
                .map(|((name, before), (_, after))| (name, after - before))
                .collect();
            let sum: i64 = rows.iter().map(|(_, rows)| rows).sum();
            println!("{size} events, fresh statistics {fresh}: {sum} rows looked at");
            assert!(sum > 100, "the calls were counted");
            assert!(sum < ROWS_MAX, "{size} events, fresh statistics {fresh}: {rows:?}");
        }
    }
}
