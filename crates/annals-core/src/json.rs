//! Checks that bytes are JSON that every reader can read.
//!
//! The check goes beyond the grammar, as RFC 7493 (I-JSON) does: a value that one parser accepts as raw JSON
//! may be unreadable for the program that decodes it, and an event cannot be removed once it is in the log.
//!
//! - The text is UTF-8.
//! - A surrogate escape (`\ud83d`) has its other half.
//! - A name appears once in an object.
//! - A number is finite as a 64-bit float.
//! - Values are nested at most [`JSON_DEPTH_MAX`] levels deep.
//!
//! It takes time in proportion to the length of the input, and less memory than the input. It builds no
//! values and is independent of events; each entry point (HTTP, the command line, imports) calls
//! [`check_json`] on data declared as JSON.

mod canonical;

use std::cmp::Ordering;
use std::fmt;

pub(crate) use canonical::is_same_json;

/// Most levels of nested arrays and objects.
pub const JSON_DEPTH_MAX: usize = 100;

/// Why bytes are not JSON that every reader can read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at line {line} column {column}")]
pub struct InvalidJson {
    /// The problem.
    pub problem: String,
    /// The first wrong byte, counted from 0.
    pub offset: usize,
    /// Its line, counted from 1.
    pub line: usize,
    /// Its byte within the line, counted from 1.
    pub column: usize,
}

/// Checks that bytes are one JSON value that every reader can read, optionally surrounded by blanks.
///
/// # Errors
/// [`InvalidJson`] with the first problem.
pub fn check_json(data: &[u8]) -> Result<(), InvalidJson> {
    let checked = match std::str::from_utf8(data) {
        Ok(_) => Checker { data, at: 0, open: Vec::new(), names: Vec::new() }.check(),
        Err(error) => Err(Problem("is not UTF-8".to_owned(), error.valid_up_to())),
    };
    checked.map_err(|Problem(problem, offset)| {
        let before = &data[..offset];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        InvalidJson { problem, offset, line, column: offset - line_start + 1 }
    })
}

/// A problem, and the byte at which it is.
struct Problem(String, usize);

type Checked<T = ()> = Result<T, Problem>;

/// An array or object that is not closed yet.
enum Open {
    Array,
    /// With the number of pending names at its beginning.
    Object(usize),
}

struct Checker<'a> {
    data: &'a [u8],
    at: usize,
    open: Vec<Open>,
    /// The names of the open objects, as the begin and end of their text.
    names: Vec<(usize, usize)>,
}

