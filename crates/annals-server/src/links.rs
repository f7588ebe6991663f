//! Where things are: the paths that answers and pages point to, with names encoded for them.

use std::fmt::Write as _;

use annals_core::{Position, RecordedEvent, StreamId, Witness};

/// The stream in the API.
pub(crate) fn api_stream(stream: &StreamId) -> String {
    stream_below("/v1", stream)
}

/// The stream's page in the console.
pub(crate) fn stream(stream: &StreamId) -> String {
    stream_below("", stream)
}

/// A path cannot end in `.` or `..`, percent-encoded or not: clients take it for a way to another one. Streams of these
/// names are named by a parameter.
fn stream_below(root: &str, stream: &StreamId) -> String {
    match stream.as_str() {
        dots @ ("." | "..") => format!("{root}/stream?name={dots}"),
        name => format!("{root}/streams/{}", encode(name)),
    }
}

/// The link with one parameter more.
pub(crate) fn with(link: &str, name: &str, value: impl std::fmt::Display) -> String {
    let separator = if link.contains('?') { '&' } else { '?' };
    format!("{link}{separator}{name}={value}")
}

/// The event's page in the console. It names the event, so that it leads to no other one after a restore.
pub(crate) fn event(event: &RecordedEvent) -> String {
    format!("/events/{}", Witness::of(event))
}

/// The page of whatever event is at this position.
pub(crate) fn position(position: Position) -> String {
    format!("/events/{position}")
}

/// The event in the API.
pub(crate) fn api_event(event: &RecordedEvent) -> String {
    format!("/v1/events?from={}&limit=1", Witness::of(event))
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
    let words = name.split('-').map(|word| match word {
        "id" => "ID".to_owned(),
        word => {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        }
    });
    words.collect::<Vec<_>>().join("-")
}
