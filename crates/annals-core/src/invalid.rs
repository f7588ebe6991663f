//! An error in a request: the field and the problem.

use crate::text::shortened;

/// An error in a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// The part of the request that is wrong, as a path: `events[3].type`.
    pub field: String,
    /// What is wrong with it, and the correct form.
    pub problem: String,
}

/// Most bytes of a field's name in an [`Invalid`]: longer than any name that is accepted.
const FIELD_BYTES_MAX: usize = 2 << 10;
/// Most bytes of the problem in an [`Invalid`].
const PROBLEM_BYTES_MAX: usize = 4 << 10;

impl Invalid {
    /// An error for this part of the request and this problem.
    ///
    /// A problem may quote a text as long as the request: the middle of a long text is left out.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: shortened(field.into(), FIELD_BYTES_MAX),
            problem: shortened(problem.into(), PROBLEM_BYTES_MAX),
        }
    }
}

impl From<std::convert::Infallible> for Invalid {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_quotes_a_long_text_is_short() {
        let long = "한".repeat(1 << 20);
        let invalid = Invalid::new(format!("events[0].{long}"), format!("`{long}` is not a UUID"));
        assert!(
            invalid.field.len() <= 2 << 10 && invalid.field.starts_with("events[0].한"),
            "{}",
            invalid.field
        );
        assert!(invalid.problem.len() <= 4 << 10 && invalid.problem.ends_with("` is not a UUID"));
    }
}
