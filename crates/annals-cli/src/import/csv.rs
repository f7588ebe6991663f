//! CSV records with the lines on which they begin: a record may span several lines.
//!
//! - V1  Nothing is guessed. A quote that is never closed, and text after a closing quote, are refused at
//!   their line: with either, rows would become a part of a value.
//! - V2  A quote within a value that has none at its beginning is text: `5" disk`.
//! - V3  A line `sep=;` at the beginning, as Excel writes it, names the delimiter.

use super::BadLine;
use super::input::{Bytes, Line, ROW_BYTES_MAX, too_long};
use crate::output::note;

/// A record: the line on which it begins, and its cells.
pub(crate) type Record = (Line, Vec<String>);

/// The maximum number of columns, as in Excel.
const COLUMNS_MAX: usize = 16_384;
/// A quoted value with more lines than this is reported: its closing quote may be missing.
const LINES_NOTED: u64 = 300;

/// The records of a file.
pub(crate) struct Records {
    bytes: Bytes,
    delimiter: u8,
}

/// The end of a cell: that of the cell only, or of the record too.
#[derive(PartialEq, Eq)]
enum End {
    Cell,
    Record,
}

impl Records {
    /// The records of a file. Without a given delimiter it is the one that the file names, or else the comma.
    pub(crate) fn new(file: Box<dyn std::io::Read>, delimiter: Option<u8>) -> Result<Self, BadLine> {
        let mut records = Self { bytes: Bytes::new(file)?, delimiter: b',' };
        let named = records.named_delimiter()?;
        records.delimiter = delimiter.or(named).unwrap_or(b',');
        Ok(records)
    }

    /// The delimiter between two cells.
    pub(crate) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// The line of the next byte, after the last record.
    pub(crate) fn line(&self) -> Line {
        self.bytes.line
    }

    /// Skips a first line `sep=;` and returns its delimiter.
    fn named_delimiter(&mut self) -> Result<Option<u8>, BadLine> {
        if !self.bytes.begin_with(b"sep=") {
            return Ok(None);
        }
        let mut line = Vec::new();
        while !matches!(self.bytes.peek()?, None | Some(b'\n' | b'\r')) && line.len() < 8 {
            line.extend(self.bytes.next()?);
        }
        match line[..] {
            [.., delimiter] if line.len() == 5 => {
                self.end_of_line()?;
                Ok(Some(delimiter))
            }
            _ => Err(BadLine::new(1, "`sep=` names a delimiter of one sign, such as `sep=;`")),
        }
    }

