//! How a command ends: its exit code, and the message of a failure on standard error.
//!
//! | code | |
//! |---|---|
//! | 0 | success |
//! | 1 | another failure, such as an invalid line of a file or an append whose outcome is unknown; or a check failed |
//! | 2 | the command is invalid: an option, or data that no store accepts |
//! | 3 | a store, stream, event or file does not exist |
//! | 4 | a conflict: the stream, the key, the id or the history is not as expected; nothing was written |
//! | 5 | the store is unavailable; the same command may succeed later |
//! | 6 | the store or the backup is damaged, or events are lost |
//! | 7 | the store cannot be used or read until its configuration or environment is changed |
//! | 130, 143 | stopped by SIGINT or SIGTERM before the end: `stop` |
//!
//! With `--json` a failure is a problem document, as over HTTP, with the exit code in it.

use std::io::{self, Write as _};
use std::process::ExitCode;

use annals_core::{Error, Invalid};
use annals_server::{Problem, StatusCode};

use crate::bad_line::BadLine;
use crate::output::note;
use crate::stop::{self, Stopped};
use crate::{address, begin};

/// The section of `--help` on exit codes.
pub(crate) const CODES: &str = "Exit codes:
    0  success
    1  another failure, or a check failed
    2  the command is invalid: an option, or data that no store accepts
    3  a store, stream, event or file does not exist
    4  a conflict: the version, key, id or history is not as expected
    5  the store is unavailable; the same command may succeed later
    6  the store or the backup is damaged, or events are lost
    7  the store cannot be used or read until it or its environment is changed
  130  stopped by SIGINT (Ctrl-C) before it finished; 143 by SIGTERM

With --json a failure is a JSON object on standard error.";

/// An error of the command line that clap does not detect.
#[derive(Debug, thiserror::Error)]
#[error("{0}; see --help")]
pub(crate) struct Usage(pub(crate) String);

/// A store, stream, event or file that was named does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotFound(pub(crate) String);

/// An error with a text that follows all of its causes.
#[derive(Debug, thiserror::Error)]
#[error("{error:#}; {by}")]
pub(crate) struct Followed {
    pub(crate) error: anyhow::Error,
    pub(crate) by: &'static str,
}

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Other,
    Usage,
    NotFound,
    Conflict,
    Unavailable,
    Unusable,
    Damaged,
    Stopped,
}

impl Failure {
    /// The kind given by the outermost cause that determines one.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::Other)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return Some(Self::of_store(error));
        }
        if let Some(annals::ViewError::Store(error)) = cause.downcast_ref::<annals::ViewError>() {
            return Some(Self::of_store(error));
        }
        if let Some(annals::LoadError::Store(error)) = cause.downcast_ref::<annals::LoadError>() {
            return Some(Self::of_store(error));
        }
        if let Some(followed) = cause.downcast_ref::<Followed>() {
            return followed.error.chain().find_map(Self::of_cause);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return match error.get_ref() {
                Some(within) => Self::of_cause(within),
                None => (error.kind() == io::ErrorKind::NotFound).then_some(Self::NotFound),
            };
        }
        if let Some(error) = cause.downcast_ref::<annals_outbox::Error>() {
            return Self::of_outbox(error);
        }
        if cause.is::<Stopped>() || cause.is::<annals_engine::Stopped>() {
            Some(Self::Stopped)
        } else if cause.is::<Usage>() || cause.is::<Invalid>() {
            Some(Self::Usage)
        } else if cause.is::<NotFound>() {
            Some(Self::NotFound)
        } else if cause.is::<begin::OtherHistory>() {
            Some(Self::Conflict)
        } else {
            None
        }
    }

    /// The kind of a store's error.
    pub(crate) fn of_store(error: &Error) -> Self {
        match error {
            Error::Conflict(_) | Error::Reused(_) => Self::Conflict,
            Error::Invalid(_) => Self::Usage,
            // Stopped work is reported as `Unavailable`.
            Error::Unavailable(cause) => match Self::of_cause(&**cause) {
                Some(Self::Stopped) => Self::Stopped,
                _ => Self::Unavailable,
            },
            Error::Poisoned(_) | Error::Closed => Self::Unavailable,
            Error::NoStore(_) => Self::NotFound,
            Error::Unusable(_) | Error::Unreadable(_) => Self::Unusable,
            Error::Damaged { .. } => Self::Damaged,
            _ => Self::Other,
        }
    }

    fn of_outbox(error: &annals_outbox::Error) -> Option<Self> {
        match error {
            annals_outbox::Error::Invalid(_) => Some(Self::Usage),
            annals_outbox::Error::NoTables(_) | annals_outbox::Error::NoDeadLetter(_) => Some(Self::NotFound),
            annals_outbox::Error::Database(_) => Some(Self::Unavailable),
            _ => None,
        }
    }

    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
            Self::Damaged => 6,
            Self::Unusable => 7,
            Self::Stopped => stop::code(),
        }
    }

    /// The problem document of a failure that is not an error of a store.
    fn problem(self, detail: String) -> Problem {
        let (status, code) = match self {
            Self::Usage => (StatusCode::BAD_REQUEST, "invalid"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            Self::Conflict => (StatusCode::CONFLICT, "other-history"),
            Self::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Problem::new(status, code, detail)
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.code())
    }
}

