//! The store on PostgreSQL, on real servers that the tests start themselves.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests may fail the test, and say what they saw"
)]

mod contract;
mod failover;
mod order;
mod outages;
mod plans;
mod replicas;
mod support;
