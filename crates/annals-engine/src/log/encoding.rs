//! Encoding of numbers of fixed length, and what `annals-core` has for the other ones. Pure; used by every
//! format on disk.

use annals_core::Timestamp;
pub use annals_core::body::encoding::{Malformed, Reader, get_varint, put_signed, put_varint};

/// Writes a number at the start of the bytes, little-endian.
pub fn put_u32(out: &mut [u8], value: u32) {
    out[..4].copy_from_slice(&value.to_le_bytes());
}

/// Writes a number at the start of the bytes, little-endian.
pub fn put_u64(out: &mut [u8], value: u64) {
    out[..8].copy_from_slice(&value.to_le_bytes());
}

/// Reads a number from the start of the bytes. Panics if there are too few.
pub fn get_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))
}

/// Reads a number from the start of the bytes. Panics if there are too few.
pub fn get_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"))
}

/// Reads a time from the start of the bytes; one outside the range of [`Timestamp`] is malformed. Panics if
/// there are too few.
pub fn get_time(bytes: &[u8]) -> Result<Timestamp, Malformed> {
    annals_core::body::encoding::time_of(bytes[..8].try_into().expect("8 bytes"))
}
