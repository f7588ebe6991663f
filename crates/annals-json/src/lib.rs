//! The one JSON form of an event: HTTP, server-sent events, `--json`, export and import.
//!
//! ```text
//! event.rs      a recorded event, and its line; exported.rs: a line of an export
//! incoming.rs   an event from a client, which has no position yet
//! object.rs list.rs whole.rs   values that must be objects, bounded lists, whole numbers written as `3.0`
//! refused.rs    errors in JSON input, in the terms of JSON
//! ```
//!
//! It is independent of stores, HTTP and files. Code that reads JSON from clients should also use the modules
//! of the second half, so that all JSON is read and refused in the same way. Read first: `event.rs`.
#![forbid(unsafe_code)]

mod event;
mod exported;
mod incoming;
mod list;
mod object;
mod refused;
mod whole;

pub use event::{Embedded, line, parse_line};
pub use exported::{InAppend, export_line, parse_export_line};
pub use incoming::{Incoming, Unreadable};
pub use list::{List, bounded};
pub use object::{Object, object, present};
pub use refused::syntax_error;
pub use whole::whole;