    /// The next record. Empty lines are skipped.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record>, BadLine> {
        while let Some(b'\n' | b'\r') = self.bytes.peek()? {
            self.bytes.next()?;
        }
        if self.bytes.peek()?.is_none() {
            return Ok(None);
        }
        let line = self.bytes.line;
        let (mut cells, mut bytes) = (Vec::new(), 0);
        loop {
            let (cell, end) = self.cell(line.number, cells.len() + 1, ROW_BYTES_MAX - bytes)?;
            bytes += cell.len();
            cells.push(cell);
            if end == End::Record {
                return Ok(Some((line, cells)));
            }
            if cells.len() == COLUMNS_MAX {
                return Err(BadLine::new(line.number, format!("has more than {COLUMNS_MAX} columns")));
            }
        }
    }

    /// The next cell, of at most `most` bytes, of the record that begins on line `record`.
    fn cell(&mut self, record: u64, column: usize, most: usize) -> Result<(String, End), BadLine> {
        let begin = self.bytes.line.number;
        let mut cell = Vec::new();
        if self.bytes.peek()? == Some(b'"') {
            self.bytes.next()?;
            self.quoted(begin, column, &mut cell, most)?;
            let lines = self.bytes.line.number - begin;
            if lines > LINES_NOTED {
                let hint = "if its closing quote is missing, there are rows in it";
                note(&format!(
                    "annals: line {begin}: the quoted value that begins here has {lines} lines; {hint}"
                ));
            }
            if !matches!(self.bytes.peek()?, None | Some(b'\n' | b'\r'))
                && self.bytes.peek()? != Some(self.delimiter)
            {
                let begun =
                    if lines == 0 { String::new() } else { format!(", which begins on line {begin}") };
                let problem = format!(
                    "text follows the closing quote of column {column}{begun}; a quote within a quoted value is doubled"
                );
                return Err(BadLine::new(self.bytes.line.number, problem));
            }
        } else {
            loop {
                match self.bytes.peek()? {
                    None | Some(b'\n' | b'\r') => break,
                    Some(byte) if byte == self.delimiter => break,
                    Some(b'"') if !cell.is_empty() && cell.trim_ascii().is_empty() => {
                        let problem =
                            format!("column {column} has a blank before its quote; remove the blank");
                        return Err(BadLine::new(self.bytes.line.number, problem));
                    }
                    Some(_) if cell.len() == most => return Err(too_long(record)),
                    Some(_) => cell.extend(self.bytes.next()?),
                }
            }
        }
        let end = match self.bytes.peek()? {
            Some(byte) if byte == self.delimiter => {
                self.bytes.next()?;
                End::Cell
            }
            _ => {
                self.end_of_line()?;
                End::Record
            }
        };
        Ok((super::rows::text(begin, cell)?, end))
    }

    /// Reads the text after an opening quote, which was already taken, up to and including the closing quote.
    fn quoted(&mut self, begin: u64, column: usize, cell: &mut Vec<u8>, most: usize) -> Result<(), BadLine> {
        loop {
            match self.bytes.next()? {
                Some(b'"') if self.bytes.peek()? == Some(b'"') => {
                    self.bytes.next()?;
                    cell.push(b'"');
                }
                Some(b'"') => return Ok(()),
                Some(byte) if cell.len() < most => cell.push(byte),
                Some(_) => {
                    let problem = format!(
                        "the quote that begins here, in column {column}, is not closed within {} MiB",
                        ROW_BYTES_MAX >> 20
                    );
                    return Err(BadLine::new(begin, problem));
                }
                None => {
                    let problem = format!("the quote that begins here, in column {column}, is never closed");
                    return Err(BadLine::new(begin, problem));
                }
            }
        }
    }

    /// Takes a line feed, a carriage return, or both.
    fn end_of_line(&mut self) -> Result<(), BadLine> {
        if self.bytes.next()? == Some(b'\r') && self.bytes.peek()? == Some(b'\n') {
            self.bytes.next()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, delimiter: Option<u8>) -> Result<Vec<(u64, Vec<String>)>, BadLine> {
        let mut records =
            Records::new(Box::new(std::io::Cursor::new(text.to_owned().into_bytes())), delimiter)?;
        let numbered = |(line, cells): Record| (line.number, cells);
        std::iter::from_fn(|| records.next_record().transpose()).map(|record| record.map(numbered)).collect()
    }

    fn records(text: &str) -> Vec<(u64, Vec<String>)> {
        all(text, None).unwrap()
    }

    #[test]
    fn each_record_has_the_line_on_which_it_begins_whatever_ends_the_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["\u{feff}a,b", "1,2", "", "\"x", "y\",\"say \"\"so\"\"\"", "3,", "4\",5"].join(end);
            let inner = format!("x{end}y");
            let expected = [
                (1, ["a", "b"]),
                (2, ["1", "2"]),
                (4, [&inner, "say \"so\""]),
                (6, ["3", ""]),
                (7, ["4\"", "5"]),
            ];
            let expected = expected.map(|(line, cells)| (line, cells.map(str::to_owned).to_vec()));
            assert_eq!(records(&text), expected);
            assert_eq!(records(&(text + end)), expected);
        }
    }

    #[test]
    fn a_record_may_be_longer_than_any_buffer() {
        let cell = "x".repeat(20_000);
        let wide = vec![cell.as_str(); 40].join(",");
        let records = records(&format!("{wide}\n{wide}\n"));
        assert_eq!(records.len(), 2);
        assert!(
            records.iter().all(|(_, cells)| cells.len() == 40 && cells.iter().all(|other| *other == cell))
        );
    }

    #[test]
    fn a_file_names_its_delimiter() {
        let cells = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        for (text, delimiter, first) in [
            ("sep=;\r\na;b\r\n", None, (2, cells(["a", "b"]))),
            ("\u{feff}sep=\t\na\tb", None, (2, cells(["a", "b"]))),
            ("sep=;\na|b", Some(b'|'), (2, cells(["a", "b"]))),
            ("a;\"b;c\"", Some(b';'), (1, cells(["a", "b;c"]))),
            ("sep,b", None, (1, cells(["sep", "b"]))),
        ] {
            assert_eq!(all(text, delimiter).unwrap()[0], first, "{text}");
        }
        assert!(all("sep=;;\na;b", None).is_err());
    }

    #[test]
    fn what_would_make_rows_a_part_of_a_value_is_refused_at_its_line() {
        for (text, message) in [
            ("a,b\n1,2\n3,\"x\n4,5\n", "line 3: the quote that begins here, in column 2, is never closed"),
            (
                "a,b\n1,\"x\n2,y\n3,\"z\"\n",
                "line 4: text follows the closing quote of column 2, which begins on line 2",
            ),
            ("a,b\n1,\"x\"y\n", "line 2: text follows the closing quote of column 2;"),
            ("a,b\n1,\"x\" \n", "line 2: text follows the closing quote"),
            ("a,b\n1, \"x, y\"\n", "line 2: column 2 has a blank before its quote"),
            ("a,b\n\"", "line 2: the quote that begins here"),
        ] {
            let error = all(text, None).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_record_without_end_is_refused() {
        for begin in ["a,b\n", "a,b\n1,\""] {
            let text = std::io::Cursor::new(begin.to_owned().into_bytes());
            let endless = std::io::Read::chain(text, std::io::repeat(b'x'));
            let mut records = Records::new(Box::new(endless), None).unwrap();
            records.next_record().unwrap();
            let message = records.next_record().unwrap_err().to_string();
            assert!(message.starts_with("line 2: ") && message.contains("1 MiB"), "{message}");
        }
    }
}
