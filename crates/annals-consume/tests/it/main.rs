//! The runner, on sources of several kinds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kinds;
mod runner;
