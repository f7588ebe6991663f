//! Encoding of numbers and names, and the error for malformed bytes. Pure.

use crate::Timestamp;

/// The reason why bytes are not a valid record, or another unit of a store's format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end too early.
    #[error("the bytes end before the {0} does")]
    Short(&'static str),
    /// The checksum does not match the bytes.
    #[error("the checksum of the {0} does not match")]
    Checksum(&'static str),
    /// A field has a value that it cannot have.
    #[error("the field `{0}` has an impossible value")]
    Field(&'static str),
}

/// Reads a time from little-endian microseconds; one outside the range of [`Timestamp`] is malformed.
///
/// # Errors
/// [`Malformed::Field`].
pub fn time_of(bytes: [u8; 8]) -> Result<Timestamp, Malformed> {
    let micros = i64::from_le_bytes(bytes);
    let time = Timestamp::from_micros(micros);
    if time.as_micros() == micros { Ok(time) } else { Err(Malformed::Field("time")) }
}

/// Writes a number as a varint (LEB128): seven bits per byte, the lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number that [`put_varint`] wrote; returns it with its length in bytes.
#[inline]
pub fn get_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    // Most numbers take one byte.
    if let Some(&byte) = bytes.first()
        && byte < 0x80
    {
        return Some((u64::from(byte), 1));
    }
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Writes a signed number as a zigzag varint.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Reads numbers and names from arbitrary bytes, front to back.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads these bytes from their beginning.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes that were not read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `count` bytes. `what` names them in the error if there are too few.
    #[inline]
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Malformed::Short(what))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// An array of bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes as were asked for"))
    }

    /// A number that [`put_varint`] wrote.
    #[inline]
    pub fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let (value, length) = get_varint(self.bytes).ok_or(Malformed::Short(what))?;
        self.bytes = &self.bytes[length..];
        Ok(value)
    }

    /// A number that [`put_signed`] wrote.
    #[inline]
    pub fn signed(&mut self, what: &'static str) -> Result<i64, Malformed> {
        let value = self.varint(what)?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A name: its length, then its bytes.
    #[inline]
    pub fn name(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.varint(what)?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Short(what))?, what)
    }
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

    #[test]
    fn signed_numbers_are_read_as_written() {
        for value in [0, 1, -1, 63, -64, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            assert_eq!(Reader::new(&bytes).signed("number"), Ok(value));
        }
    }
}
