//! The binary, as people and scripts use it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

#[cfg(target_os = "linux")]
mod bounds;
mod bring_in;
mod care;
mod databases;
mod demo;
mod one_event;
mod outbox;
mod proof;
mod serve;
mod serve_log;
mod support;
mod torture;
mod trouble;
