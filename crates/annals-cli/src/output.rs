//! What people see: aligned tables, colours only on a terminal, and no control characters from data.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Where and how a command answers.
pub(crate) struct Output {
    out: io::BufWriter<io::Stdout>,
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
        Self { out: io::BufWriter::with_capacity(64 << 10, stdout), colour, width }
    }

    /// Writes one line as it is.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Writes bytes and a line break.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.write_all(b"\n")
    }

    /// Sends out what has been written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
