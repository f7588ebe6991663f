//! The text of an error with all its causes.
//!
//! The `Display` of an Annals error includes its causes, and the error has no `source`, so that code that
//! prints an error, or an error and its sources, prints each cause once. The texts of causes from other
//! crates are formatted here.

use std::error::Error;

/// The cause of an error; for people and logs, not for matching.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Most causes of an error that are printed: an error may be its own source.
const CAUSES_MAX: usize = 16;

/// An error and all its causes in one line. A cause with which the preceding text ends is not repeated: some
/// errors print their source and also return it.
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
    fn every_cause_is_printed_once() {
        let quiet = || Quiet { file: "1.log", cause: std::io::Error::other("no room") };
        assert_eq!(chain(&quiet()), "cannot write 1.log: no room");
        assert_eq!(chain(&Loud(quiet())), "the table is broken: cannot write 1.log: no room");
    }
}
