//! The store on MariaDB, on a real server that the tests start themselves.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests may fail the test, and say what they saw"
)]

mod contract;
mod order;
mod outages;
mod plans;
mod support;
