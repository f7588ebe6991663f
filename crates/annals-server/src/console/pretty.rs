//! Data for people to read: JSON indented without a change to any token, other bytes as hexadecimal digits.

use std::fmt::Write as _;

use crate::event_json;

/// Deepest level that is indented further.
const LEVEL_MAX: usize = 40;

/// JSON, indented, to about this many bytes. Numbers, strings and the order of keys stay as they are. What is not JSON
/// is shown as text.
pub(super) fn json(data: &[u8], bytes_max: usize) -> String {
    let Ok(text) = event_json::json_text(data) else { return String::from_utf8_lossy(data).into_owned() };
    let mut out = String::with_capacity(bytes_max.min(text.get().len() * 2));
    let mut level = 0_usize;
    let mut rest = text.get().chars().filter(not_blank_outside_strings()).peekable();
    let mut in_string = Quotes::default();
    while let Some(token) = rest.next() {
        if out.len() > bytes_max {
            out.push('…');
            break;
        }
        if in_string.holds(token) {
            out.push(token);
            continue;
        }
        match token {
            '{' | '[' => {
                out.push(token);
                if let Some(close) = rest.next_if(|&next| next == '}' || next == ']') {
                    out.push(close);
                } else {
                    level += 1;
                    new_line(&mut out, level);
                }
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                new_line(&mut out, level);
                out.push(token);
            }
            ',' => {
                out.push(token);
                new_line(&mut out, level);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    out
}

/// Bytes as hexadecimal digits, 16 a line.
pub(super) fn bytes(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len() * 3);
    for line in data.chunks(16) {
        for byte in line {
            write!(out, "{byte:02x} ").expect("a string takes every write");
        }
        out.push('\n');
    }
    out
}

fn new_line(out: &mut String, level: usize) {
    out.push('\n');
    for _ in 0..level.min(LEVEL_MAX) {
        out.push_str("  ");
    }
}

/// Follows a text through its strings.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether this next character belongs to a string; its quotation marks do.
    fn holds(&mut self, next: char) -> bool {
        match (self.open, next) {
            (true, _) if self.escaped => self.escaped = false,
            (true, '\\') => self.escaped = true,
            (true, '"') => self.open = false,
            (true, _) => {}
            (false, '"') => self.open = true,
            (false, _) => return false,
        }
        true
    }
}

fn not_blank_outside_strings() -> impl FnMut(&char) -> bool {
    let mut quotes = Quotes::default();
    move |&next| quotes.holds(next) || !next.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_its_tokens_stay_as_they_are() {
        let data = br#"{"b":1.50, "a":[1,{}, []],"s":"{\"x\": [1,2]} \\","n":null}"#;
        let pretty = "{\n  \"b\": 1.50,\n  \"a\": [\n    1,\n    {},\n    []\n  ],\n  \
                      \"s\": \"{\\\"x\\\": [1,2]} \\\\\",\n  \"n\": null\n}";
        assert_eq!(json(data, 1 << 20), pretty);
    }

    #[test]
    fn what_is_not_json_is_shown_as_it_is() {
        assert_eq!(json(b"{half", 1 << 20), "{half");
    }

    #[test]
    fn deep_json_does_not_grow_with_the_square_of_its_depth() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(json(deep.as_bytes(), 100_000).len() < 200_000);
    }
}
