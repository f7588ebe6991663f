//! The store on PostgreSQL, on real servers that the tests start themselves.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests may fail the test, and say what they saw"
)]

/// Tests for each server of this run.
macro_rules! on_each_server {
    ($($name:ident,)*) => {
        on_each_server!(@on postgres Postgres $($name)*);
        on_each_server!(@on newest_postgres NewestPostgres $($name)*);
    };
    (@on $module:ident $kind:ident $($name:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if annals_testservers::kind::Kind::$kind.is_chosen() {
                    super::$name(annals_testservers::kind::Kind::$kind).await;
                }
            })*
        }
    };
}

mod contract;
mod failover;
mod order;
mod outages;
mod plans;
mod replicas;
mod state_contract;
mod support;
