//! The JSON form of an event.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod event_json;
