//! The framework on databases: what lies beside a log, on real servers that the tests start themselves. Every test runs on
//! PostgreSQL and on MariaDB, as a role that may do no more than `docs/sql-stores.md` says.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

/// Tests for each database.
macro_rules! on_each_database {
    ($($name:ident,)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(crate::place::Place::postgres().await).await;
            })*
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(crate::place::Place::mariadb().await).await;
            })*
        }
    };
}

mod counter;
mod place;

mod another_log;
mod autocommit;
mod cache_after_failover;
mod crash;
mod deferred_constraint;
mod divided_again;
mod first_start;
mod gone;
mod group_fate;
mod group_first_start;
mod history;
mod hot_wait;
mod inline;
mod inline_waits;
mod losses;
mod one_place;
mod password;
mod prepared;
mod processes;
mod replica_after_a_loss;
mod replica_promoted;
mod replicas;
mod rows_after_a_pause;
mod select_limit;
mod settings;
mod silence;
mod standby;
mod starts;
mod state;
mod storage_engine;
mod tenants;
mod values;
