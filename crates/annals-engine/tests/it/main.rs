//! What the engine must keep when things go wrong. The clauses of the contract are in `contract`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;
mod contract;

mod again;
mod backup;
mod clock;
mod close;
mod copied;
mod crash;
mod cut;
mod damage;
mod damage_in_one_of_many_groups;
mod digest;
mod directory;
mod fixtures;
mod fork_of_the_process;
mod full;
mod fuzzed;
mod histories;
mod hostile;
mod index_bits_under_an_open_store;
mod kill;
mod lookups;
mod lost_end;
mod marks;
mod migrate;
mod one_id_in_many_streams;
mod place;
mod queries;
mod read_only;
mod receipts;
mod reopen;
mod repair;
mod repair_with_the_segment_of_another_log;
mod runs_of_no_events;
mod scan;
mod sim;
mod small;
mod torn_data_that_looks_like_frames;
mod verify;
