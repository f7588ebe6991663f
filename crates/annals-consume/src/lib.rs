//! Following a log: first the events that are stored, then live ones, without a seam.
//!
//! A position alone does not say which history it belongs to. After a failover or a restore that lost events, a reader that
//! resumes by position passes over what took the positions of the lost ones, or waits at an end of the log that is gone. What
//! follows a log therefore keeps witnesses of what it read ([`Ladder`]), and finds them in the log again before it goes further
//! ([`LogReader`]). [`Subscription`] is that, one event at a time.
//!
//! [`Runner`] consumes: it reads a [`Source`] (a log, an outbox, ...), has an [`Effect`] applied to its items, and keeps a
//! checkpoint behind what is applied.
//!
//! Knows the contract (`annals-core`) and needs the timer of tokio. The files, in reading order: `history`, `subscription`;
//! `source`, `effect`, `window`, `runner`.
#![forbid(unsafe_code)]

mod effect;
mod history;
mod runner;
mod source;
mod stop;
mod subscription;
mod window;

pub use annals_core::{caught, panic_text};
pub use effect::{Applied, Effect, SoFar, Stopped};
pub use history::{Found, Ladder, LogReader, Waits, newest, reached};
pub use runner::{Observer, Options, Runner};
pub use source::{Checkpoints, Read, Resumed, Source, WriteError};
pub use stop::Stop;
pub use subscription::Subscription;
pub use window::Reached;
