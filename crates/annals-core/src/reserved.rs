//! Names reserved for Annals: streams and event types that begin with `annals.`.
//!
//! The framework stores facts of its own in a log under these names, and trusts them. So a name from outside
//! is checked where it enters: in an aggregate's name, a derived type, an append over HTTP or the command
//! line, an imported row, a message of an outbox. A store accepts them, because a backup, an export and a
//! move copy these events unchanged.

use crate::Invalid;

/// The prefix of reserved names.
const PREFIX: &str = "annals.";

/// Refuses a reserved name, as the value of this field.
///
/// # Errors
/// [`Invalid`], if the name begins with `annals.`.
pub fn refuse_reserved(field: &str, name: &str) -> Result<(), Invalid> {
    if !name.starts_with(PREFIX) {
        return Ok(());
    }
    let problem =
        format!("`{name}` begins with `{PREFIX}`, which is reserved for Annals; choose another name");
    Err(Invalid::new(field, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_with_the_prefix_are_refused_and_no_others() {
        for name in ["annals.", "annals.answers-account-a1", "annals.command_refused"] {
            let invalid = refuse_reserved("stream", name).unwrap_err();
            assert_eq!(invalid.field, "stream");
            assert!(invalid.problem.contains(name) && invalid.problem.contains("choose"), "{invalid}");
        }
        for name in ["annals", "annals-1", "Annals.x", "my.annals.x", "annalsx"] {
            assert_eq!(refuse_reserved("stream", name), Ok(()), "{name}");
        }
    }
}
