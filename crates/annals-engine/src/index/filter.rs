//! A Bloom filter in lines of 64 bytes: whether something may be in a run. Pure.
//!
//! A line is as long as a processor reads at once, so a question costs one look into memory.

/// Bytes of a line.
pub const LINE_BYTES: usize = 64;
/// Bits of the filter for each thing in it.
const BITS_EACH: u64 = 10;
/// Bits that are set in a line for each thing.
const PROBES: u32 = 6;

/// How many lines a filter of so many things has.
pub fn lines(things: u64) -> u32 {
    u32::try_from((things * BITS_EACH).div_ceil(LINE_BYTES as u64 * 8).max(1)).expect("runs are bounded")
}

/// The line that stands for the thing with this hash.
pub fn line_of(hash: u64, lines: u32) -> u32 {
    (((hash >> 32) * u64::from(lines)) >> 32) as u32
}

/// The bits in the line that stand for the thing with this hash.
fn bits(hash: u64) -> impl Iterator<Item = usize> {
    // Other bits than those that choose the line, spread over 64.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| (mixed >> (9 * probe)) as usize & 511)
}

/// Puts the thing with this hash into its line.
pub fn set(line: &mut [u8], hash: u64) {
    for bit in bits(hash) {
        line[bit / 8] |= 1 << (bit % 8);
    }
}

/// Whether the thing with this hash may be in its line.
pub fn may_have(line: &[u8], hash: u64) -> bool {
    bits(hash).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_is_found_and_little_else() {
        let hash = |number: u64| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
        let things = 10_000;
        let lines = lines(things);
        let mut filter = vec![0; lines as usize * LINE_BYTES];
        let range = |hash| {
            let at = line_of(hash, lines) as usize * LINE_BYTES;
            at..at + LINE_BYTES
        };
        for number in 0..things {
            set(&mut filter[range(hash(number))], hash(number));
        }
        let found = |number| may_have(&filter[range(hash(number))], hash(number));
        assert!((0..things).all(found));
        let wrong = (things..2 * things).filter(|&number| found(number)).count();
        assert!(wrong < 300, "{wrong} of {things} that are not in it seem to be");
    }
}
