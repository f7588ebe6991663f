//! The tests of the shop. `decisions` are pure, `golden` reads all stored versions; the others run the
//! services on a store.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod decisions;
mod down;
mod feed;
mod golden;
mod races;
mod rest;
mod system;
mod values;
mod views;