/// Reports why a command failed.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let line = annals_core::chain(error.as_ref());
    let (failure, line) = (Failure::of(error), address::without_passwords(&line));
    if !is_json_asked() {
        note(&format!("annals: {line}"));
        return failure.into();
    }
    let problem = match (find::<Error>(error), find::<Invalid>(error)) {
        (Some(error), _) if failure != Failure::Stopped => Problem::of(error).explained(line),
        (_, Some(invalid)) => Problem::from(invalid.clone()).explained(line),
        _ => failure.problem(line),
    };
    let problem = match find::<BadLine>(error) {
        Some(bad) => problem.with("line", bad.line),
        None => problem,
    };
    show(problem, failure)
}

/// Reports an error of the command line.
pub(crate) fn refuse(line: &str) -> ExitCode {
    let line = format!("{line}; see --help");
    if is_json_asked() {
        return show(Failure::Usage.problem(line), Failure::Usage);
    }
    note(&format!("annals: {line}"));
    Failure::Usage.into()
}

fn show(problem: Problem, failure: Failure) -> ExitCode {
    let mut line = problem.with("exit_code", failure.code()).to_json();
    line.push(b'\n');
    // If this fails, the failure cannot be reported either.
    let _ = io::stderr().write_all(&line);
    failure.into()
}

/// The first cause of this type.
fn find<T: std::error::Error + 'static>(error: &anyhow::Error) -> Option<&T> {
    error.chain().find_map(|cause| match cause.downcast_ref::<Followed>() {
        Some(followed) => find(&followed.error),
        None => cause.downcast_ref(),
    })
}

/// Whether the command line has `--json`. It works on a command line that clap cannot parse, too.
fn is_json_asked() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_exit_code() {
        let of =
            |error: Error| Failure::of(&anyhow::Error::from(error).context("cannot open the store")).code();
        assert_eq!(of(Error::Unavailable("the disk is full".into())), 5);
        assert_eq!(of(Error::Unavailable(Box::new(annals_engine::Stopped))), stop::code());
        assert_eq!(of(Error::Poisoned("a sync failed".into())), 5);
        assert_eq!(of(Error::Closed), 5);
        assert_eq!(of(Error::NoStore("there are no tables".into())), 3);
        assert_eq!(of(Error::Unusable("the role may not do this".into())), 7);
        assert_eq!(of(Error::Unreadable("a column of another type".into())), 7);
        assert_eq!(of(Error::Internal("a page that ends where it begins".into())), 1);
        assert_eq!(of(Error::Indeterminate("the connection broke".into())), 1);
        assert_eq!(of(Invalid::new("x", "is empty").into()), 2);
    }
}
