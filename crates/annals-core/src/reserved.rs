//! Names that only Annals itself writes: streams and types of events that begin with `annals.`.
//!
//! The framework keeps facts of its own in a log under them, and believes what it finds there. So a name that comes from outside
//! is checked where it enters: in an aggregate's name, a derived type, an append over HTTP or the command line, an imported row,
//! a message of an outbox. A store takes any, because a backup, an export and a move carry these events as they are.

use crate::Invalid;

/// How the names begin.
const PREFIX: &str = "annals.";

/// Refuses a name that is kept for Annals, as the value of this field.
///
/// # Errors
/// [`Invalid`], if the name begins with `annals.`.
pub fn refuse_reserved(field: &str, name: &str) -> Result<(), Invalid> {
    if !name.starts_with(PREFIX) {
        return Ok(());
    }
    let problem = format!(
        "`{name}` begins with `{PREFIX}`, which is kept for what Annals itself records; choose a name that does not"
    );
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
