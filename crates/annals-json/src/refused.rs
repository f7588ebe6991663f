//! Errors in JSON input, in the terms of JSON: the library's messages name maps, sequences and `u16`.

use annals_core::Invalid;
use serde_json::error::Category;
use serde_path_to_error::{Error, Path, Segment};

/// The problem, with the path of the field below `root`, which names the whole.
pub fn syntax_error(error: &Error<serde_json::Error>, root: &str) -> Invalid {
    let (message, place) = split_place(error.inner());
    let mut field = path_of(error.path(), root);
    let named = |kind: &str| message.strip_prefix(kind)?.strip_prefix(" field `")?.split_once('`');
    // A missing or repeated field has no path of its own.
    let mut below = |name: &str| {
        field.push_str(if field.is_empty() { "" } else { "." });
        field.push_str(name);
    };
    let problem = if let Some((name, _)) = named("missing") {
        below(name);
        "is missing".to_owned()
    } else if let Some((name, _)) = named("duplicate") {
        below(name);
        "is there twice".to_owned()
    } else if let Some((_, expected)) = named("unknown") {
        let known = expected.trim_start_matches(", expected ").trim_start_matches("one of ");
        format!("is not a field here; known are {known}")
    } else {
        in_words(&message, error.inner().classify())
    };
    if field.is_empty() {
        field.push_str("body");
    }
    Invalid::new(field, format!("{problem}{place}"))
}

/// The message without its location, and the location.
fn split_place(error: &serde_json::Error) -> (String, String) {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(before) => (before.to_owned(), place),
        None => (message, String::new()),
    }
}

fn in_words(message: &str, category: Category) -> String {
    let other = ["invalid type: ", "invalid value: "].into_iter().find_map(|kind| message.strip_prefix(kind));
    // The found value may be text from a client, so the last match counts.
    match (other.and_then(|other| other.rsplit_once(", expected ")), category) {
        (Some((there, expected)), _) => format!("is {}; it must be {}", found(there), wanted(expected)),
        (None, Category::Eof) => "ends before its JSON does".to_owned(),
        (None, Category::Syntax) => format!("is not JSON: {message}"),
        (None, _) => format!("cannot be read: {message}"),
    }
}

/// The found value.
fn found(there: &str) -> String {
    match there {
        "map" => "an object".to_owned(),
        "sequence" => "an array".to_owned(),
        "unit value" => "null".to_owned(),
        other => {
            let number = other.strip_prefix("integer ").or_else(|| other.strip_prefix("floating point "));
            match (number, other.strip_prefix("boolean "), other.strip_prefix("string ")) {
                (Some(number), ..) => format!("the number {}", number.trim_matches('`')),
                (_, Some(word), _) => word.trim_matches('`').to_owned(),
                (.., Some(text)) => format!("the string {text}"),
                _ => other.to_owned(),
            }
        }
    }
}

/// The expected value.
fn wanted(expected: &str) -> &str {
    match expected {
        "a map" => "an object",
        "a sequence" => "an array",
        "u16" => "a whole number from 0 to 65535",
        "a borrowed string" => "a string",
        other => other,
    }
}

/// The path of a field below `root`, as far as it is known: if the text ends within a name, the path ends
/// before it.
fn path_of(path: &Path, root: &str) -> String {
    let mut field = root.to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => field.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                field.push_str(if field.is_empty() { "" } else { "." });
                field.push_str(key);
            }
            Segment::Unknown => {}
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incoming, List, Object, bounded};

    fn message(body: &str) -> String {
        let mut json = serde_json::Deserializer::from_str(body);
        let read = || serde_path_to_error::deserialize::<_, List<Object<Incoming<'_>>>>(&mut json);
        bounded(1 << 20, read)
            .err()
            .map_or_else(String::new, |error| syntax_error(&error, "events").to_string())
    }

    #[test]
    fn errors_are_reported_in_the_terms_of_json() {
        for (body, words) in [
            ("{}", "events is an object; it must be an array"),
            ("null", "events is null; it must be an array"),
            ("\"x, expected y\"", "events is the string \"x, expected y\"; it must be an array"),
            ("[[]]", "events[0] is an array; it must be an object"),
            ("[1.5]", "events[0] is the number 1.5; it must be an object"),
            ("[{\"type\":null}]", "events[0].type is null; it must be a string"),
            ("[{\"type\":true}]", "events[0].type is true; it must be a string"),
            ("[{\"type\":{}}]", "events[0].type is an object; it must be a string"),
            (
                "[{\"schema_version\":-1}]",
                "events[0].schema_version is the number -1; it must be a whole number from 0 to 65535",
            ),
            (
                "[{\"schema_version\":\"1\"}]",
                "events[0].schema_version is the string \"1\"; it must be a whole number",
            ),
            ("[{\"tags\":\"a\"}]", "events[0].tags is the string \"a\"; it must be an array"),
            ("[{\"metadata\":[]}]", "events[0].metadata is an array; it must be an object"),
            (
                "[{\"metadata\":{\"own\":{\"a\":1}}}]",
                "events[0].metadata.own.a is the number 1; it must be a string",
            ),
            ("[{\"data\":1}]", "events[0].type is missing"),
            ("[{\"type\":\"a\",\"type\":\"b\"}]", "events[0].type is there twice"),
            ("[{\"kind\":\"a\"}]", "events[0].kind is not a field here; known are `stream`, `id`, `type`"),
            ("[{\"type\":\"a\"", "events[0] ends before its JSON does"),
            ("", "events ends before its JSON does"),
            ("[x]", "events[0] is not JSON: expected value"),
        ] {
            let message = message(body);
            assert!(message.starts_with(words), "{body}: {message}");
            for word in ["sequence", "map", "u16", "invalid type", "EOF"] {
                assert!(!message.contains(word), "{body}: {message}");
            }
        }
    }
}
