//! Where things are: the paths that answers and pages point to, with names encoded for them.

use std::fmt::Write as _;

use annals_core::{Position, StreamId};

/// The stream in the API.
pub(crate) fn api_stream(stream: &StreamId) -> String {
    format!("/v1/streams/{}", encode(stream.as_str()))
}

/// The stream's page in the console.
pub(crate) fn stream(stream: &StreamId) -> String {
    format!("/streams/{}", encode(stream.as_str()))
}

/// The event's page in the console.
pub(crate) fn event(position: Position) -> String {
    format!("/events/{position}")
}

/// The text as a part of a path or of a query string: all but letters, digits and `-._~` is percent-encoded.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes every write"),
        }
    }
    encoded
}

/// The name of a header as it is usually written: `expected-version` is `Expected-Version`.
pub(crate) fn header_name(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}
