//! Consuming a log: first the stored events, then live ones, without a seam.
//!
//! A position alone does not identify a history. After a failover or a restore that lost events, a reader
//! that resumes by position would skip the events that took the positions of the lost ones, or wait at an end
//! of the log that no longer exists. A reader therefore keeps witnesses of the events that it read
//! ([`Ladder`]), and looks for them in the log before it continues ([`LogReader`]). [`Subscription`] does
//! this, one event at a time.
//!
//! [`Runner`] reads a [`Source`] (a log, an outbox, ...), applies an [`Effect`] to its items, and advances a
//! checkpoint past the applied ones.
//!
//! Depends on the contract (`annals-core`) and the timer of tokio. The files, in reading order: `history`,
//! `subscription`; `source`, `effect`, `window`, `blocking`, `runner`.
#![forbid(unsafe_code)]

mod blocking;
mod effect;
mod history;
mod runner;
mod source;
mod stop;
mod subscription;
mod window;

pub use annals_core::{caught, panic_text};
pub use blocking::on_blocking_thread;
pub use effect::{Applied, Effect, SoFar, Stopped};
pub use history::{Found, Ladder, LogReader, Waits, newest, reached};
pub use runner::{Observer, Options, Runner};
pub use source::{Checkpoints, Read, Resumed, Source, WriteError};
pub use stop::Stop;
pub use subscription::Subscription;
pub use window::Reached;
