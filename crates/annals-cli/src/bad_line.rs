//! The error for an invalid line of an imported file.

use std::fmt;

/// An invalid line of a file.
#[derive(Debug)]
pub(crate) struct BadLine {
    /// The number of the line, from 1.
    pub(crate) line: u64,
    /// The column, if only one is invalid.
    pub(crate) column: Option<String>,
    /// The problem.
    pub(crate) problem: String,
}

impl BadLine {
    /// An error for a whole line.
    pub(crate) fn new(line: u64, problem: impl Into<String>) -> Self {
        Self { line, column: None, problem: problem.into() }
    }

    /// An error for one column of a line.
    pub(crate) fn column(line: u64, column: &str, problem: impl Into<String>) -> Self {
        Self { line, column: Some(column.to_owned()), problem: problem.into() }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column `{column}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for BadLine {}
