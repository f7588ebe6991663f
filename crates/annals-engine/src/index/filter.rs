//! A blocked Bloom filter with lines of 64 bytes: whether a term or an id may be in a run. Pure.
//!
//! ```text
//! line     | bits 60 | crc 4 |
//! ```
//!
//! A line is the size of a cache line, so a test costs one memory access. It has its own checksum, the CRC32C
//! of its bits, so that corrupt bytes cannot cause a false negative. Of what is not in the run, about one in
//! five hundred seems to be in it. In files of earlier versions it is about one in eighty, as there are fewer
//! bits for each item; in those of the oldest, all 64 bytes are bits, and only their block has a checksum.

use crate::log::encoding::{get_u32, put_u32};

/// Bytes of a line.
pub const LINE_BYTES: usize = 64;
/// Bytes of a line that are bits.
const BIT_BYTES: usize = LINE_BYTES - 4;
/// Bits of a line.
const BITS: usize = BIT_BYTES * 8;

/// How many bits an item has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Density {
    /// Bits of the filter per item.
    bits: u64,
    /// Bits that are set in a line for each item.
    probes: u32,
}

impl Density {
    /// That of new files.
    pub const NEW: Self = Self { bits: 14, probes: 7 };
    /// That of files of earlier versions.
    pub const OLD: Self = Self { bits: 10, probes: 6 };
}

/// Number of lines of a filter for this many items.
pub fn lines(things: u64) -> u32 {
    u32::try_from((things * Density::NEW.bits).div_ceil(BITS as u64).max(1)).expect("runs are bounded")
}

/// Number of items for which a filter of this many lines is large enough.
pub fn things(lines: u32, density: Density) -> u64 {
    u64::from(lines) * (BITS as u64).div_ceil(density.bits)
}

/// The line of the filter for this hash.
pub fn line_of(hash: u64, lines: u32) -> u32 {
    (((hash >> 32) * u64::from(lines)) >> 32) as u32
}

/// The bits of the item with this hash, in a line of `bits` bits.
fn bits_of(hash: u64, bits: usize, density: Density) -> impl Iterator<Item = usize> {
    // Independent of the bits of the hash that select the line.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..density.probes).map(move |probe| (((mixed >> (9 * probe)) as usize & 511) * bits) >> 9)
}

/// Adds the item with this hash to its line.
pub fn set(line: &mut [u8], hash: u64) {
    for bit in bits_of(hash, BITS, Density::NEW) {
        line[bit / 8] |= 1 << (bit % 8);
    }
}

/// Writes the checksum of a complete line.
pub fn finish(line: &mut [u8]) {
    let crc = crc32c::crc32c(&line[..BIT_BYTES]);
    put_u32(&mut line[BIT_BYTES..], crc);
}

/// Whether the item with this hash may be in its line; `None` if the checksum of the line does not match.
pub fn may_have(line: &[u8; LINE_BYTES], hash: u64, density: Density) -> Option<bool> {
    let is_whole = crc32c::crc32c(&line[..BIT_BYTES]) == get_u32(&line[BIT_BYTES..]);
    is_whole.then(|| has(line, hash, BITS, density))
}

/// Like [`may_have`], for a file of the oldest version, in which the line has no checksum.
pub fn may_have_unsummed(line: &[u8; LINE_BYTES], hash: u64) -> bool {
    has(line, hash, LINE_BYTES * 8, Density::OLD)
}

fn has(line: &[u8; LINE_BYTES], hash: u64, bits: usize, density: Density) -> bool {
    bits_of(hash, bits, density).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_is_found_and_little_else() {
        let hash = |number: u64| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
        let in_it = 10_000;
        let lines = lines(in_it);
        assert!(things(lines, Density::NEW) >= in_it);
        let mut filter = vec![[0; LINE_BYTES]; lines as usize];
        let line = |hash| line_of(hash, lines) as usize;
        for number in 0..in_it {
            set(&mut filter[line(hash(number))], hash(number));
        }
        filter.iter_mut().for_each(|line| finish(line));
        let found = |number| may_have(&filter[line(hash(number))], hash(number), Density::NEW).unwrap();
        assert!((0..in_it).all(found));
        let wrong = (in_it..2 * in_it).filter(|&number| found(number)).count();
        assert!(wrong < 40, "{wrong} of {in_it} that are not in it seem to be");
    }

    #[test]
    fn a_line_with_a_flipped_bit_says_nothing() {
        let mut line = [0; LINE_BYTES];
        set(&mut line, 7);
        finish(&mut line);
        assert_eq!(may_have(&line, 7, Density::NEW), Some(true));
        for bit in 0..LINE_BYTES * 8 {
            let mut flipped = line;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(may_have(&flipped, 7, Density::NEW), None, "bit {bit}");
        }
    }
}
