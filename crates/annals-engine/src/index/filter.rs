//! A Bloom filter in lines of 64 bytes: whether something may be in a run. Pure.
//!
//! ```text
//! line     | bits 60 | crc 4 |
//! ```
//!
//! A line is as long as a processor reads at once, so a question costs one look into memory. It carries its own checksum,
//! the CRC32C of its bits: "it is not here" is believed of no other bytes than those that were written. In files of the
//! version before, all 64 bytes are bits, and only their block has a checksum.

use crate::log::encoding::{get_u32, put_u32};

/// Bytes of a line.
pub const LINE_BYTES: usize = 64;
/// Bytes of a line that are bits.
const BIT_BYTES: usize = LINE_BYTES - 4;
/// Bits of a line.
const BITS: usize = BIT_BYTES * 8;
/// Bits of the filter for each thing in it.
const BITS_EACH: u64 = 10;
/// Bits that are set in a line for each thing.
const PROBES: u32 = 6;

/// How many lines a filter of that many things has.
pub fn lines(things: u64) -> u32 {
    u32::try_from((things * BITS_EACH).div_ceil(BITS as u64).max(1)).expect("runs are bounded")
}

/// How many things a filter of that many lines is for.
pub fn things(lines: u32) -> u64 {
    u64::from(lines) * (BITS as u64).div_ceil(BITS_EACH)
}

/// The line of the filter for this hash.
pub fn line_of(hash: u64, lines: u32) -> u32 {
    (((hash >> 32) * u64::from(lines)) >> 32) as u32
}

/// The bits that stand for the thing with this hash, in a line of that many.
fn bits_of(hash: u64, bits: usize) -> impl Iterator<Item = usize> {
    // Other bits than those that choose the line, spread over 64.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| (((mixed >> (9 * probe)) as usize & 511) * bits) >> 9)
}

/// Puts the thing with this hash into its line.
pub fn set(line: &mut [u8], hash: u64) {
    for bit in bits_of(hash, BITS) {
        line[bit / 8] |= 1 << (bit % 8);
    }
}

/// Gives a line to which nothing is added any more its checksum.
pub fn finish(line: &mut [u8]) {
    let crc = crc32c::crc32c(&line[..BIT_BYTES]);
    put_u32(&mut line[BIT_BYTES..], crc);
}

/// Whether the thing with this hash may be in its line; `None` if the line is not what was written.
pub fn may_have(line: &[u8; LINE_BYTES], hash: u64) -> Option<bool> {
    let is_whole = crc32c::crc32c(&line[..BIT_BYTES]) == get_u32(&line[BIT_BYTES..]);
    is_whole.then(|| has(line, hash, BITS))
}

/// The same in a file of the version before, in which the line has no checksum.
pub fn may_have_unsummed(line: &[u8; LINE_BYTES], hash: u64) -> bool {
    has(line, hash, LINE_BYTES * 8)
}

fn has(line: &[u8; LINE_BYTES], hash: u64, bits: usize) -> bool {
    bits_of(hash, bits).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_is_found_and_little_else() {
        let hash = |number: u64| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
        let in_it = 10_000;
        let lines = lines(in_it);
        assert!(things(lines) >= in_it);
        let mut filter = vec![[0; LINE_BYTES]; lines as usize];
        let line = |hash| line_of(hash, lines) as usize;
        for number in 0..in_it {
            set(&mut filter[line(hash(number))], hash(number));
        }
        filter.iter_mut().for_each(|line| finish(line));
        let found = |number| may_have(&filter[line(hash(number))], hash(number)).unwrap();
        assert!((0..in_it).all(found));
        let wrong = (in_it..2 * in_it).filter(|&number| found(number)).count();
        assert!(wrong < 300, "{wrong} of {in_it} that are not in it seem to be");
    }

    #[test]
    fn a_line_with_a_flipped_bit_says_nothing() {
        let mut line = [0; LINE_BYTES];
        set(&mut line, 7);
        finish(&mut line);
        assert_eq!(may_have(&line, 7), Some(true));
        for bit in 0..LINE_BYTES * 8 {
            let mut flipped = line;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(may_have(&flipped, 7), None, "bit {bit}");
        }
    }
}
