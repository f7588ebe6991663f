//! How far the log is known to be durable, in a file beside the segments.
//!
//! ```text
//! | magic 8 | store id 16 | position 8 | event id 16 | crc 4 |
//! ```
//!
//! The end of a log looks alike whether it is the end or the rest is gone: a copy that broke off, a file system that lost
//! the end of a file. The file says up to which event it went at least.
//!
//! - U1  It is written when that event is durable: it may be behind the log, and never ahead of it, wherever a crash
//!       comes. It is written when a store was opened, closed, backed up or verified.
//! - U2  A log that ends before it, or has another event there, is damaged: no position is given out twice.
//! - U3  It is derived: one that is missing, broken or of another log says nothing, and is written again. So removing it,
//!       while the store is closed, is how to say that the log is meant to be as it is.

use annals_core::{EventId, Position, StoreId, Witness};

use super::encoding::{get_u64, put_u64};
use super::small_file;
use crate::disk::Disk;
use crate::error::Fault;

/// The file's name.
pub const NAME: &str = "durable";
const MAGIC: &[u8; 8] = b"ANNALSD1";
const BYTES: usize = 52;

/// What is written there of this log, or of any; `None` if there is no such file.
///
/// # Errors
/// Damage, if it is not what was written. It means no more than a file that is missing.
pub fn read(disk: &dyn Disk, names: &[String], store: Option<StoreId>) -> Result<Option<Witness>, Fault> {
    let problem = "is not what was written; remove it, and it is written again";
    let Some(bytes) = small_file::read::<BYTES>(disk, names, NAME, MAGIC, problem)? else { return Ok(None) };
    let of = StoreId::from_bytes(bytes[8..24].try_into().expect("16 bytes"));
    let id = EventId::from_bytes(bytes[32..48].try_into().expect("16 bytes"));
    let witness = Witness { position: Position::new(get_u64(&bytes[24..])), id };
    Ok(Some(witness).filter(|_| store.is_none_or(|store| store == of)))
}

/// The same when a log is opened: an unusable file is ignored, with a warning.
pub fn known(disk: &dyn Disk, names: &[String], store: StoreId) -> Option<Witness> {
    read(disk, names, Some(store)).unwrap_or_else(|fault| {
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "nothing says how far the log went; it is taken as it is"
        );
        None
    })
}

/// Writes that this event is durable, as a whole or not at all.
pub fn write(disk: &dyn Disk, store: StoreId, witness: Witness) -> Result<(), Fault> {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(store.as_bytes());
    put_u64(&mut bytes[24..], witness.position.get());
    bytes[32..48].copy_from_slice(witness.id.as_bytes());
    small_file::write(disk, NAME, &mut bytes)
}

/// What to do about a log of which a part is missing.
pub const MISSING: &str = "restore a backup, or copy what is whole with `annals repair`. A copy of the files of an open \
                           store is not whole: make it with `annals backup`";
/// What to do about a log that has lost its end.
pub const REMEDY: &str = "restore a backup, or copy what is whole with `annals repair`; if the log is meant to end here, \
                          remove `log/durable`. A copy of the files of an open store is not whole: make it with \
                          `annals backup`";

/// Damage at this byte of the last segment, if the log ends there and has lost its end.
pub fn check_end(known: Option<Witness>, segment: &str, byte: u64, head: Position) -> Result<(), Fault> {
    match known.filter(|known| known.position > head) {
        None => Ok(()),
        Some(known) => {
            let problem = format!(
                "the log ends here, at position {head}, and was durable up to position {}: {REMEDY}",
                known.position
            );
            Err(Fault::damaged(segment, byte, Some(head.next()), problem))
        }
    }
}

/// Damage, if this is not the event that is known to be durable at its position.
pub fn check_event(known: Witness, found: Witness) -> Result<(), Fault> {
    if known.position != found.position || known.id == found.id {
        return Ok(());
    }
    let problem = format!(
        "it says that event {} stands at position {}, and {} does: this is another history of the log; if it is the right \
         one, remove `log/durable`",
        known.id, known.position, found.id
    );
    Err(Fault::damaged(NAME, 24, Some(known.position), problem))
}
