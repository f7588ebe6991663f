//! How far the log is known to be durable, in a file beside the segments.
//!
//! ```text
//! | magic 8 | store id 16 | position 8 | event id 16 | crc 4 |
//! ```
//!
//! A truncated log looks like a complete one: a copy that broke off, a file system that lost the end of a
//! file. The file records an event that the log contained, so that truncation before it is detected.
//!
//! - U1  It is written after that event is durable: after a crash at any point it may be behind the log, but
//!       never ahead of it. It is written when a store was opened, closed, backed up or verified.
//! - U2  A log that ends before this event, or has another event at its position, is damaged: no position is
//!       assigned twice.
//! - U3  It is derived: a missing, corrupt or foreign file is ignored and written again. So an operator
//!       accepts the log as it is by removing the file while the store is closed.

use annals_core::{EventId, Position, StoreId, Witness};

use super::encoding::{get_u64, put_u64};
use super::small_file;
use crate::disk::Disk;
use crate::error::Fault;

/// The file's name.
pub const NAME: &str = "durable";
const MAGIC: &[u8; 8] = b"ANNALSD1";
const BYTES: usize = 52;

/// The event recorded in the file. `None` if there is no file, or if it belongs to another log than `store`.
///
/// # Errors
/// Damage, if the contents are corrupt. A corrupt file has the same meaning as a missing one.
pub fn read(disk: &dyn Disk, names: &[String], store: Option<StoreId>) -> Result<Option<Witness>, Fault> {
    let problem = "is corrupt; remove it, and it is written again";
    let Some(bytes) = small_file::read::<BYTES>(disk, names, NAME, MAGIC, problem)? else { return Ok(None) };
    let of = StoreId::from_bytes(bytes[8..24].try_into().expect("16 bytes"));
    let id = EventId::from_bytes(bytes[32..48].try_into().expect("16 bytes"));
    let witness = Witness { position: Position::new(get_u64(&bytes[24..])), id };
    Ok(Some(witness).filter(|_| store.is_none_or(|store| store == of)))
}

/// Reads the file when a log is opened: an unusable file is ignored, with a warning.
pub fn known(disk: &dyn Disk, names: &[String], store: StoreId) -> Option<Witness> {
    read(disk, names, Some(store)).unwrap_or_else(|fault| {
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "it is not known how far the log was durable; the log is accepted as it is"
        );
        None
    })
}

/// Records that this event is durable. The file is replaced atomically.
pub fn write(disk: &dyn Disk, store: StoreId, witness: Witness) -> Result<(), Fault> {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(store.as_bytes());
    put_u64(&mut bytes[24..], witness.position.get());
    bytes[32..48].copy_from_slice(witness.id.as_bytes());
    small_file::write(disk, NAME, &mut bytes)
}

/// The advice for a log of which a part is missing.
pub const MISSING: &str = "restore a backup, or copy the undamaged part with `annals repair`. A copy of the files of an open \
                           store is not whole: make it with `annals backup`";
/// The advice for a log that has lost its end.
pub const REMEDY: &str = "restore a backup, or copy the undamaged part with `annals repair`; if the log is meant to end here, \
                          remove `log/durable`. A copy of the files of an open store is not whole: make it with \
                          `annals backup`";

/// Returns damage at this byte of the last segment if the log ends there, before the event that is known to
/// be durable.
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

/// Returns damage if `found` is at the position of the event known to be durable, and is another event.
pub fn check_event(known: Witness, found: Witness) -> Result<(), Fault> {
    if known.position != found.position || known.id == found.id {
        return Ok(());
    }
    let problem = format!(
        "event {} was recorded as durable at position {}, but the log has {} there: this is another history of the log; if \
         it is the right one, remove `log/durable`",
        known.id, known.position, found.id
    );
    Err(Fault::damaged(NAME, 24, Some(known.position), problem))
}
