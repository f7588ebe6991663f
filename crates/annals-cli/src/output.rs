//! What people see: aligned tables, colours only on a terminal, and no control characters from data.
//!
//! - O1  A reader that closes its end of standard output (`| head`) is noticed here, where output is written, and nowhere
//!   else: any other broken connection is a failure. The rest of the output is dropped, the command ends as it would
//!   have ended, and one that only prints stops early.
//! - O2  A note on standard error that cannot be written changes nothing.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};

/// Standard output, with a reader that closed its end as an error of its own kind: [`is_closed`].
pub(crate) struct Standard(io::Stdout);

/// The reader of standard output closed its end.
#[derive(Debug)]
struct ReaderClosed;

impl fmt::Display for ReaderClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of standard output closed its end")
    }
}

impl std::error::Error for ReaderClosed {}

/// Whether this is the error of [`Standard`] that says that its reader closed its end.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<ReaderClosed>())
}

impl Standard {
    /// Standard output of the process.
    pub(crate) fn new() -> Self {
        Self(io::stdout())
    }
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_reader)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_reader)
    }
}

fn of_reader(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => io::Error::other(ReaderClosed),
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("cannot write to standard output: {error}")),
    }
}

/// Writes a line to standard error, if that takes it.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(line));
}

/// Where and how a command answers.
pub(crate) struct Output {
    out: io::BufWriter<Standard>,
    /// Whether the reader closed its end.
    closed: bool,
    /// Whether colours are wanted.
    colour: bool,
    /// Columns of the terminal; none if the output is not one.
    width: Option<usize>,
}

/// How a piece of text stands out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Not at all.
    Plain,
    /// More than the rest.
    Strong,
    /// Less than the rest.
    Quiet,
}

/// Blanks between two columns.
const GAP: usize = 2;

impl Output {
    /// Standard output.
    pub(crate) fn standard() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let width =
            terminal.then(|| terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0)));
        let out = io::BufWriter::with_capacity(64 << 10, Standard::new());
        Self { out, closed: false, colour, width }
    }

    /// Writes one line as it is.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        self.bytes(line.as_bytes())
    }

    /// Writes bytes and a line break.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unless_closed(|out| {
            out.write_all(bytes)?;
            out.write_all(b"\n")
        })
    }

    /// Sends out what has been written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.unless_closed(Write::flush)
    }

    /// Whether nobody reads what is still written.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn unless_closed(
        &mut self,
        write: impl FnOnce(&mut io::BufWriter<Standard>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let written = write(&mut self.out);
        self.closed = written.as_ref().is_err_and(is_closed);
        if self.closed { Ok(()) } else { written }
    }

    /// The text with its style, if colours are wanted.
    pub(crate) fn styled(&self, text: &str, style: Style) -> String {
        match style {
            Style::Strong if self.colour => format!("\x1b[1m{text}\x1b[0m"),
            Style::Quiet if self.colour => format!("\x1b[2m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// Writes rows with their columns aligned. The last column takes what is left of the terminal's width.
    pub(crate) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) -> io::Result<()> {
        let mut widths: Vec<usize> = columns.iter().map(|column| column.name.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if let (Some(total), Some((last, before))) = (self.width, widths.split_last_mut()) {
            let used: usize = before.iter().map(|width| width + GAP).sum();
            *last = (*last).min(total.saturating_sub(used).max(10));
        }
        let names: Vec<String> = columns.iter().map(|column| column.name.to_owned()).collect();
        self.row(columns, &widths, &names, Some(Style::Quiet))?;
        for row in rows {
            self.row(columns, &widths, row, None)?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        columns: &[Column],
        widths: &[usize],
        cells: &[String],
        style: Option<Style>,
    ) -> io::Result<()> {
        let mut line = String::new();
        for (index, ((column, &width), cell)) in columns.iter().zip(widths).zip(cells).enumerate() {
            let last = index + 1 == columns.len();
            let cell = cut(cell, if last && self.width.is_some() { width } else { usize::MAX });
            let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
            let cell = self.styled(&cell, style.unwrap_or(column.style));
            let written = match (column.right, last) {
                (true, _) => write!(line, "{blanks}{cell}"),
                (false, true) => write!(line, "{cell}"),
                (false, false) => write!(line, "{cell}{blanks}"),
            };
            written.expect("a string takes every write");
            if !last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        self.line(line.trim_end())
    }
}

/// A column of a table.
pub(crate) struct Column {
    name: &'static str,
    right: bool,
    style: Style,
}

impl Column {
    /// A column of text.
    pub(crate) const fn text(name: &'static str, style: Style) -> Self {
        Self { name, right: false, style }
    }

    /// A column of numbers.
    pub(crate) const fn number(name: &'static str) -> Self {
        Self { name, right: true, style: Style::Plain }
    }
}

/// The text, no longer than this many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The text without control characters: what stands in an event must not steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => plain.push(' '),
            // Also the marks that turn the direction of writing around.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                plain.extend(character.escape_unicode());
            }
            character if character.is_control() => plain.extend(character.escape_unicode()),
            character => plain.push(character),
        }
    }
    plain
}

/// A whole number with its thousands apart: 69,659.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut spaced = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            spaced.push(',');
        }
        spaced.push(digit);
    }
    spaced
}

/// A number of things: `1 event`, `69,659 events`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[31m\u{7}\u{202e}b\nc"), "a\\u{1b}[31m\\u{7}\\u{202e}b c");
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (69_659, "69,659"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_shows_it() {
        assert_eq!(cut("계좌계좌", 3), "계좌…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
