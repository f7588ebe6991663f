//! What an operator does with a log: check it, copy it, repair it.
//!
//! The files: `verify` (everything that can be checked), `backup` with `restore`, `repair` (what is whole of a damaged log, in
//! a new one), `migrate` (indexes of an earlier version). Below them: `salvage` and `headless` (what is whole in a broken
//! segment), `work` (how far, how fast, and whether to stop).
//!
//! The store does not know of any of it.

pub mod backup;
pub mod headless;
pub mod migrate;
pub mod repair;
pub mod salvage;
pub mod verify;
pub mod work;
