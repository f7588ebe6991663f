//! The identity of the log, in a file of its own beside the segments: `| magic 8 | store id 16 | crc 4 |`.
//!
//! Every segment has it too. The file is there so that a log that has lost all of them is known to have been one,
//! and is not begun anew. A log without it, whose creation a crash cut short, gets it at the next open.

use annals_core::StoreId;

use super::encoding::{get_u32, put_u32};
use crate::disk::Disk;
use crate::error::Fault;

/// The file's name.
pub const NAME: &str = "identity";
const MAGIC: &[u8; 8] = b"ANNALSI1";
const BYTES: usize = 28;

/// The identity that is written there, if there is one.
pub fn read(disk: &dyn Disk, names: &[String]) -> Result<Option<StoreId>, Fault> {
    if !names.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let file = disk.open(NAME).map_err(Fault::io("open", NAME))?;
    let mut bytes = [0; BYTES];
    let count = file.read_at(&mut bytes, 0).map_err(Fault::io("read", NAME))?;
    let whole =
        count == BYTES && &bytes[..8] == MAGIC && crc32c::crc32c(&bytes[..24]) == get_u32(&bytes[24..]);
    if !whole {
        return Err(Fault::damaged(NAME, 0, None, "is not the identity of a log"));
    }
    Ok(Some(StoreId::from_bytes(bytes[8..24].try_into().expect("16 bytes"))))
}

/// Writes it, durably, as a whole or not at all.
pub fn write(disk: &dyn Disk, id: StoreId) -> Result<(), Fault> {
    let temporary = format!("{NAME}.tmp");
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(id.as_bytes());
    let crc = crc32c::crc32c(&bytes[..24]);
    put_u32(&mut bytes[24..], crc);
    let prepare = || {
        let file = disk.create(&temporary).map_err(Fault::io("create", &temporary))?;
        file.write_at(&bytes, 0).map_err(Fault::io("write", &temporary))?;
        file.sync().map_err(Fault::io("sync", &temporary))
    };
    prepare().inspect_err(|_| {
        // What cannot be removed now is removed at the next open.
        let _ = disk.remove(&temporary);
    })?;
    disk.rename(&temporary, NAME).map_err(Fault::io("rename", &temporary))?;
    disk.sync_directory().map_err(Fault::io("sync the directory of", NAME))
}

/// Damage, if there is an identity and no segment.
pub fn check(id: Option<StoreId>, segments: usize) -> Result<(), Fault> {
    match id {
        Some(id) if segments == 0 => {
            Err(Fault::damaged(NAME, 0, None, format!("the log {id} has lost all of its segments")))
        }
        _ => Ok(()),
    }
}
