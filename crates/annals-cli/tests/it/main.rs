//! The binary, as people and scripts use it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod bring_in;
mod care;
mod databases;
mod demo;
mod integrity;
mod one_event;
mod outbox;
mod proof;
mod serve;
mod support;
mod torture;
mod trouble;
