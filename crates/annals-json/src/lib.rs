//! The one JSON form of an event: HTTP, server-sent events, `--json`, export and import.
//!
//! ```text
//! event.rs      a recorded event, and its line; exported.rs: a line of an export
//! incoming.rs   an event that a client sends, which has no place in the log yet
//! object.rs list.rs whole.rs   objects that are objects, lists with a bound, whole numbers that are written `3.0`
//! refused.rs    what is wrong with JSON that cannot be read, in the words of JSON
//! ```
//!
//! It knows events, and no store, no HTTP and no file. Who reads JSON of clients takes the parts of the second half too, so
//! that all of it is read and refused in one way. Read first: `event.rs`.
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
