//! What the engine must keep when things go wrong. The clauses of the contract are in `contract`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;
mod contract;

mod again;
mod backup;
mod close;
mod crash;
mod cut;
mod damage;
mod digest;
mod full;
mod fuzzed;
mod histories;
mod hostile;
mod kill;
mod marks;
#[cfg(feature = "planted")]
mod planted;
mod queries;
mod receipts;
mod reopen;
mod repair;
mod scan;
mod sim;
mod small;
mod verify;
