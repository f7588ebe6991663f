//! The framework on databases: what lies beside a log, on real servers that the tests start themselves. Every test runs on
//! PostgreSQL, MariaDB and MySQL (`annals_testkit::kind`), as a role that may do no more than `docs/sql-stores.md` says.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

/// Tests for each server of this run.
macro_rules! on_each_database {
    ($($name:ident,)*) => {
        on_each_database!(@on postgres Postgres $($name)*);
        on_each_database!(@on newest_postgres NewestPostgres $($name)*);
        on_each_database!(@on mariadb MariaDb $($name)*);
        on_each_database!(@on newest_mariadb NewestMariaDb $($name)*);
        on_each_database!(@on mysql MySql $($name)*);
    };
    (@on $module:ident $kind:ident $($name:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                if annals_testkit::kind::Kind::$kind.is_chosen() {
                    super::$name(crate::place::Place::on(annals_testkit::kind::Kind::$kind).await).await;
                }
            })*
        }
    };
}

mod counter;
mod gate;
mod place;

mod another_log;
mod answers;
mod autocommit;
mod cache_after_failover;
mod crash;
mod deferred_constraint;
mod divided_again;
mod fenced;
mod first_start;
mod fixtures;
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
mod predecessors;
mod prepared;
mod processes;
mod replica_after_a_loss;
mod replica_behind;
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
