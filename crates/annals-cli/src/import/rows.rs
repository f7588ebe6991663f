//! The rows of a file, one after the other, in any format. This file does not depend on events.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::csv::Records;
use super::input::{Line, Lines};
use super::json::Values;
use super::{BadLine, Format};
use crate::output::note;

/// One row of a file.
pub(crate) struct Row {
    /// The line on which it begins, from 1.
    pub(crate) line: u64,
    /// That line as it is counted in the id of the row.
    by_feeds: u64,
    /// A number that distinguishes it from equal rows that began on that line before it.
    nth: u64,
    /// Its content.
    pub(crate) content: Content,
}

/// The content of a row.
pub(crate) enum Content {
    /// Columns with the names of the header line.
    Cells(Arc<[String]>, Vec<String>),
    /// A JSON object, not yet parsed.
    Json(Vec<u8>),
}

impl Row {
    /// The size of the content in bytes.
    pub(crate) fn content_bytes(&self) -> usize {
        match &self.content {
            Content::Cells(_, cells) => cells.iter().map(String::len).sum(),
            Content::Json(text) => text.len(),
        }
    }

    /// The approximate size in bytes of the event that the row becomes.
    pub(crate) fn event_bytes(&self) -> usize {
        match &self.content {
            Content::Cells(names, cells) => names.iter().chain(cells).map(|text| text.len() + 4).sum(),
            Content::Json(line) => line.len(),
        }
    }

    /// Adds the row to a digest, so that different rows have different digests.
    pub(crate) fn digest(&self, digest: &mut Sha256) {
        let mut add = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        add(&self.by_feeds.to_le_bytes());
        if self.nth > 0 {
            add(&self.nth.to_le_bytes());
        }
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
    /// Records of CSV.
    Csv(Box<Records>, Arc<[String]>, Alike),
    /// Lines with columns that are separated by blanks.
    Columns(Lines, Arc<[String]>),
    /// JSON objects.
    Json(Box<Values>),
}

impl Rows {
    /// Reads the header line, if the format has one. Only CSV has a delimiter.
    pub(crate) fn open(
        format: Format,
        delimiter: Option<u8>,
        reader: Box<dyn Read>,
    ) -> Result<Self, BadLine> {
        match format {
            Format::Jsonl => Ok(Self::Json(Box::new(Values::new(reader)?))),
            Format::Columns => {
                let mut lines = Lines::new(reader);
                let (line, header) = lines.next_line()?.ok_or_else(no_header)?;
                let names = text(line, header)?.split_ascii_whitespace().map(str::to_owned).collect();
                Ok(Self::Columns(lines, checked_names(line, names)?))
            }
            Format::Csv => {
                let mut csv = Records::new(reader, delimiter)?;
                let (Line { number: line, .. }, names) = csv.next_record()?.ok_or_else(no_header)?;
                Ok(Self::Csv(Box::new(csv), checked_names(line, named(line, names)?)?, Alike::default()))
            }
        }
    }

    /// The names of the columns; `None` if each row has its own.
    pub(crate) fn names(&self) -> Option<&[String]> {
        match self {
            Self::Csv(_, names, _) | Self::Columns(_, names) => Some(names),
            Self::Json(_) => None,
        }
    }

    /// Another delimiter that the header line probably has, if it has only one column.
    pub(crate) fn likely_delimiter(&self) -> Option<&'static str> {
        let Self::Csv(csv, names, _) = self else { return None };
        let [name] = &**names else { return None };
        let likely = [(b';', "';'"), (b'\t', "tab"), (b'|', "'|'"), (b',', "','")];
        let found = likely.into_iter().filter(|(sign, _)| *sign != csv.delimiter());
        found
            .max_by_key(|(sign, _)| name.bytes().filter(|byte| byte == sign).count())
            .filter(|(sign, _)| name.as_bytes().contains(sign))
            .map(|(_, written)| written)
    }

