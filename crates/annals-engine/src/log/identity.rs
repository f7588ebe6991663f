//! The identity of the log, in a file of its own beside the segments: `| magic 8 | store id 16 | crc 4 |`.
//!
//! Every segment contains it too. The file exists so that a log that has lost all of its segments is
//! recognised, and not started again as an empty log. A log without the file, whose creation was interrupted
//! by a crash, gets one at the next open.

use annals_core::StoreId;

use super::small_file;
use crate::disk::Disk;
use crate::error::Fault;

/// The file's name.
pub const NAME: &str = "identity";
const MAGIC: &[u8; 8] = b"ANNALSI1";
const BYTES: usize = 28;

/// The identity in the file; `None` if there is no file.
pub fn read(disk: &dyn Disk, names: &[String]) -> Result<Option<StoreId>, Fault> {
    let problem = "is not the identity of a log";
    let Some(bytes) = small_file::read::<BYTES>(disk, names, NAME, MAGIC, problem)? else { return Ok(None) };
    Ok(Some(StoreId::from_bytes(bytes[8..24].try_into().expect("16 bytes"))))
}

/// Writes the file, durably and atomically.
pub fn write(disk: &dyn Disk, id: StoreId) -> Result<(), Fault> {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(id.as_bytes());
    small_file::write(disk, NAME, &mut bytes)
}

/// Returns damage if there is an identity but no segment.
pub fn check(id: Option<StoreId>, segments: usize) -> Result<(), Fault> {
    match id {
        Some(id) if segments == 0 => {
            Err(Fault::damaged(NAME, 0, None, format!("the log {id} has lost all of its segments")))
        }
        _ => Ok(()),
    }
}
