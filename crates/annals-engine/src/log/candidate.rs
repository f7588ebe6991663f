//! Candidates: bytes that look like the beginning of a frame, in a file that may contain any bytes.
//!
//! After a crash or damage, the rest of a file is searched for whole frames. The data of events may be
//! crafted to look like the beginnings of many frames, each of which claims all bytes up to the end. So the
//! work is bounded by the number of bytes, not by the lengths that they claim:
//!
//! - N1  Each byte is read and checksummed once, however many candidates cover it: [`Sums`] derives the
//!       checksum of any range from running checksums.
//! - N2  A candidate is rejected at its first record whose checksum does not match, and such a record cannot
//!       be crafted without the salt of the segment.
//! - N3  The body of a record whose checksum matches is data (F1 of `frame`): it is not searched for frames.
//!
//! Next above: `recovery` (the tail after a crash) and `salvage` (whole frames after damage); below: `frame`.

use std::sync::LazyLock;

use bytes::Bytes;

use super::frame::{self, Header, Origin};
use super::segment::BlockReader;
use crate::disk::File;
use crate::error::Fault;

/// Bytes that are searched at a time.
const BLOCK_BYTES: usize = 64 << 10;
/// For most offsets, this many bytes suffice to rule out a frame.
const LOOKED_AT: usize = frame::HEADER_BYTES_MAX + frame::RECORD_HEADER_BYTES_MAX;

/// The candidates in a file.
pub struct Candidates<'a> {
    name: &'a str,
    file: &'a dyn File,
    length: u64,
    origin: Origin,
    reader: BlockReader<'a>,
    sums: Sums<'a>,
}

/// An offset at which a frame may begin.
pub struct Candidate {
    /// Its first byte in the file.
    pub byte: u64,
    /// Its header. Nothing of it is checked.
    pub header: Header,
    /// Its first bytes.
    bytes: Bytes,
}

/// The verdict on a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A frame whose checksums match, with this salt.
    Whole(u32),
    /// The checksums do not match. The next candidate is at this byte or after it.
    Broken(u64),
}

impl<'a> Candidates<'a> {
    /// The candidates in the file of this name, from byte `from` on, read against this origin.
    pub fn new(file: &'a dyn File, name: &'a str, origin: Origin, from: u64) -> Result<Self, Fault> {
        let length = file.length().map_err(Fault::io("read the length of", name))?;
        let reader = BlockReader::new(file, name, origin);
        Ok(Self { name, file, length, origin, reader, sums: Sums::new(file, name, from) })
    }

    /// The first candidate at this byte or after it.
    pub fn next(&mut self, from: u64) -> Result<Option<Candidate>, Fault> {
        let mut byte = from;
        while byte < self.length {
            // The extra bytes make the first bytes of a frame available wherever it begins in the block.
            let block = self.reader.bytes(byte, BLOCK_BYTES + LOOKED_AT)?;
            let mut at = 0;
            // Most bytes are skipped because the byte at the offset of the kind is not a kind.
            let kinds =
                |at: usize| block.get(at + frame::KIND_AT..block.len().min(BLOCK_BYTES + frame::KIND_AT));
            while let Some(ahead) = kinds(at).and_then(|kinds| kinds.iter().position(frame::is_kind)) {
                at += ahead;
                let (until, here) = (block.len().min(at + LOOKED_AT), byte + at as u64);
                if frame::may_begin(&block[at..until], self.length - here, &self.origin)
                    && let Ok(header) = frame::peek(&block[at..until], &self.origin)
                {
                    return Ok(Some(Candidate { byte: here, header, bytes: block.slice(at..until) }));
                }
                at += 1;
            }
            byte += BLOCK_BYTES as u64;
        }
        Ok(None)
    }

    /// Checks whether the candidate is a whole frame, with the given salt or else with the salt derived from
    /// its first record.
    pub fn look(&mut self, candidate: &Candidate, salt: Option<u32>) -> Result<Found, Fault> {
        let Candidate { byte, header, bytes } = candidate;
        // A salt that is derived from the first record always matches that record, so a second one must match
        // too.
        let proof = if salt.is_some() { 1 } else { 2 };
        let (mut salt, mut sum) = (salt, None);
        let mut at = header.records_at;
        for index in 0..header.count {
            let broken = Ok(Found::Broken(byte + if index < proof { 1 } else { at as u64 }));
            let record =
                if index == 0 { bytes.slice(at.min(bytes.len())..) } else { self.bytes(byte + at as u64)? };
            let Ok(fields) = frame::peek_record(&record) else { return broken };
            if at > header.length || fields.length > header.length - at {
                return broken;
            }
            let body = byte + (at + fields.body_at) as u64..byte + (at + fields.length) as u64;
            let Some(body_crc) = self.sums.of(body)? else { return broken };
            let position = header.first.plus(u64::from(index));
            let known = *salt.get_or_insert_with(|| fields.salt(&record, position, body_crc));
            if !fields.are_right(&record, position, known, body_crc) {
                return broken;
            }
            sum.get_or_insert_with(|| frame::Sum::begin(bytes, header, known)).add(&record);
            at += fields.length;
        }
        // A mark has no records from which a salt could be derived.
        let Some(salt) = salt else { return Ok(Found::Broken(byte + 1)) };
        let sum = sum.unwrap_or_else(|| frame::Sum::begin(bytes, header, salt));
        Ok(if at == header.length && sum.agrees(header) {
            Found::Whole(salt)
        } else {
            Found::Broken(byte + if header.count < proof { 1 } else { at as u64 })
        })
    }

