//! The rows of a file, one after the other, whatever its format. Knows nothing of events.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::csv::Records;
use super::{BadLine, Format};

/// One row of a file.
pub(crate) struct Row {
    /// The line on which it begins, counted from 1.
    pub(crate) line: u64,
    /// What stands in it.
    pub(crate) content: Content,
}

/// What stands in a row.
pub(crate) enum Content {
    /// Columns with the names of the header line.
    Cells(Arc<[String]>, Vec<String>),
    /// A JSON object, not looked at yet.
    Json(Vec<u8>),
}

impl Row {
    /// Bytes that the row holds.
    pub(crate) fn bytes(&self) -> usize {
        match &self.content {
            Content::Cells(_, cells) => cells.iter().map(String::len).sum(),
            Content::Json(line) => line.len(),
        }
    }

    /// Adds the row to a digest, so that no two rows look the same.
    pub(crate) fn digest(&self, digest: &mut Sha256) {
        let mut add = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        add(&self.line.to_le_bytes());
        match &self.content {
            Content::Cells(names, cells) => {
                names.iter().zip(cells).for_each(|(name, cell)| {
                    add(name.as_bytes());
                    add(cell.as_bytes());
                });
            }
            Content::Json(line) => add(line),
        }
    }
}

/// The rows of a file.
pub(crate) enum Rows {
    /// Of CSV.
    Csv(Box<Records>, Arc<[String]>),
    /// Of columns that are separated by blanks.
    Columns(Lines, Arc<[String]>),
    /// Of a JSON object a line.
    Jsonl(Lines),
}

impl Rows {
    /// Reads the header line, if the format has one.
    pub(crate) fn open(format: Format, reader: Box<dyn Read>) -> Result<Self, BadLine> {
        match format {
            Format::Jsonl => Ok(Self::Jsonl(Lines::new(reader))),
            Format::Columns => {
                let mut lines = Lines::new(reader);
                let (line, header) = lines.next_line()?.ok_or_else(no_header)?;
                let names = text(line, &header)?.split_ascii_whitespace().map(str::to_owned).collect();
                Ok(Self::Columns(lines, checked_names(line, names)?))
            }
            Format::Csv => {
                let mut csv = Records::new(reader);
                let (line, names) = cells(&mut csv)?.ok_or_else(no_header)?;
                Ok(Self::Csv(Box::new(csv), checked_names(line, names)?))
            }
        }
    }

    /// The names of the columns; none if each row brings its own.
    pub(crate) fn names(&self) -> Option<&[String]> {
        match self {
            Self::Csv(_, names) | Self::Columns(_, names) => Some(names),
            Self::Jsonl(_) => None,
        }
    }

    /// The next row. Empty lines are passed over.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, BadLine> {
        match self {
            Self::Jsonl(lines) => {
                Ok(lines.next_line()?.map(|(line, bytes)| Row { line, content: Content::Json(bytes) }))
            }
            Self::Columns(lines, names) => {
                let Some((line, bytes)) = lines.next_line()? else { return Ok(None) };
                let cells = text(line, &bytes)?.split_ascii_whitespace().map(str::to_owned).collect();
                row(line, names, cells).map(Some)
            }
            Self::Csv(csv, names) => match cells(csv)? {
                Some((line, cells)) => row(line, names, cells).map(Some),
                None => Ok(None),
            },
        }
    }
}

fn row(line: u64, names: &Arc<[String]>, cells: Vec<String>) -> Result<Row, BadLine> {
    if cells.len() != names.len() {
        let problem = format!("has {} columns, the header line has {}", cells.len(), names.len());
        return Err(BadLine::new(line, problem));
    }
    Ok(Row { line, content: Content::Cells(Arc::clone(names), cells) })
}

/// The lines of a file that are not blank.
pub(crate) struct Lines {
    reader: BufReader<Box<dyn Read>>,
    line: u64,
}

impl Lines {
    pub(crate) fn new(reader: Box<dyn Read>) -> Self {
        Self { reader: BufReader::with_capacity(256 << 10, reader), line: 0 }
    }

    /// The next line that is not blank and its number, without blanks around it.
    pub(crate) fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, BadLine> {
        loop {
            self.line += 1;
            let mut bytes = Vec::new();
            let read = self.reader.read_until(b'\n', &mut bytes);
            if read.map_err(|error| BadLine::new(self.line, error.to_string()))? == 0 {
                return Ok(None);
            }
            // Some programs begin a file with a mark of its byte order.
            let rest = if self.line == 1 { bytes.strip_prefix(b"\xEF\xBB\xBF") } else { None };
            let trimmed = rest.unwrap_or(&bytes).trim_ascii();
            if !trimmed.is_empty() {
                return Ok(Some((self.line, trimmed.to_vec())));
            }
        }
    }
}

/// The cells of the next record of CSV, and its line.
fn cells(csv: &mut Records) -> Result<Option<(u64, Vec<String>)>, BadLine> {
    let Some((line, record)) = csv.next_record()? else { return Ok(None) };
    let cells = record.into_iter().map(|cell| text(line, cell).map(str::to_owned));
    Ok(Some((line, cells.collect::<Result<_, _>>()?)))
}

fn text(line: u64, bytes: &[u8]) -> Result<&str, BadLine> {
    std::str::from_utf8(bytes).map_err(|error| {
        let problem = format!("is not UTF-8, from its byte {} on", error.valid_up_to() + 1);
        BadLine::new(line, problem)
    })
}

fn checked_names(line: u64, names: Vec<String>) -> Result<Arc<[String]>, BadLine> {
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(BadLine::new(line, format!("the name of column {} is empty", index + 1)));
        }
        if names[..index].contains(name) {
            return Err(BadLine::column(line, name, "is the name of two columns"));
        }
    }
    Ok(names.into())
}

fn no_header() -> BadLine {
    BadLine::new(1, "the file is empty; a header line names the columns")
}
