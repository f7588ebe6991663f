//! What the engine must keep when things go wrong. The clauses of the contract are in `contract`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;
mod contract;

mod again;
mod close;
mod crash;
mod cut;
mod damage;
mod full;
mod fuzzed;
mod kill;
mod queries;
mod receipts;
mod reopen;