impl Checker<'_> {
    fn check(mut self) -> Checked {
        loop {
            self.blanks();
            let opened = self.value()?;
            if !opened && !self.after_value()? {
                break;
            }
        }
        self.blanks();
        if self.at < self.data.len() {
            return self.fail("has more text after its JSON value");
        }
        Ok(())
    }

    fn fail<T>(&self, problem: impl fmt::Display) -> Checked<T> {
        Err(Problem(problem.to_string(), self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Reads a scalar, or the beginning of an array or object up to its first element. Returns whether an
    /// element comes next.
    fn value(&mut self) -> Checked<bool> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(bracket @ (b'[' | b'{')) => {
                if self.open.len() == JSON_DEPTH_MAX {
                    return self.fail(format!("is nested more than {JSON_DEPTH_MAX} levels deep"));
                }
                self.at += 1;
                self.blanks();
                let close = if bracket == b'[' { b']' } else { b'}' };
                if self.peek() == Some(close) {
                    self.at += 1;
                    return Ok(false);
                }
                if bracket == b'[' {
                    self.open.push(Open::Array);
                } else {
                    self.open.push(Open::Object(self.names.len()));
                    self.name()?;
                }
                Ok(true)
            }
            Some(_) => self.fail("has a character where a JSON value should be"),
            None => self.fail("ends where a JSON value should be"),
        }
    }

    /// Reads what follows a value, up to the next element. Returns whether there is one.
    fn after_value(&mut self) -> Checked<bool> {
        while let Some(open) = self.open.last() {
            let (first_name, close) = match open {
                Open::Array => (None, b']'),
                Open::Object(first) => (Some(*first), b'}'),
            };
            self.blanks();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if first_name.is_some() {
                        self.blanks();
                        self.name()?;
                    }
                    return Ok(true);
                }
                Some(byte) if byte == close => {
                    self.at += 1;
                    self.open.pop();
                    if let Some(first) = first_name {
                        self.names_are_different(first)?;
                    }
                }
                Some(_) => {
                    return self.fail(format!("has a character where `,` or `{}` should be", close as char));
                }
                None => return self.fail(format!("ends where `,` or `{}` should be", close as char)),
            }
        }
        Ok(false)
    }

    /// Reads the name of a member and the colon after it.
    fn name(&mut self) -> Checked {
        if self.peek() != Some(b'"') {
            return self.fail("has no name in quotation marks where one should be");
        }
        let name = self.string()?;
        self.names.push(name);
        self.blanks();
        if self.peek() != Some(b':') {
            return self.fail("has no `:` after a name");
        }
        self.at += 1;
        Ok(())
    }

    /// Checks the names of the object that was just closed.
    fn names_are_different(&mut self, first: usize) -> Checked {
        let data = self.data;
        let text = |&(start, end): &(usize, usize)| &data[start..end];
        let names = &mut self.names[first..];
        names.sort_unstable_by(|one, other| compare(text(one), text(other)).then(one.0.cmp(&other.0)));
        let twice = names.windows(2).find(|pair| compare(text(&pair[0]), text(&pair[1])) == Ordering::Equal);
        if let Some(&[_, (start, end)]) = twice {
            let name: String = String::from_utf8_lossy(&data[start..end]).chars().take(100).collect();
            return Err(Problem(format!("has the name `{name}` twice in one object"), start));
        }
        self.names.truncate(first);
        Ok(())
    }

    fn word(&mut self, word: &str) -> Checked<bool> {
        if !self.data[self.at..].starts_with(word.as_bytes()) {
            return self.fail("has a word that is not `true`, `false` or `null`");
        }
        self.at += word.len();
        Ok(false)
    }

    fn digits(&mut self) -> Checked {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.fail("has a number without a digit where one should be");
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Checked {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return self.fail("has a number that begins with 0");
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        // Up to 300 characters without an exponent are below 1e308.
        let number = &self.data[start..self.at];
        let small = number.len() <= 300 && !number.iter().any(|byte| matches!(byte, b'e' | b'E'));
        let finite = || std::str::from_utf8(number).is_ok_and(|text| text.parse().is_ok_and(f64::is_finite));
        if !small && !finite() {
            return Err(Problem("has a number that is larger than any 64-bit float".to_owned(), start));
        }
        Ok(())
    }

    /// Reads a string. Returns the begin and end of the text between its quotation marks.
    fn string(&mut self) -> Checked<(usize, usize)> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((start, self.at - 1));
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => {
                    return self.fail("has a control character in a string, which must be an escape");
                }
                Some(_) => self.at += 1,
                None => return self.fail("ends within a string"),
            }
        }
    }

    fn escape(&mut self) -> Checked {
        match self.data.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let half = || self.fail("has half of a surrogate pair in a string, so it is not text");
                match unit(self.data, self.at) {
                    None => self.fail("has a `\\u` without four hexadecimal digits"),
                    Some(0xd800..=0xdbff) => match unit(self.data, self.at + 6) {
                        Some(0xdc00..=0xdfff) => {
                            self.at += 12;
                            Ok(())
                        }
                        _ => half(),
                    },
                    Some(0xdc00..=0xdfff) => half(),
                    Some(_) => {
                        self.at += 6;
                        Ok(())
                    }
                }
            }
            _ => self.fail("has a `\\` that begins no escape"),
        }
    }
}

/// The UTF-16 unit of an escape `\uXXXX` at this byte.
fn unit(data: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = data.get(at..at + 6)? else { return None };
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
}

/// Compares two strings by value, independent of their escapes.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    if !one.contains(&b'\\') && !other.contains(&b'\\') {
        return one.cmp(other);
    }
    units(one).cmp(units(other))
}

