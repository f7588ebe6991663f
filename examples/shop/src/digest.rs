//! SHA-256 as text, for values that must be recognised without being stored.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The digest of a text, as 64 hexadecimal digits.
pub(crate) fn of(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes every write");
        hex
    })
}