    /// The first bytes of a record that may begin at this byte.
    fn bytes(&self, byte: u64) -> Result<Bytes, Fault> {
        let mut bytes = vec![0; LOOKED_AT];
        let count = self.file.read_at(&mut bytes, byte).map_err(Fault::io("read", self.name))?;
        bytes.truncate(count);
        Ok(bytes.into())
    }
}

/// A running checksum is kept for each step of this many bytes.
const STEP_BYTES: u64 = 512;
/// Bytes that are read and checksummed at a time.
const READ_BYTES: usize = 1 << 20;

/// Computes the CRC32C of any range of a file, in a time that does not grow with the range.
struct Sums<'a> {
    file: &'a dyn File,
    name: &'a str,
    start: u64,
    /// Checksums of the bytes from `start` up to the end of each step.
    running: Vec<u32>,
}

impl<'a> Sums<'a> {
    fn new(file: &'a dyn File, name: &'a str, start: u64) -> Self {
        Self { file, name, start, running: vec![0] }
    }

    /// The checksum of these bytes; `None` if the file ends before they do.
    fn of(&mut self, range: std::ops::Range<u64>) -> Result<Option<u32>, Fault> {
        let (Some(to_end), Some(to_start)) = (self.up_to(range.end)?, self.up_to(range.start)?) else {
            return Ok(None);
        };
        Ok(Some(to_end ^ shifted(to_start, range.end - range.start)))
    }

    /// The checksum of the bytes from the start up to `end`; `None` if the file ends before that.
    fn up_to(&mut self, end: u64) -> Result<Option<u32>, Fault> {
        let steps = usize::try_from((end - self.start) / STEP_BYTES).expect("a segment fits in memory");
        while self.running.len() <= steps {
            if !self.extend()? {
                return Ok(None);
            }
        }
        let from = self.start + steps as u64 * STEP_BYTES;
        let mut rest = [0; STEP_BYTES as usize];
        let rest = &mut rest[..(end - from) as usize];
        let count = self.file.read_at(rest, from).map_err(Fault::io("read", self.name))?;
        Ok((count == rest.len()).then(|| crc32c::crc32c_append(self.running[steps], rest)))
    }

    /// Reads and checksums the next bytes; returns whether a step was added.
    fn extend(&mut self) -> Result<bool, Fault> {
        let from = self.start + (self.running.len() as u64 - 1) * STEP_BYTES;
        let mut bytes = vec![0; READ_BYTES];
        let count = self.file.read_at(&mut bytes, from).map_err(Fault::io("read", self.name))?;
        let before = self.running.len();
        for step in bytes[..count].chunks_exact(STEP_BYTES as usize) {
            let last = *self.running.last().expect("the first is of no bytes");
            self.running.push(crc32c::crc32c_append(last, step));
        }
        Ok(self.running.len() > before)
    }
}

/// The checksum after this many zeros are appended to the checksummed bytes: `crc * x^(8 * bytes)`, as a
/// polynomial.
fn shifted(crc: u32, bytes: u64) -> u32 {
    let parts = POWERS.iter().enumerate().filter_map(|(part, powers)| {
        let digit = (bytes >> (8 * part)) as usize & 255;
        (digit > 0).then(|| powers[digit])
    });
    parts.fold(crc, product)
}

/// `x^(8 * digit * 256^part)`, for each part (base-256 place) of a number of bytes and each value of its
/// digit.
static POWERS: LazyLock<[[u32; 256]; 4]> = LazyLock::new(|| {
    // The bits are reflected: the top bit is the coefficient of the lowest power, so the polynomial 1 is the
    // top bit.
    let (one, x) = (1 << 31, 1 << 30);
    let mut unit = (0..3).fold(x, |power, _| product(power, power));
    let mut powers = [[one; 256]; 4];
    for part in &mut powers {
        for digit in 1..256 {
            part[digit] = product(part[digit - 1], unit);
        }
        unit = product(part[255], unit);
    }
    powers
});

/// The product of two polynomials, modulo that of CRC32C.
fn product(left: u32, mut right: u32) -> u32 {
    let mut product = 0;
    let mut rest = left;
    while rest != 0 {
        product ^= right & ((rest >> 31).wrapping_neg());
        rest <<= 1;
        right = (right >> 1) ^ (0x82f6_3b78 & (right & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk as _;
    use crate::disk::faulty::FaultyDisk;

    #[test]
    fn the_checksum_of_any_range_is_that_of_its_bytes() {
        let bytes: Vec<u8> =
            (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let disk = FaultyDisk::with_files([("file".to_owned(), bytes.clone())]);
        let file = disk.open("file").unwrap();
        let mut sums = Sums::new(&*file, "file", 100);
        let end = bytes.len() as u64;
        for range in [
            100..100,
            100..101,
            100..end,
            1_123..1_124,
            1_124..2_148,
            77_777..2_777_777,
            1_000..70_000,
            end..end,
        ] {
            let expected = crc32c::crc32c(&bytes[range.start as usize..range.end as usize]);
            assert_eq!(sums.of(range.clone()).unwrap(), Some(expected), "{range:?}");
        }
        assert_eq!(sums.of(100..end + 1).unwrap(), None);
    }
}
