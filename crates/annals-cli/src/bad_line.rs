//! What is wrong with a line of a file that is imported.

use std::fmt;

/// What is wrong with a line of a file.
#[derive(Debug)]
pub(crate) struct BadLine {
    /// The line, counted from 1.
    pub(crate) line: u64,
    /// The column, if it is one column that is wrong.
    pub(crate) column: Option<String>,
    /// What is wrong with it.
    pub(crate) problem: String,
}

impl BadLine {
    /// The whole line has this problem.
    pub(crate) fn new(line: u64, problem: impl Into<String>) -> Self {
        Self { line, column: None, problem: problem.into() }
    }

    /// This column of the line has this problem.
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
