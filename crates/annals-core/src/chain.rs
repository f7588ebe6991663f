//! The text of an error with all its causes.
//!
//! Errors of Annals say in their `Display` all that is known of why, and have no `source` then, so that whatever prints an
//! error, or an error and its sources, says each thing once. What they hold of others is put into words here.

use std::error::Error;

/// The cause of an error; for people and logs, not to be matched on.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Most causes that are shown of an error: one may be its own source.
const CAUSES_MAX: usize = 16;

/// An error and all its causes in one line. A cause that the text before it ends with is not repeated: some errors
/// print their source, and have it too.
///
/// ```
/// use annals_core::chain;
///
/// let io = std::io::Error::other("disk is full");
/// assert_eq!(chain(&annals_core::Error::Unavailable(io.into())), "the store is unavailable: disk is full");
/// ```
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(error) = cause else { break };
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// The text of a cause, for the `Display` of an error that holds it.
pub(crate) fn because(cause: &Cause) -> String {
    chain(&**cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write {file}")]
    struct Quiet {
        file: &'static str,
        #[source]
        cause: std::io::Error,
    }

    /// Prints its source and has it too.
    #[derive(Debug, thiserror::Error)]
    #[error("the table is broken: {0}")]
    struct Loud(#[source] Quiet);

    #[test]
    fn every_cause_is_said_once() {
        let quiet = || Quiet { file: "1.log", cause: std::io::Error::other("no room") };
        assert_eq!(chain(&quiet()), "cannot write 1.log: no room");
        assert_eq!(chain(&Loud(quiet())), "the table is broken: cannot write 1.log: no room");
    }
}
