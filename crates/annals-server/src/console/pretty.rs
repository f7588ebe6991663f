//! Data formatted for people: JSON is indented without changing a token, other bytes become a hex dump.

use std::fmt::Write as _;

/// The maximum indentation level.
const LEVEL_MAX: usize = 40;

/// Indents JSON or its beginning, up to about this many bytes. Numbers, strings and the order of keys stay
/// unchanged.
pub(super) fn json(data: &[u8], bytes_max: usize) -> String {
    let text = String::from_utf8_lossy(data);
    let mut out = String::with_capacity(bytes_max.min(text.len() * 2));
    let mut level = 0_usize;
    let mut rest = text.chars().filter(not_blank_outside_strings()).peekable();
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

/// A hex dump: each line has an offset, 16 bytes as hexadecimal digits, and the same bytes as ASCII.
pub(super) fn bytes(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len() * 5);
    for (line, bytes) in data.chunks(16).enumerate() {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let is_shown = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let ascii: String =
            bytes.iter().map(|byte| if is_shown(byte) { char::from(*byte) } else { '.' }).collect();
        writeln!(out, "{:06x}  {digits:48} {ascii}", 16 * line).expect("a string takes every write");
    }
    out
}

fn new_line(out: &mut String, level: usize) {
    out.push('\n');
    for _ in 0..level.min(LEVEL_MAX) {
        out.push_str("  ");
    }
}

/// Tracks whether a position in JSON text is inside a string.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether the next character belongs to a string, including its quotation marks.
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
    fn the_beginning_of_json_is_indented_as_all_of_it() {
        assert_eq!(json(br#"{"a":[1,"b, c"#, 1 << 20), "{\n  \"a\": [\n    1,\n    \"b, c");
    }

    #[test]
    fn bytes_stand_between_their_place_and_their_characters() {
        let lines = bytes(b"Annals\0\xff is a log");
        let expected = "000000  41 6e 6e 61 6c 73 00 ff 20 69 73 20 61 20 6c 6f  Annals.. is a lo\n\
                        000010  67                                               g\n";
        assert_eq!(lines, expected);
    }

    #[test]
    fn deep_json_does_not_grow_with_the_square_of_its_depth() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(json(deep.as_bytes(), 100_000).len() < 200_000);
    }
}
