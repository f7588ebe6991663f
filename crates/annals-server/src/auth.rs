//! Authorization: tokens, the rights that they grant, and the view of the log for a token.
//!
//! ```text
//! rights.rs   verbs and categories; the conditions that an append may have
//! tokens.rs   a file with a line for each token; tokens are compared by their hashes
//! gate.rs     the tokens in force, and the file from which they are reloaded
//! scoped.rs   a log that shows the events of some categories only
//! ```
//!
//! - A1  The file holds the SHA-256 of each token, so a copy of the file grants no access.
//! - A2  An invalid file changes nothing: the previous tokens stay in force.
//! - A3  Handlers get the log through the view of the token, so no handler can show more. Scoped logs also
//!   omit the texts of errors, which may quote the contents of a database or a file.
//!
//! It does not handle requests: `access.rs` takes the token from a request.

mod gate;
mod rights;
mod scoped;
mod tokens;

pub use gate::TokenFile;
pub(crate) use gate::{Gate, Known};
pub(crate) use rights::{Categories, Forbidden, Rights};
pub(crate) use scoped::{Scoped, is_hidden};
pub use tokens::{Grant, Issued, check_tokens};
