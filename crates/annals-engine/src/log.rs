//! The log as bytes on disk: segments of frames, of which each holds an append. `docs/file-format.md` has the pictures.
//!
//! The files, from the smallest to the largest: `encoding` (numbers), `body` (an event as it was given), `terms` (what it is
//! found by), `frame` (an append), `segment` (a file of frames). Beside the segments: `identity` (which log it is), `durable`
//! (how far it was acknowledged). `candidate` looks for frames where anything may be.
//!
//! Does not know where events are found (`index`), what readers see (`read`) and what is appended (`commit`).

pub mod body;
pub mod candidate;
pub mod durable;
pub mod encoding;
pub mod frame;
pub mod identity;
pub mod segment;
pub mod terms;
