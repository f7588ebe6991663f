//! The binary, as people and scripts use it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

#[cfg(target_os = "linux")]
mod bounds;
mod bring_in;
mod care;
mod databases;
mod demo;
mod earlier;
mod fixtures;
mod foreign_files;
mod help;
mod integrity;
mod live_failover;
mod older_indexes;
mod one_event;
mod outbox;
mod places;
mod proof;
mod resume;
mod secrets;
mod serve;
mod serve_log;
#[cfg(target_os = "linux")]
mod signals;
mod sources;
mod support;
mod times;
mod tokens;
mod torture;
mod trouble;