    /// The next row. Empty lines are skipped.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, BadLine> {
        match self {
            Self::Json(values) => {
                let Some((line, nth, text)) = values.next_value()? else { return Ok(None) };
                let Line { number: line, by_feeds } = line;
                Ok(Some(Row { line, by_feeds, nth, content: Content::Json(text) }))
            }
            Self::Columns(lines, names) => {
                let Some((line, bytes)) = lines.next_line()? else { return Ok(None) };
                let cells = text(line, bytes)?.split_ascii_whitespace().map(str::to_owned).collect();
                row(Line { number: line, by_feeds: line }, names, cells).map(Some)
            }
            Self::Csv(csv, names, alike) => {
                let Some((line, cells)) = csv.next_record()? else { return Ok(None) };
                let mut row = row(line, names, cells)?;
                row.nth = alike.number(&row, csv.line().by_feeds == row.by_feeds);
                Ok(Some(row))
            }
        }
    }
}

/// Distinguishes equal rows on one line, as counted by line feeds: in some old files, lines end with only a
/// carriage return.
#[derive(Default)]
pub(crate) struct Alike {
    line: u64,
    rows: u64,
    /// The digests of the rows on that line.
    seen: HashSet<[u8; 8]>,
}

impl Alike {
    /// Returns 0 for the first of equal rows on a line. `more` is whether another row may follow on this
    /// line.
    fn number(&mut self, row: &Row, more: bool) -> u64 {
        if self.line != row.by_feeds {
            (self.line, self.rows) = (row.by_feeds, 0);
            self.seen.clear();
            if !more {
                return 0;
            }
        }
        let mut digest = Sha256::new();
        row.digest(&mut digest);
        let digest = digest.finalize();
        let first = self.seen.insert(std::array::from_fn(|byte| digest[byte]));
        self.rows += 1;
        if first { 0 } else { self.rows }
    }
}

fn row(line: Line, names: &Arc<[String]>, mut cells: Vec<String>) -> Result<Row, BadLine> {
    let Line { number: line, by_feeds } = line;
    // A delimiter at the end of a line adds an empty cell.
    while cells.len() > names.len() && cells.last().is_some_and(String::is_empty) {
        cells.pop();
    }
    if cells.len() != names.len() {
        let problem = format!("has {} columns, the header line has {}", cells.len(), names.len());
        return Err(BadLine::new(line, problem));
    }
    Ok(Row { line, by_feeds, nth: 0, content: Content::Cells(Arc::clone(names), cells) })
}

/// Converts bytes to text.
pub(crate) fn text(line: u64, bytes: Vec<u8>) -> Result<String, BadLine> {
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        BadLine::new(
            line,
            format!("is not UTF-8, from its byte {byte} on; name the encoding of the file with --encoding"),
        )
    })
}

/// The names of the columns. A column without a name, such as the index of a data frame, is named by its
/// number. Unnamed columns at the end of the line are dropped; a row with a value there is refused.
fn named(line: u64, mut names: Vec<String>) -> Result<Vec<String>, BadLine> {
    if names.iter().any(|name| name.contains('\0')) {
        let hint = "if the file is UTF-16, name that with --encoding utf-16le or utf-16be";
        return Err(BadLine::new(line, format!("a name has a NUL character in it; {hint}")));
    }
    while names.last().is_some_and(String::is_empty) {
        names.pop();
    }
    if names.is_empty() {
        return Err(BadLine::new(line, "no column has a name"));
    }
    for (index, name) in names.iter_mut().enumerate().filter(|(_, name)| name.is_empty()) {
        *name = format!("column_{}", index + 1);
        note(&format!("annals: column {} has no name; it is kept as `{name}`", index + 1));
    }
    Ok(names)
}

fn checked_names(line: u64, names: Vec<String>) -> Result<Arc<[String]>, BadLine> {
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(BadLine::column(line, name, "is the name of two columns"));
        }
    }
    Ok(names.into())
}

fn no_header() -> BadLine {
    BadLine::new(1, "the file is empty; a header line names the columns")
}
