//! Output for people: aligned tables, colours only on a terminal, and no control characters from data.
//!
//! - O1  A closed pipe at standard output (`| head`) is detected only here, where output is written: any
//!   other broken connection is a failure. The rest of the output is dropped, the exit code is the same as
//!   without the closed pipe, and a command that only prints stops early.
//! - O2  A note that cannot be written to standard error is ignored.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

/// Standard output. A closed pipe is an error of its own kind: [`is_closed`].
pub(crate) struct Standard(io::Stdout);

/// The reader of standard output closed its end.
#[derive(Debug, thiserror::Error)]
#[error("the reader of standard output closed its end")]
struct ReaderClosed;

/// Whether this is the error of [`Standard`] for a closed pipe.
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

/// Writes a line to standard error. A failure is ignored.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(line));
}

/// Whether output on a terminal is coloured.
pub(crate) fn colours_are_wanted() -> bool {
    colours(std::env::var_os("NO_COLOR"), std::env::var_os("TERM"))
}

fn colours(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && !is_dumb(term)
}

/// Whether a terminal supports no control sequences, by its name.
pub(crate) fn is_dumb(term: Option<OsString>) -> bool {
    term.is_some_and(|term| term == "dumb")
}

/// The output of a command.
pub(crate) struct Output {
    out: io::BufWriter<Standard>,
    /// Whether the reader closed its end.
    closed: bool,
    /// Whether colours are wanted.
    colour: bool,
    /// Columns of the terminal; none if the output is not one.
    width: Option<usize>,
}

/// The emphasis of a piece of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Normal.
    Plain,
    /// Bold.
    Strong,
    /// Dim.
    Quiet,
}

/// Blanks between two columns.
const GAP: usize = 2;
/// The minimum width of a last column that is truncated; with less room, it gets lines of its own.
const LAST_MIN: usize = 30;
/// Blanks before the last column on a line of its own.
const INDENT: usize = 4;

impl Output {
    /// Standard output.
    pub(crate) fn standard() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let colour = terminal && colours_are_wanted();
        let width =
            terminal.then(|| terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0)));
        let out = io::BufWriter::with_capacity(64 << 10, Standard::new());
        Self { out, closed: false, colour, width }
    }

    /// Writes one line without changing it.
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

    /// Flushes the buffer.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.unless_closed(Write::flush)
    }

    /// Whether standard output is a closed pipe.
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
        styled(text, style, self.colour)
    }

    /// Writes rows with aligned columns. The last column gets the rest of the terminal's width; if that is
    /// too little, it has lines of its own.
    pub(crate) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) -> io::Result<()> {
        let table = Table::of(columns, rows, self.width, self.colour);
        let names: Vec<String> = columns.iter().map(|column| column.name.to_owned()).collect();
        self.unless_closed(|out| {
            table.write(&names, Some(Style::Quiet), out)?;
            rows.iter().try_for_each(|row| table.write(row, None, out))
        })
    }
}

fn styled(text: &str, style: Style, colour: bool) -> String {
    match style {
        Style::Strong if colour => format!("\x1b[1m{text}\x1b[0m"),
        Style::Quiet if colour => format!("\x1b[2m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

/// The layout of a table.
struct Table<'a> {
    columns: &'a [Column],
    widths: Vec<usize>,
    /// The width of the last column, if it is on lines of its own.
    below: Option<usize>,
    /// Whether the last column is truncated at its width.
    cut: bool,
    colour: bool,
}

impl<'a> Table<'a> {
    fn of(columns: &'a [Column], rows: &[Vec<String>], width: Option<usize>, colour: bool) -> Self {
        let mut widths: Vec<usize> = columns.iter().map(|column| column.name.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut table = Self { columns, widths, below: None, cut: width.is_some(), colour };
        if let (Some(total), Some((last, before))) = (width, table.widths.split_last_mut()) {
            let room = total.saturating_sub(before.iter().map(|width| width + GAP).sum());
            if *last > room && room < LAST_MIN && !columns[columns.len() - 1].right {
                table.below = Some(total.saturating_sub(INDENT));
            } else {
                *last = (*last).min(room.max(10));
            }
        }
        table
    }

    /// Writes a row, on one line or on two.
    fn write(&self, cells: &[String], style: Option<Style>, out: &mut dyn Write) -> io::Result<()> {
        let on_line = cells.len() - usize::from(self.below.is_some());
        let mut line = String::new();
        for (index, ((column, &width), cell)) in
            self.columns.iter().zip(&self.widths).zip(&cells[..on_line]).enumerate()
        {
            let last = index + 1 == on_line;
            let cell = cut(cell, if last && self.cut && self.below.is_none() { width } else { usize::MAX });
            let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
            let cell = styled(&cell, style.unwrap_or(column.style), self.colour);
            match (column.right, last) {
                (true, _) => line.extend([&*blanks, &*cell]),
                (false, true) => line.push_str(&cell),
                (false, false) => line.extend([&*cell, &*blanks]),
            }
            if !last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        writeln!(out, "{}", line.trim_end())?;
        if let (Some(width), Some(cell)) = (self.below, cells.last().filter(|cell| !cell.is_empty())) {
            let style = style.unwrap_or(self.columns[on_line].style);
            writeln!(out, "{}{}", " ".repeat(INDENT), styled(&cut(cell, width), style, self.colour))?;
        }
        Ok(())
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

/// Truncates the text to this many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The text without control characters: the data of an event must not control a terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => plain.push(' '),
            // Also characters that change the writing direction.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                plain.extend(character.escape_unicode());
            }
            character if character.is_control() => plain.extend(character.escape_unicode()),
            character => plain.push(character),
        }
    }
    plain
}

/// A whole number with thousands separators: 69,659.
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

/// A number with a noun: `1 event`, `69,659 events`.
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
    fn a_terminal_that_cannot_or_shall_not_show_colours_gets_none() {
        for (no_color, term, wanted) in [
            (None, Some("xterm"), true),
            (None, None, true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (None, Some("dumb"), false),
        ] {
            assert_eq!(
                colours(no_color.map(Into::into), term.map(Into::into)),
                wanted,
                "{no_color:?} {term:?}"
            );
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (69_659, "69,659"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }

    /// A table with a short and a long last cell, on a terminal of this width.
    fn drawn(width: Option<usize>) -> Vec<String> {
        let columns = [Column::number("VERSION"), Column::text("DATA", Style::Strong)];
        let rows = [["1", "{}"], ["2", "{\"reference\":\"2017-04-15/0042\"}"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let (table, mut out) = (Table::of(&columns, &rows, width, false), Vec::new());
        table.write(&["VERSION".to_owned(), "DATA".to_owned()], None, &mut out).unwrap();
        rows.iter().for_each(|row| table.write(row, None, &mut out).unwrap());
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_column_has_what_is_left_of_the_width_or_lines_of_its_own() {
        let whole = ["VERSION  DATA", "      1  {}", "      2  {\"reference\":\"2017-04-15/0042\"}"];
        assert_eq!(drawn(None), whole);
        assert_eq!(drawn(Some(80)), whole);
        let cut = ["VERSION  DATA", "      1  {}", "      2  {\"reference\":\"2017-04-15/0042…"];
        assert_eq!(drawn(Some(39)), cut);
        let narrow =
            ["VERSION", "    DATA", "      1", "    {}", "      2", "    {\"reference\":\"2017-04-15/00…"];
        assert_eq!(drawn(Some(32)), narrow);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_shows_it() {
        assert_eq!(cut("계좌계좌", 3), "계좌…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
