//! The log as bytes on disk: segments of frames, one append per frame. `docs/file-format.md` shows the
//! layout.
//!
//! The modules, from the smallest unit to the largest: `encoding` (numbers), `terms` (the index keys of an
//! event), `frame` (an append), `segment` (a file of frames). Beside the segments: `identity` (which log it
//! is), `durable` (how far it was acknowledged), and `small_file`, which reads and writes both. `candidate`
//! searches arbitrary bytes for frames.
//!
//! Does not know where to find events (`index`), what readers see (`read`) or what is appended (`commit`).

pub mod candidate;
pub mod durable;
pub mod encoding;
pub mod frame;
pub mod identity;
pub mod segment;
pub mod small_file;
pub mod terms;
