//! Reads a file as UTF-8: gzip is decompressed, other encodings are decoded.
//!
//! Invalid bytes are not replaced: they are an error with the offset of the byte. Reading is bounded: a line
//! or a value of more than [`ROW_BYTES_MAX`] is refused.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::str::FromStr;

use encoding_rs::{Decoder, DecoderResult, Encoding as Known, UTF_8};
use flate2::bufread::MultiGzDecoder;

use super::BadLine;

/// The maximum size of a row in bytes. An event has at most 16 MiB, and its text has less than four times
/// that.
pub(crate) const ROW_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };
/// The size of a read in bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// The encoding of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding(&'static Known);

impl FromStr for Encoding {
    type Err = String;

    /// Accepts the names of the Encoding Standard, and other common names of the same encodings.
    fn from_str(name: &str) -> Result<Self, String> {
        let plain = name.to_ascii_lowercase();
        let label = match &*plain {
            "cp949" | "ms949" | "uhc" => "euc-kr",
            "cp932" => "shift_jis",
            "cp936" => "gbk",
            "cp950" => "big5",
            "latin-1" | "latin_1" => "latin1",
            "utf16" | "utf_16" => "utf-16",
            "utf16le" => "utf-16le",
            "utf16be" => "utf-16be",
            label => label,
        };
        let known = Known::for_label_no_replacement(label.as_bytes()).map(Self);
        known.ok_or_else(|| {
            format!("`{name}` is not an encoding like utf-8, utf-16, cp949, latin1 or windows-1252")
        })
    }
}

/// The file as UTF-8: decompressed if it begins like gzip, decoded if an encoding is named or it begins with
/// the byte order mark of UTF-16. Otherwise it is returned unchanged.
///
/// # Errors
/// If its beginning cannot be read.
pub(crate) fn utf8(file: Box<dyn Read>, encoding: Option<Encoding>) -> io::Result<Box<dyn Read>> {
    let (head, mut file) = peek(file, 2)?;
    if head == b"\x1f\x8b" {
        file = Box::new(Unpacked(MultiGzDecoder::new(BufReader::with_capacity(BLOCK_BYTES, file))));
    }
    let (head, file) = peek(file, 2)?;
    let marked = matches!(&head[..], b"\xff\xfe" | b"\xfe\xff").then_some(UTF_8);
    match encoding.map(|encoding| encoding.0).or(marked) {
        // A byte order mark overrides the named encoding.
        Some(encoding) => Ok(Box::new(Decoded::new(file, encoding))),
        None => Ok(file),
    }
}

/// The first bytes, and a reader that returns them again.
fn peek(mut file: Box<dyn Read>, bytes: u64) -> io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut head = Vec::new();
    file.by_ref().take(bytes).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(file))))
}

/// A reader that decompresses gzip.
struct Unpacked(MultiGzDecoder<BufReader<Box<dyn Read>>>);

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let problem =
                format!("the gzip file cannot be unpacked beyond here, it is cut or damaged: {error}");
            io::Error::new(error.kind(), problem)
        })
    }
}

/// A reader that decodes an encoding.
struct Decoded {
    file: Box<dyn Read>,
    decoder: Decoder,
    /// Bytes that were read and not yet decoded.
    raw: Vec<u8>,
    /// The number of decoded bytes of the file.
    decoded: u64,
    text: Vec<u8>,
    /// The number of bytes of `text` that were returned.
    given: usize,
    ended: bool,
}

impl Decoded {
    fn new(file: Box<dyn Read>, encoding: &'static Known) -> Self {
        let decoder = encoding.new_decoder();
        Self { file, decoder, raw: Vec::new(), decoded: 0, text: Vec::new(), given: 0, ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        let read = self.file.read(&mut block)?;
        self.raw.extend_from_slice(&block[..read]);
        self.ended = read == 0;
        let most = self.decoder.max_utf8_buffer_length_without_replacement(self.raw.len());
        self.text.resize(most.unwrap_or(BLOCK_BYTES), 0);
        let (result, taken, written) =
            self.decoder.decode_to_utf8_without_replacement(&self.raw, &mut self.text, self.ended);
        self.text.truncate(written);
        self.given = 0;
        self.raw.drain(..taken);
        self.decoded += taken as u64;
        match result {
            DecoderResult::Malformed(_, _) => {
                let problem = format!(
                    "is not {}, at byte {} of the file",
                    self.decoder.encoding().name(),
                    self.decoded
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, problem))
            }
            DecoderResult::InputEmpty | DecoderResult::OutputFull => Ok(()),
        }
    }
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            if self.ended {
                return Ok(0);
            }
            self.fill()?;
        }
        let count = buffer.len().min(self.text.len() - self.given);
        buffer[..count].copy_from_slice(&self.text[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The number as in an editor, from 1: a line feed, a carriage return or both end a line.
    pub(crate) number: u64,
    /// The number in the ids of rows, from 1: only a line feed ends a line. This rule never changes, because
    /// ids must not.
    pub(crate) by_feeds: u64,
}

/// The bytes of a file one after the other, with their lines.
pub(crate) struct Bytes {
    reader: BufReader<Box<dyn Read>>,
    /// The line of the next byte.
    pub(crate) line: Line,
    /// The first bytes of the file.
    beginning: Vec<u8>,
}

/// The byte order mark of UTF-8, with which some programs begin a file.
const MARK: &[u8] = b"\xEF\xBB\xBF";

impl Bytes {
    /// Starts at the first byte after the byte order mark, if there is one.
    pub(crate) fn new(file: Box<dyn Read>) -> Result<Self, BadLine> {
        let peeked = peek(file, 8).and_then(|(head, mut file)| {
            let mark = head.starts_with(MARK);
            if mark {
                file.read_exact(&mut [0; MARK.len()])?;
            }
            Ok((if mark { head[MARK.len()..].to_vec() } else { head }, file))
        });
        let (beginning, file) = peeked.map_err(|error| BadLine::new(1, error.to_string()))?;
        let line = Line { number: 1, by_feeds: 1 };
        Ok(Self { reader: BufReader::with_capacity(BLOCK_BYTES, file), line, beginning })
    }

    /// Whether the file begins with these bytes, at most five.
    pub(crate) fn begin_with(&self, bytes: &[u8]) -> bool {
        self.beginning.starts_with(bytes)
    }

    /// The next byte, without taking it.
    pub(crate) fn peek(&mut self) -> Result<Option<u8>, BadLine> {
        loop {
            match self.reader.fill_buf() {
                Ok(block) => return Ok(block.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BadLine::new(self.line.number, error.to_string())),
            }
        }
    }

    /// Takes the next byte.
    pub(crate) fn next(&mut self) -> Result<Option<u8>, BadLine> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.reader.consume(1);
            self.line.by_feeds += u64::from(byte == b'\n');
            if byte == b'\n' || byte == b'\r' && self.peek()? != Some(b'\n') {
                self.line.number += 1;
            }
        }
        Ok(byte)
    }
}

