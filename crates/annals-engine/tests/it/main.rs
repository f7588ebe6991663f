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
mod full;
mod kill;
mod queries;
mod reopen;
mod repair;
mod verify;
