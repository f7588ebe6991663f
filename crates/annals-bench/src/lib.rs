//! Workloads over any store, and the figures that they give.
//!
//! A workload is a function over a store and a [`Load`]; `Load::TINY` runs with the tests, so that none rots.
//! Each returns [`Figures`], with a digest of what it did, so that a workload that does nothing is seen.
//! Machines are noisy: compare rounds of one run, interleaved, as ratios with their spread ([`Ratio`]).
//!
//! The files: `load`, `figures`, and a file for each workload.
#![forbid(unsafe_code)]

mod figures;
mod load;

mod account;
mod append;
mod bare;
mod framework;

pub mod consume;

pub use account::{Account, AccountFigures, account};
pub use append::append;
pub use bare::{bare, forget_pages};
pub use figures::{Figures, Ratio};
pub use framework::{commands, commands_by_hand, rehydrated};
pub use load::Load;
