//! The JSON values of a file, one after the other: one per line, over several lines, or the elements of an
//! array.
//!
//! This file only finds the beginning and the end of a value: `columns` checks that it is JSON when it reads
//! the fields. A value that never ends is refused at the line where it begins.

use super::BadLine;
use super::input::{Bytes, Line, ROW_BYTES_MAX, too_long};

/// A value: the line on which it begins, the number of values that began on that line before it, and its
/// text.
pub(crate) type Value = (Line, u64, Vec<u8>);

/// The values of a file.
pub(crate) struct Values {
    bytes: Bytes,
    array: Array,
    /// The line of the last value, counted by line feeds, and the number of values that began there before
    /// it.
    last: (u64, u64),
}

/// The state of the parser with regard to an array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Array {
    /// Not in an array.
    Outside,
    /// After the opening bracket.
    First,
    /// After a value: a comma or the closing bracket follows.
    After,
    /// After a comma.
    Next,
}

impl Values {
    /// The values of a file.
    pub(crate) fn new(file: Box<dyn std::io::Read>) -> Result<Self, BadLine> {
        Ok(Self { bytes: Bytes::new(file)?, array: Array::Outside, last: (0, 0) })
    }

    /// The next value.
    pub(crate) fn next_value(&mut self) -> Result<Option<Value>, BadLine> {
        loop {
            let Some(byte) = self.next_sign()? else {
                return match self.array {
                    Array::Outside => Ok(None),
                    _ => Err(BadLine::new(
                        self.bytes.line.number,
                        "the file ends within an array; its `]` is missing",
                    )),
                };
            };
            match (self.array, byte) {
                (Array::Outside, b'[') => self.array = Array::First,
                (Array::First | Array::After, b']') => self.array = Array::Outside,
                (Array::After, b',') => self.array = Array::Next,
                (Array::After, _) => {
                    return Err(BadLine::new(
                        self.bytes.line.number,
                        "a `,` or `]` is missing after an element of the array",
                    ));
                }
                _ => return self.value(byte).map(Some),
            }
            self.bytes.next()?;
        }
    }

    /// The next byte that is not white space, without taking it.
    fn next_sign(&mut self) -> Result<Option<u8>, BadLine> {
        while self.bytes.peek()?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.bytes.next()?;
        }
        self.bytes.peek()
    }

    fn value(&mut self, first: u8) -> Result<Value, BadLine> {
        let line = self.bytes.line;
        let nth = if self.last.0 == line.by_feeds { self.last.1 + 1 } else { 0 };
        self.last = (line.by_feeds, nth);
        let text = match first {
            b'{' | b'[' => self.braced(line.number)?,
            _ => self.bare(line.number)?,
        };
        if self.array != Array::Outside {
            self.array = Array::After;
        }
        Ok((line, nth, text))
    }

    /// Reads an object or an array, up to its closing bracket.
    fn braced(&mut self, line: u64) -> Result<Vec<u8>, BadLine> {
        let (mut text, mut depth, mut string, mut escaped) = (Vec::new(), 0_usize, false, false);
        loop {
            let Some(byte) = self.bytes.next()? else {
                return Err(BadLine::new(line, "is not JSON: the value that begins here never ends"));
            };
            text.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = string,
                b'"' => string = !string,
                _ if string => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(text);
            }
            if text.len() == ROW_BYTES_MAX {
                return Err(too_long(line));
            }
        }
    }

    /// Reads a value that is not an object or an array, up to the end of its line or, in an array, of the
    /// element. A row is an object, so such a value is refused later.
    fn bare(&mut self, line: u64) -> Result<Vec<u8>, BadLine> {
        let in_array = self.array != Array::Outside;
        let mut text = Vec::new();
        while let Some(byte) = self.bytes.peek()? {
            if matches!(byte, b'\n' | b'\r') || in_array && matches!(byte, b',' | b']') {
                break;
            }
            if text.len() == ROW_BYTES_MAX {
                return Err(too_long(line));
            }
            text.extend(self.bytes.next()?);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Result<Vec<(u64, u64, String)>, BadLine> {
        let mut values = Values::new(Box::new(std::io::Cursor::new(text.to_owned().into_bytes())))?;
        let owned = |(line, nth, text): Value| (line.number, nth, String::from_utf8(text).unwrap());
        std::iter::from_fn(|| values.next_value().transpose()).map(|value| value.map(owned)).collect()
    }

    #[test]
    fn values_are_found_however_they_are_laid_out() {
        let value = |line, nth, text: &str| (line, nth, text.to_owned());
        for (text, expected) in [
            ("{\"a\":1}\n\n {\"a\":2} \r\n", vec![value(1, 0, "{\"a\":1}"), value(3, 0, "{\"a\":2}")]),
            (
                "{\n \"a\": \"}\\\"{\"\n}{\"b\":[1]}",
                vec![value(1, 0, "{\n \"a\": \"}\\\"{\"\n}"), value(3, 0, "{\"b\":[1]}")],
            ),
            ("\u{feff}[{\"a\":1},{\"a\":1}]", vec![value(1, 0, "{\"a\":1}"), value(1, 1, "{\"a\":1}")]),
            ("[\n {\"a\":1} ,\n {\"a\":[]}\n]\n", vec![value(2, 0, "{\"a\":1}"), value(3, 0, "{\"a\":[]}")]),
            ("[{}]\n[{}]", vec![value(1, 0, "{}"), value(2, 0, "{}")]),
            ("[]", vec![]),
            ("", vec![]),
            ("a,b\n1,2", vec![value(1, 0, "a,b"), value(2, 0, "1,2")]),
        ] {
            assert_eq!(values(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_refused_where_it_begins() {
        for (text, message) in [
            (
                "{\"a\":1}\n{\"a\":2\n{\"a\":3}\n",
                "line 2: is not JSON: the value that begins here never ends",
            ),
            ("{\"a\":\"x}\n", "line 1: is not JSON"),
            ("[{\"a\":1}\n", "line 2: the file ends within an array"),
            ("[{\"a\":1} {\"a\":2}]", "line 1: a `,` or `]` is missing"),
        ] {
            let error = values(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_value_without_end_is_refused() {
        let endless = std::io::Read::chain(&b"{\"a\":\""[..], std::io::repeat(b'x'));
        let message = Values::new(Box::new(endless)).unwrap().next_value().unwrap_err().to_string();
        assert_eq!(message, "line 1: the row that begins here is longer than 1 MiB");
    }
}
