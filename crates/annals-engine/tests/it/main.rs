//! What the engine must keep when things go wrong. The clauses of the contract are in `contract`.

mod common;

mod crash;
mod cut;
mod damage;
mod full;
mod kill;
mod reopen;