/// The bytes or, for escapes, the code points of a checked string; two strings have the same value if these
/// are equal.
fn units(text: &[u8]) -> impl Iterator<Item = u32> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let next = rest.chars().next()?;
        if next != '\\' {
            at += next.len_utf8();
            return Some(u32::from(next));
        }
        let bytes = text.as_bytes();
        let escaped = bytes.get(at + 1).copied()?;
        if escaped != b'u' {
            at += 2;
            return Some(u32::from(match escaped {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                plain => plain,
            }));
        }
        let first = unit(bytes, at)?;
        at += 6;
        if !(0xd800..=0xdbff).contains(&first) {
            return Some(first);
        }
        let second = unit(bytes, at)?;
        at += 6;
        Some(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_reader_can_read_is_accepted() {
        for json in [
            "{}",
            " [ ] ",
            "null",
            "\"\\ud83d\\ude00 \\n \\u0000 \u{2028}계\"",
            "{\"a\":[1,{\"b\":null},-0.5e-400],\"b\":{\"a\":true},\"\":false}",
            "123456789012345678901234567890.50",
            "\n{\"a\" : 1 , \"b\" : [ 2 ] }\r\n",
        ] {
            assert_eq!(check_json(json.as_bytes()), Ok(()), "{json}");
        }
        let deep = "[".repeat(JSON_DEPTH_MAX) + &"]".repeat(JSON_DEPTH_MAX);
        assert_eq!(check_json(deep.as_bytes()), Ok(()));
    }

    #[test]
    fn what_no_reader_can_read_is_refused_with_its_place() {
        let deep = "[".repeat(JSON_DEPTH_MAX + 1);
        for (json, problem, offset) in [
            (&b""[..], "ends where a JSON value", 0),
            (b"{", "has no name", 1),
            (b"[1,]", "where a JSON value", 3),
            (b"[1 2]", "where `,` or `]`", 3),
            (b"{\"a\" 1}", "no `:`", 5),
            (b"{\"a\":1,}", "has no name", 7),
            (b"nul", "word", 0),
            (b"01", "begins with 0", 1),
            (b"-", "digit", 1),
            (b"1.", "digit", 2),
            (b"1e+", "digit", 3),
            (b"1 2", "more text", 2),
            (b"\"a", "within a string", 2),
            (b"\"\n\"", "control character", 1),
            (b"\"\\x\"", "begins no escape", 1),
            (b"\"\\u12g4\"", "hexadecimal", 1),
            (b"\"bye \\ud83d\"", "surrogate", 5),
            (b"\"\\ud83d\\ud83d\\ude00\"", "surrogate", 1),
            (b"{\"\\udc00\":1}", "surrogate", 2),
            (b"\"\xff\"", "UTF-8", 1),
            (b"{\"a\":1,\"b\":2,\"a\":3}", "`a` twice", 14),
            (b"{\"a\":1,\"\\u0061\":3}", "twice", 8),
            (b"[{\"x\":{\"a\":1,\"a\":1}}]", "`a` twice", 14),
            (b"1e999", "64-bit float", 0),
            (deep.as_bytes(), "nested more than 100", 100),
        ] {
            let refused = check_json(json).unwrap_err();
            let text = String::from_utf8_lossy(json);
            assert!(refused.problem.contains(problem), "{text}: {refused}");
            assert_eq!(refused.offset, offset, "{text}: {refused}");
        }
        let refused = check_json(b"{\n \"a\": \"\\ud83d\"}").unwrap_err();
        assert_eq!((refused.line, refused.column), (2, 8));
    }

    #[test]
    fn names_are_compared_by_what_they_mean() {
        for (one, other) in [("a\\/b", "a/b"), ("\\ud83d\\ude00", "😀"), ("\\n", "\\u000a")] {
            let json = format!("{{\"{one}\":1,\"x\":2,\"{other}\":3}}");
            assert!(check_json(json.as_bytes()).unwrap_err().problem.contains("twice"), "{json}");
        }
        assert_eq!(check_json(b"{\"a\":1,\"A\":2,\"\\\\u0061\":3}"), Ok(()));
    }
}
