//! The contract of the stores, on the oldest and on the newest PostgreSQL that there is.

use std::sync::Arc;

use annals_core::TestClock;
use annals_postgres::{Options, PostgresStore};
use annals_testkit::Subject;
use annals_testservers::kind::Kind;

use crate::support::fresh_log;

/// A schema of its own for each clause.
struct Schema(String);

impl Subject for Schema {
    type Store = PostgresStore;

    async fn open(&self, clock: Arc<TestClock>) -> PostgresStore {
        PostgresStore::open(&self.0, Options { clock, ..Options::default() }).await.unwrap()
    }

    async fn open_beside(&self, clock: Arc<TestClock>) -> PostgresStore {
        self.open(clock).await
    }

    async fn close(&self, store: PostgresStore) {
        store.close().await;
    }
}

mod oldest {
    use super::{Kind, Schema, fresh_log};
    annals_testkit::contract!(open: Schema(fresh_log(Kind::Postgres)));
}

mod newest {
    use super::{Kind, Schema, fresh_log};
    annals_testkit::contract!(open: Schema(fresh_log(Kind::NewestPostgres)));
}
