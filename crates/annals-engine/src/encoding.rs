//! Numbers as bytes, and why bytes are not what they should be. Pure; `body` and `frame` are made of it.

use annals_core::Timestamp;

/// Why bytes are not a frame or a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end too early.
    #[error("the bytes end before the {0} does")]
    Short(&'static str),
    /// The checksum is of other bytes.
    #[error("the checksum of the {0} does not match")]
    Checksum(&'static str),
    /// A field has a value that it cannot have.
    #[error("the field `{0}` has an impossible value")]
    Field(&'static str),
}

/// Writes a number at the start of the bytes, little-endian.
pub fn put_u32(out: &mut [u8], value: u32) {
    out[..4].copy_from_slice(&value.to_le_bytes());
}

/// Writes a number at the start of the bytes, little-endian.
pub fn put_u64(out: &mut [u8], value: u64) {
    out[..8].copy_from_slice(&value.to_le_bytes());
}

/// Reads a number from the start of the bytes, of which there must be enough.
pub fn get_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))
}

/// Reads a number from the start of the bytes, of which there must be enough.
pub fn get_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))
}

/// Reads a time from the start of the bytes, of which there must be enough; one that cannot be written is malformed.
pub fn get_time(bytes: &[u8]) -> Result<Timestamp, Malformed> {
    let micros = get_u64(bytes).cast_signed();
    let time = Timestamp::from_micros(micros);
    if time.as_micros() == micros { Ok(time) } else { Err(Malformed::Field("time")) }
}

/// Writes a number in as few bytes as it needs: seven bits each, the lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number that [`put_varint`] wrote, and how many bytes it took.
pub fn get_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_read_as_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(get_varint(&bytes), Some((value, bytes.len())));
            assert_eq!(get_varint(&bytes[..bytes.len() - 1]), None);
        }
    }
}
