//! The contract of the stores, on each kind of server.

use std::sync::Arc;

use annals_core::TestClock;
use annals_mysql::{MySqlStore, Options};
use annals_testkit::Subject;
use annals_testservers::kind::Kind;

use crate::support::fresh_log;

/// A database of its own for each clause.
struct Database(String);

impl Subject for Database {
    type Store = MySqlStore;

    async fn open(&self, clock: Arc<TestClock>) -> MySqlStore {
        MySqlStore::open(&self.0, Options { clock, ..Options::default() }).await.unwrap()
    }

    async fn open_beside(&self, clock: Arc<TestClock>) -> MySqlStore {
        self.open(clock).await
    }

    async fn close(&self, store: MySqlStore) {
        store.close().await;
    }
}

mod mariadb {
    annals_testkit::contract!(open: super::Database(super::fresh_log(super::Kind::MariaDb).await));
}

mod newest_mariadb {
    annals_testkit::contract!(open: super::Database(super::fresh_log(super::Kind::NewestMariaDb).await));
}

mod mysql {
    annals_testkit::contract!(open: super::Database(super::fresh_log(super::Kind::MySql).await));
}
