//! Maintenance of a log by an operator: verification, backup, repair.
//!
//! The modules: `verify` (checks everything), `backup` with `restore`, `repair` (copies the intact part of a
//! damaged log to a new one), `migrate` (rewrites indexes of an earlier version). Below them: `salvage` and
//! `headless` (find the intact frames of a damaged segment), `work` (progress, rate and cancellation).
//!
//! The store does not depend on these modules.

pub mod backup;
pub mod headless;
pub mod migrate;
pub mod repair;
pub mod salvage;
pub mod verify;
pub mod work;
