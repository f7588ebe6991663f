//! The framework from the outside: everything here goes through what users see.
//!
//! `bank` is the domain that the tests share, `orders` one whose events have had other shapes, `faulty` a
//! store that can be told to fail. Then one file for each part, `databases` for what lies beside a log on
//! real servers, `springcamp` for the bugs of the talk's program, `loom` for the meaning of Loom's parts and
//! `own_backend` for a store of somebody else.

// Tests may unwrap, and so may what they share.
#![allow(clippy::unwrap_used)]

mod answers;
mod answers_under_faults;
mod bank;
mod faulty;
mod orders;

mod bank_race;
mod commands;
mod crash;
mod databases;
mod deploys;
mod embedded;
mod errors;
mod events;
mod golden;
mod kit;
mod loom;
mod losses;
mod own_backend;
mod projections;
mod projections_on_threads;
mod refusals;
mod snapshots;
mod springcamp;
mod subscribers;
mod upcasters;
mod upcasters_in_parts;
