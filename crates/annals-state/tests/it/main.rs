//! State in memory and in SQLite, held to the contract.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod contract;
