//! What a call costs does not grow with the log: the rows that PostgreSQL looks at are counted, at ten
//! thousand events and at a million, with the plans of a fresh connection and with those that were made while
//! the tables were empty.

use annals_postgres::{Options, PostgresStore};
use annals_testkit::hot;
use annals_testservers::server;
use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use crate::support::connect;

/// Rows and entries of indexes that all calls of `hot` may look at together. A call that goes through a table
/// or an index of ten thousand events looks at more.
const ROWS_MAX: i64 = 3_000;

/// Small samples, so that the planner knows of the most frequent names only: it then expects that a name it
/// does not know has as many events as all others.
const SAMPLES: &str = "default_statistics_target=1";

/// Loads events from behind the end of the log up to this position.
async fn load(connection: &mut PgConnection, up_to: i64) {
    let sql = "
        INSERT INTO events (position, append_position, entity_type, entity_id, entity_version, event_id, event_type,
            schema_version, event_data, tags, process_id, triggering_event, recorded_at, idempotency_key)
        SELECT n, n, 'bulk', 'bulk-' || n / 10, n % 10 + 1, lpad(to_hex(n), 32, '0')::uuid,
            CASE WHEN n % 1000 = 0 THEN 'rare.noted' ELSE 'bulk.noted' END, 1, '{}',
            CASE WHEN n % 1000 = 0 THEN jsonb_build_array('common', 'rare:' || n) ELSE '[\"common\"]' END,
            CASE WHEN n % 1000 = 0 THEN 'process-' || n END,
            CASE WHEN n % 1000 = 0 THEN 'cause-' || n ELSE 'common' END, now(), CASE WHEN n % 1000 = 0 THEN 'key-' || n END
        FROM generate_series((SELECT max(position) + 1 FROM events), $1) AS n";
    sqlx::query(sql).bind(up_to).execute(&mut *connection).await.unwrap();
    let rest = "
        INSERT INTO event_tags SELECT 'common', position FROM events WHERE entity_type = 'bulk' ON CONFLICT DO NOTHING;
        INSERT INTO event_tags SELECT 'rare:' || position, position FROM events WHERE event_type = 'rare.noted'
            ON CONFLICT DO NOTHING";
    connection.execute(rest).await.unwrap();
}

/// What was looked at since the counts were set to 0, by table and index.
async fn looked_at(connection: &mut PgConnection) -> Vec<(String, i64)> {
    let sql = "
        SELECT relname::text, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'annals'
        UNION ALL
        SELECT indexrelname::text, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = 'annals'";
    let rows = connection.fetch_all(sql).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_at_does_not_grow_with_the_log() {
    let server = server::newest_postgres(&["fsync=off", "autovacuum=off", "max_wal_size=4GB", SAMPLES]);
    let url = server.url();
    let open = async || PostgresStore::open(&url, Options::default()).await.unwrap();
    let mut connection = connect(&format!("{url}?schema=annals")).await;
    for size in hot::sizes([10_000, 1_000_000]) {
        for fresh in [false, true] {
            let store = open().await;
            if !fresh {
                // Often enough for plans to be kept.
                for round in 0..8 {
                    hot::calls(&store, &format!("{size} before {round}")).await;
                }
                load(&mut connection, size).await;
            } else {
                connection.execute("ANALYZE").await.unwrap();
            }
            // What loading has looked at is not counted afterwards.
            connection.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
            connection.execute("SELECT pg_stat_reset()").await.unwrap();
            hot::calls(&store, &format!("{size} {fresh}")).await;
            // A backend that ends has counted everything.
            store.close().await;
            until_alone(&mut connection).await;
            let looked_at = looked_at(&mut connection).await;
            let sum: i64 = looked_at.iter().map(|(_, rows)| rows).sum();
            println!("{size} events, fresh plans {fresh}: {sum} rows looked at");
            assert!(sum > 100, "the calls were counted");
            assert!(sum < ROWS_MAX, "{size} events, fresh plans {fresh}: {looked_at:?}");
        }
    }
}

/// Waits until no connection of a store is left.
async fn until_alone(connection: &mut PgConnection) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'annals'";
    while connection.fetch_one(sql).await.unwrap().get::<i64, _>(0) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
