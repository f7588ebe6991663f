//! Records of CSV with the lines on which they begin: one record may stand on several lines.

use std::io::{BufRead, BufReader, Read};

use csv_core::ReadRecordResult as Next;

use super::BadLine;

/// A record: the line on which it begins, and its cells.
type Record<'r> = (u64, Vec<&'r [u8]>);

/// The records of a file.
pub(crate) struct Records {
    file: BufReader<Box<dyn Read>>,
    reader: csv_core::Reader,
    /// The line that is being read, with its end, and how far.
    text: Vec<u8>,
    read: usize,
    line: u64,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    pub(crate) fn new(file: Box<dyn Read>) -> Self {
        Self {
            file: BufReader::with_capacity(256 << 10, file),
            reader: csv_core::Reader::new(),
            text: Vec::new(),
            read: 0,
            line: 0,
            fields: vec![0; 1 << 10],
            ends: vec![0; 1 << 4],
        }
    }

    /// The next record. Empty lines are passed over.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record<'_>>, BadLine> {
        let (mut bytes, mut cells, mut begin) = (0, 0, None);
        loop {
            if self.read == self.text.len() {
                self.next_line()?;
            }
            let text = &self.text[self.read..];
            if begin.is_none() && !text.trim_ascii().is_empty() {
                begin = Some(self.line);
            }
            let (next, taken, filled, ended) =
                self.reader.read_record(text, &mut self.fields[bytes..], &mut self.ends[cells..]);
            self.read += taken;
            bytes += filled;
            cells += ended;
            match next {
                Next::InputEmpty => {}
                Next::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                Next::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                Next::Record => break,
                Next::End => return Ok(None),
            }
        }
        let starts = std::iter::once(&0).chain(&self.ends);
        let record = starts.zip(&self.ends[..cells]).map(|(&start, &end)| &self.fields[start..end]);
        Ok(Some((begin.unwrap_or(self.line), record.collect())))
    }

    /// Reads one more line; none is left if it is empty.
    fn next_line(&mut self) -> Result<(), BadLine> {
        self.text.clear();
        self.read = 0;
        self.line += 1;
        let read = self.file.read_until(b'\n', &mut self.text);
        read.map(drop).map_err(|error| BadLine::new(self.line, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Vec<(u64, Vec<String>)> {
        let mut records = Records::new(Box::new(std::io::Cursor::new(text.to_owned().into_bytes())));
        let mut all = Vec::new();
        while let Some((line, record)) = records.next_record().unwrap() {
            let cells = record.into_iter().map(|cell| String::from_utf8(cell.to_vec()).unwrap());
            all.push((line, cells.collect()));
        }
        all
    }

    #[test]
    fn each_record_has_the_line_on_which_it_begins_whatever_ends_the_lines() {
        for end in ["\n", "\r\n"] {
            let text = ["\u{feff}a,b", "1,2", "", "\"x", "y\",\"say \"\"so\"\"\"", "3,", "4,5"].join(end);
            let inner = format!("x{end}y");
            let expected = [
                (1, ["a", "b"]),
                (2, ["1", "2"]),
                (4, [&inner, "say \"so\""]),
                (6, ["3", ""]),
                (7, ["4", "5"]),
            ];
            let expected = expected.map(|(line, cells)| (line, cells.map(str::to_owned).to_vec()));
            assert_eq!(records(&text), expected);
            assert_eq!(records(&(text + end)), expected);
        }
    }

    #[test]
    fn a_record_may_be_longer_than_any_buffer() {
        let cell = "x".repeat(5_000);
        let wide = vec![cell.as_str(); 40].join(",");
        let records = records(&format!("{wide}\n{wide}\n"));
        assert_eq!(records.len(), 2);
        assert!(
            records.iter().all(|(_, cells)| cells.len() == 40 && cells.iter().all(|other| *other == cell))
        );
    }
}
