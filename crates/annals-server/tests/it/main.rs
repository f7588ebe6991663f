//! The server over real connections, as its clients see it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod append;
mod bounds;
mod console;
mod fixtures;
mod follow;
mod histories;
mod operation;
mod preconditions;
mod problem;
mod read;
mod rights;
mod shutdown;
mod support;
mod tls;
