//! Small files beside the segments, each read and written as a whole: `| magic 8 | … | crc 4 |`.

use super::encoding::{get_u32, put_u32};
use crate::disk::Disk;
use crate::error::Fault;

/// The bytes of the file of this name; `None` if it is not among `names`.
///
/// # Errors
/// Damage with this problem, if length, magic or checksum are wrong.
pub fn read<const BYTES: usize>(
    disk: &dyn Disk,
    names: &[String],
    name: &str,
    magic: &[u8; 8],
    problem: &str,
) -> Result<Option<[u8; BYTES]>, Fault> {
    if !names.iter().any(|found| found == name) {
        return Ok(None);
    }
    let file = disk.open(name).map_err(Fault::io("open", name))?;
    let mut bytes = [0; BYTES];
    let count = file.read_at(&mut bytes, 0).map_err(Fault::io("read", name))?;
    let (content, crc) = bytes.split_at(BYTES - 4);
    if count != BYTES || content[..8] != *magic || crc32c::crc32c(content) != get_u32(crc) {
        return Err(Fault::damaged(name, 0, None, problem));
    }
    Ok(Some(bytes))
}

/// Writes a file durably and atomically. The last four bytes become the checksum of the others.
pub fn write(disk: &dyn Disk, name: &str, bytes: &mut [u8]) -> Result<(), Fault> {
    let (content, crc) = bytes.split_at_mut(bytes.len() - 4);
    put_u32(crc, crc32c::crc32c(content));
    replace(disk, name, bytes)?;
    disk.sync_directory().map_err(Fault::io("sync the directory of", name))
}

/// Creates or replaces the file of this name atomically. After a crash the previous file may be back.
pub fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let temporary = format!("{name}.tmp");
    let prepare = || {
        let file = disk.create(&temporary).map_err(Fault::io("create", &temporary))?;
        file.write_at(bytes, 0).map_err(Fault::io("write", &temporary))?;
        file.sync().map_err(Fault::io("sync", &temporary))?;
        disk.rename(&temporary, name).map_err(Fault::io("rename", &temporary))
    };
    prepare().inspect_err(|_| {
        // If this fails, the file is removed at the next open.
        let _ = disk.remove(&temporary);
    })
}
