//! Who may do what: tokens, the rights that they give, and the log as a token sees it.
//!
//! ```text
//! rights.rs   verbs and categories; what an append must not ask about
//! tokens.rs   a file with a line for each token; tokens are compared by their hashes
//! gate.rs     the tokens in force, and the file that they are read from again
//! scoped.rs   a log that shows the events of some categories only
//! ```
//!
//! - A1  A token is known by its SHA-256: the file, which holds hashes, lets nobody in.
//! - A2  A file that cannot be taken changes nothing: the tokens before it stay in force.
//! - A3  A log is handed out as the token sees it, so no handler can show more. Scoped logs also leave out the texts of
//!   errors, which may quote what a database or a file holds.
//!
//! It knows no request: `access.rs` finds the token in one.

mod gate;
mod rights;
mod scoped;
mod tokens;

pub use gate::TokenFile;
pub(crate) use gate::{Gate, Known};
pub(crate) use rights::{Categories, Forbidden, Rights};
pub(crate) use scoped::{Scoped, is_hidden};
pub use tokens::{Grant, Issued, check_tokens};
