//! The contract of state beside a log, on each kind of server.

use std::sync::Arc;

use annals_core::{Result, StoreId, TestClock};
use annals_mysql::{MySqlState, Options};
use annals_state::{SqlState, StateStore};
use annals_testkit::StateSubject;
use annals_testservers::kind::Kind;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{connect, fresh_log};

/// A database of its own for each clause.
struct Database(String);

impl StateSubject for Database {
    async fn open(&self, log: StoreId, _: Arc<TestClock>) -> Result<Arc<dyn StateStore>> {
        let sessions = MySqlState::at(&self.0, Options::default())?;
        Ok(Arc::new(SqlState::open(Arc::new(sessions), log).await?))
    }

    /// The server's clock stays, and the ends of leases move.
    async fn move_clock(&self, _: &TestClock, micros: i64) {
        let sql = format!("UPDATE leases SET lease_until = lease_until - {micros}");
        connect(&self.0).await.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

mod mariadb {
    annals_testkit::state_contract!(open: super::Database(super::fresh_log(super::Kind::MariaDb).await));
}

mod newest_mariadb {
    annals_testkit::state_contract!(open: super::Database(super::fresh_log(super::Kind::NewestMariaDb).await));
}

mod mysql {
    annals_testkit::state_contract!(open: super::Database(super::fresh_log(super::Kind::MySql).await));
}
