//! Links: the paths in responses and pages, with encoded names.

use std::fmt::Write as _;

use annals_core::{Position, RecordedEvent, StreamId, Witness};

/// The path of the stream in the API.
pub(crate) fn api_stream(stream: &StreamId) -> String {
    stream_below("/v1", stream.as_str())
}

/// The stream's page in the console.
pub(crate) fn stream(stream: &str) -> String {
    stream_below("", stream)
}

/// A path cannot end in `.` or `..`, percent-encoded or not: clients resolve it as a relative path. Streams
/// with these names are given by a parameter.
fn stream_below(root: &str, stream: &str) -> String {
    match stream {
        dots @ ("." | "..") => format!("{root}/stream?name={dots}"),
        name => format!("{root}/streams/{}", encode(name)),
    }
}

/// The link with one more parameter.
pub(crate) fn with(link: &str, name: &str, value: impl std::fmt::Display) -> String {
    let separator = if link.contains('?') { '&' } else { '?' };
    format!("{link}{separator}{name}={value}")
}

/// The event's page in the console. The link contains the event's id, so that it does not lead to another
/// event after a restore.
pub(crate) fn event(event: &RecordedEvent) -> String {
    format!("/events/{}", Witness::of(event))
}

/// The page of the event at this position.
pub(crate) fn position(position: Position) -> String {
    format!("/events/{position}")
}

/// The path of the event in the API.
pub(crate) fn api_event(event: &RecordedEvent) -> String {
    format!("/v1/events?from={}&limit=1", Witness::of(event))
}

/// Encodes a text for a path or a query string: everything except letters, digits and `-._~` is
/// percent-encoded.
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

/// The name of a header in its usual form: `Expected-Version` for `expected-version`.
pub(crate) fn header_name(name: &str) -> String {
    let words = name.split('-').map(|word| match word {
        "id" => "ID".to_owned(),
        word => {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        }
    });
    words.collect::<Vec<_>>().join("-")
}
