//! Names of checkpoints, leases and holders, which every implementation stores unchanged.

use annals_core::Invalid;

use crate::StateError;

/// The most bytes of the name of a checkpoint, of a part of one, of a lease and of a holder.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Refuses a name that some store would not keep unchanged.
pub(crate) fn check_name(name: &str) -> Result<(), StateError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        let shown = &name[..name.floor_char_boundary(100)];
        let problem = format!("`{shown}` is empty, has a NUL, or is longer than {NAME_BYTES_MAX} bytes");
        return Err(Invalid::new("name", problem).into());
    }
    Ok(())
}