/// The lines of a file that are not blank.
pub(crate) struct Lines {
    reader: BufReader<Box<dyn Read>>,
    line: u64,
}

impl Lines {
    pub(crate) fn new(reader: Box<dyn Read>) -> Self {
        Self { reader: BufReader::with_capacity(BLOCK_BYTES, reader), line: 0 }
    }

    /// The next line that is not blank, trimmed, with its number.
    pub(crate) fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, BadLine> {
        loop {
            self.line += 1;
            let mut bytes = Vec::new();
            let read = self.reader.by_ref().take(ROW_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes);
            if read.map_err(|error| BadLine::new(self.line, error.to_string()))? == 0 {
                return Ok(None);
            }
            if bytes.len() > ROW_BYTES_MAX {
                return Err(too_long(self.line));
            }
            let rest = if self.line == 1 { bytes.strip_prefix(MARK) } else { None };
            let trimmed = rest.unwrap_or(&bytes).trim_ascii();
            if !trimmed.is_empty() {
                return Ok(Some((self.line, trimmed.to_vec())));
            }
        }
    }
}

/// The error for a row that begins on this line and is too long.
pub(crate) fn too_long(line: u64) -> BadLine {
    BadLine::new(line, format!("the row that begins here is longer than {} MiB", ROW_BYTES_MAX >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], encoding: Option<&str>) -> io::Result<String> {
        let encoding = encoding.map(|name| name.parse().unwrap());
        let mut text = String::new();
        utf8(Box::new(Cursor::new(bytes.to_vec())), encoding)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn each_encoding_is_decoded() {
        for (bytes, encoding, text) in [
            (&b"\xb0\xe8\xc1\xc2,1"[..], Some("cp949"), "계좌,1"),
            (b"caf\xe9 \x80", Some("latin-1"), "café €"),
            (b"\xff\xfea\x00,\x00\x44\xac", None, "a,걄"),
            (b"\xfe\xff\x00a\xac\x44", None, "a걄"),
            (b"a\x00\x44\xac", Some("utf-16le"), "a걄"),
            (b"plain", None, "plain"),
            (b"", None, ""),
        ] {
            assert_eq!(read(bytes, encoding).unwrap(), text);
        }
        for name in ["ebcdic", "", "iso-2022-kr"] {
            assert!(name.parse::<Encoding>().is_err(), "{name}");
        }
    }

    #[test]
    fn what_an_encoding_does_not_have_is_refused_at_its_byte() {
        for (bytes, encoding) in
            [(&b"ab\xff\xff,1"[..], "cp949"), (b"ab\xb0", "cp949"), (b"a\x00\x00\xd8", "utf-16")]
        {
            let message = read(bytes, Some(encoding)).unwrap_err().to_string();
            assert!(message.contains("at byte"), "{message}");
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_and_half_of_it_is_an_error() {
        use std::io::Write as _;
        let pack = |text: &[u8]| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(text).unwrap();
            packed.finish().unwrap()
        };
        let packed = [pack(b"id,n\n"), pack(&[b'1'; 9_000])].concat();
        assert_eq!(read(&packed, None).unwrap().len(), 9_005);
        assert!(read(&packed[..packed.len() - 5], None).is_err());
        let korean = pack(b"\xb0\xe8\xc1\xc2");
        assert_eq!(read(&korean, Some("cp949")).unwrap(), "계좌");
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::new(Box::new(io::repeat(b'x')));
        let message = lines.next_line().unwrap_err().to_string();
        assert_eq!(message, "line 1: the row that begins here is longer than 1 MiB");
    }
}
