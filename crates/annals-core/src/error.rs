//! Why a store refused, by what the caller can do about it.

use std::fmt;

use crate::chain::{because, chain};
use crate::{Cause, Expected, Invalid, Position, RecordedEvent, Reused, StreamId, Version, Witness};

/// The result of a store's method.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store refused, by what the caller can do about it. Each variant has a page in `docs/errors/`.
///
/// The text contains all causes, so there is no `source`. [`cause`](Self::cause) returns the cause itself,
/// for callers that need an error of a certain type.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A condition of the append does not hold, and nothing was written. Read the new events and decide
    /// again.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// The request is wrong; retrying does not help. Nothing was written.
    #[error("invalid request: {0}")]
    Invalid(Invalid),
    /// The key, or the ids, of the append belong to an earlier one with other events. Nothing was written.
    #[error("{0}; nothing was written")]
    Reused(Box<Reused>),
    /// Nothing was written; the same request may succeed later without intervention.
    #[error("the store is unavailable: {}", because(.0))]
    Unavailable(Cause),
    /// The store cannot do this until its configuration or environment is changed: a permission, a setting,
    /// an address, an older format. Retrying does not help until then. Nothing was written.
    #[error("the store cannot be used as it is: {}", because(.0))]
    Unusable(Cause),
    /// There is no store at this address, and none was created.
    #[error("there is no store: {}", because(.0))]
    NoStore(Cause),
    /// The store was closed by its owner and takes no more requests. Nothing was written.
    #[error("the store is closed")]
    Closed,
    /// The stored data is intact, but this program cannot read it: an event has an unknown type or an unknown
    /// form.
    #[error("the stored data cannot be read: {}", because(.0))]
    Unreadable(Cause),
    /// A bug in Annals, or in the store that returned the error. Please report it.
    #[error("this is a bug: {}", because(.0))]
    Internal(Cause),
    /// The append may or may not be durable: send the same append again, with its key or its event ids.
    #[error("the outcome of the append is unknown; send the same append again: {}", because(.0))]
    Indeterminate(Cause),
    /// An earlier write or sync failed: the store takes no more appends until it is opened again. Reads
    /// continue.
    #[error("the store takes no appends after a failed write; close it and open it again: {}", because(.0))]
    Poisoned(Cause),
    /// Stored bytes contradict an invariant: stop, verify, restore.
    #[error("damage at {location}: {}", because(.cause))]
    Damaged {
        /// Where the bytes are.
        location: Location,
        /// The cause.
        cause: Cause,
    },
}

impl Error {
    /// The stable name of the kind of error: the page in `docs/errors/`, and what programs in other languages
    /// match on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "conflict",
            Self::Invalid(_) => "invalid",
            Self::Reused(_) => "reused",
            Self::Unavailable(_) => "unavailable",
            Self::Unusable(_) => "unusable",
            Self::NoStore(_) => "no-store",
            Self::Closed => "closed",
            Self::Unreadable(_) => "unreadable",
            Self::Internal(_) => "internal",
            Self::Indeterminate(_) => "indeterminate",
            Self::Poisoned(_) => "poisoned",
            Self::Damaged { .. } => "damaged",
        }
    }

    /// Whether the same request may succeed later without intervention, so that a retry is worthwhile. After
    /// [`Indeterminate`](Self::Indeterminate) it must be the same append, with its key or its event ids.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Indeterminate(_))
    }

    /// The error and all its causes in one line: the same as its text.
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// The cause of the error, if there is one: an error of the driver or of the operating system, whose
    /// sources can be searched by type. Its text is already part of the error's text.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        match self {
            Self::Unavailable(cause)
            | Self::Unusable(cause)
            | Self::NoStore(cause)
            | Self::Unreadable(cause)
            | Self::Internal(cause)
            | Self::Indeterminate(cause)
            | Self::Poisoned(cause)
            | Self::Damaged { cause, .. } => Some(&**cause),
            Self::Conflict(_) | Self::Invalid(_) | Self::Reused(_) | Self::Closed => None,
        }
    }
}

/// The kind and the text, for `unwrap`: the structs of a driver are noise.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(conflict) => f.debug_tuple("Conflict").field(conflict).finish(),
            Self::Invalid(invalid) => f.debug_tuple("Invalid").field(invalid).finish(),
            Self::Reused(reused) => f.debug_tuple("Reused").field(reused).finish(),
            Self::Closed => f.write_str("Closed"),
            Self::Unavailable(cause) => f.debug_tuple("Unavailable").field(&because(cause)).finish(),
            Self::Unusable(cause) => f.debug_tuple("Unusable").field(&because(cause)).finish(),
            Self::NoStore(cause) => f.debug_tuple("NoStore").field(&because(cause)).finish(),
            Self::Unreadable(cause) => f.debug_tuple("Unreadable").field(&because(cause)).finish(),
            Self::Internal(cause) => f.debug_tuple("Internal").field(&because(cause)).finish(),
            Self::Indeterminate(cause) => f.debug_tuple("Indeterminate").field(&because(cause)).finish(),
            Self::Poisoned(cause) => f.debug_tuple("Poisoned").field(&because(cause)).finish(),
            Self::Damaged { location, cause } => {
                f.debug_struct("Damaged").field("location", location).field("cause", &because(cause)).finish()
            }
        }
    }
}

// Not by `#[from]`, which would also make it the source of an error that prints it.
impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// Every condition of an append that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The conditions that did not hold, in the order of the request. Never empty.
    pub violations: Vec<Violation>,
}

impl Conflict {
    /// Whether reading the new events and deciding again can help: every violated condition is stale. That is
    /// not so for a stream that should exist and does not, or for a version that the stream never had.
    pub fn is_stale(&self) -> bool {
        self.violations.iter().all(|violation| violation.violated.is_stale())
    }
}

/// The number of violations that the text of a conflict names.
const NAMED_VIOLATIONS: usize = 3;

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.violations.iter().take(NAMED_VIOLATIONS).enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            violation.violated.fmt(f)?;
        }
        match self.violations.len() {
            count if count > NAMED_VIOLATIONS => {
                write!(f, "; and {} more of {count} conditions do not hold", count - NAMED_VIOLATIONS)
            }
            _ => Ok(()),
        }
    }
}

/// A violated condition, with the events that the caller has not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which condition: its index in [`Append::conditions`](crate::Append::conditions).
    pub condition: usize,
    /// How it is violated.
    pub violated: Violated,
    /// The events that the caller has not seen, oldest first: those of the stream after the expected version,
    /// or those that match the query.
    pub unseen: Vec<RecordedEvent>,
    /// Whether `unseen` is all of them. A conflict contains at most 256 events or 4 MiB over all of its
    /// violations.
    pub unseen_complete: bool,
}

/// How a condition is violated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violated {
    /// The version of a stream is not the expected one.
    Version {
        /// The stream.
        stream: StreamId,
        /// What the append expected.
        expected: Expected,
        /// The version that the stream has; 0 if it does not exist.
        actual: Version,
    },
    /// The stream does not have the event that the caller has seen: the log now has another history.
    Newest {
        /// The stream.
        stream: StreamId,
        /// The version at which the caller saw the event.
        version: Version,
        /// The version that the stream has; 0 if it does not exist.
        actual: Version,
    },
    /// An event matches the query.
    NoMatch {
        /// The position after which no event may match.
        after: Position,
        /// Position of the first event that matches.
        position: Position,
    },
    /// The log has lost events that were read or acknowledged before, as after a failover to a standby that
    /// did not have them, so the facts on which the append was decided may be gone.
    History {
        /// A lost event.
        seen: Witness,
    },
}

impl Violated {
    /// Whether the condition held once, so reading the new events and deciding again can help.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Version { expected, actual, .. } => expected.version().is_some_and(|seen| seen < *actual),
            Self::Newest { .. } | Self::NoMatch { .. } | Self::History { .. } => true,
        }
    }
}

impl fmt::Display for Violated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { stream, expected: Expected::Exists, .. } => {
                write!(f, "stream `{stream}` does not exist")
            }
            Self::Version { stream, expected: Expected::NoStream, actual } => {
                write!(f, "stream `{stream}` exists already, at version {actual}")
            }
            Self::Version { stream, expected, actual } => {
                write!(f, "stream `{stream}` is at version {actual}, not {expected}")
            }
            Self::Newest { stream, version, actual } => write!(
                f,
                "stream `{stream}`, at version {actual}, does not have the event that was seen at version {version}: \
                 the log has another history"
            ),
            Self::NoMatch { after, position } => {
                write!(f, "an event at position {position} matches the query after position {after}")
            }
            Self::History { seen } => {
                write!(f, "the log no longer has the event {} at position {}", seen.id, seen.position)
            }
        }
    }
}

/// The location of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, or the store's name for what holds the bytes, such as a table.
    pub file: String,
    /// The first wrong byte, or the start of the block that contains it.
    pub offset: u64,
    /// Position of the first affected event, if it is known.
    pub position: Option<Position>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte {}", self.file, self.offset)?;
        match self.position {
            Some(position) => write!(f, " (position {position})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_the_first_violations_and_how_many_there_are() {
        let violated = Violated::NoMatch { after: Position::ZERO, position: Position::FIRST };
        let violation = |condition| Violation {
            condition,
            violated: violated.clone(),
            unseen: Vec::new(),
            unseen_complete: false,
        };
        let text = Conflict { violations: (0..1_000).map(violation).collect() }.to_string();
        assert!(text.len() < 300 && text.ends_with("and 997 more of 1000 conditions do not hold"), "{text}");
    }

    #[test]
    fn an_error_says_everything_once_however_it_is_printed() {
        let location = Location { file: "1.log".to_owned(), offset: 7, position: None };
        let cause = || Cause::from(std::io::Error::other(Error::Unavailable("the disk is full".into())));
        let behind = "the store is unavailable: the disk is full";
        for (error, text) in [
            (
                Invalid::new("events[3].type", "is empty").into(),
                "invalid request: events[3].type is empty".to_owned(),
            ),
            (Error::Unavailable("the disk is full".into()), behind.to_owned()),
            (
                Error::Indeterminate(cause()),
                format!("the outcome of the append is unknown; send the same append again: {behind}"),
            ),
            (Error::Damaged { location, cause: cause() }, format!("damage at 1.log byte 7: {behind}")),
        ] {
            assert_eq!((error.to_string(), error.chain()), (text.clone(), text));
            assert!(std::error::Error::source(&error).is_none(), "a printer of sources would say it twice");
        }
    }

    #[test]
    fn only_what_may_succeed_later_is_worth_asking_again() {
        let location = Location { file: "1.log".to_owned(), offset: 7, position: None };
        for (error, code, is_transient) in [
            (Error::Unavailable("x".into()), "unavailable", true),
            (Error::Indeterminate("x".into()), "indeterminate", true),
            (Error::Unusable("x".into()), "unusable", false),
            (Error::NoStore("x".into()), "no-store", false),
            (Error::Closed, "closed", false),
            (Error::Unreadable("x".into()), "unreadable", false),
            (Error::Internal("x".into()), "internal", false),
            (Error::Poisoned("x".into()), "poisoned", false),
            (Error::Damaged { location, cause: "x".into() }, "damaged", false),
            (Invalid::new("x", "is empty").into(), "invalid", false),
        ] {
            assert_eq!((error.code(), error.is_transient()), (code, is_transient));
            assert!(!error.chain().contains("unavailable") || code == "unavailable", "{error}");
        }
    }

    #[test]
    fn the_cause_of_an_error_can_be_looked_for_by_type() {
        let error = Error::Unavailable(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
        let io = error.cause().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        assert_eq!(io.map(std::io::Error::kind), Some(std::io::ErrorKind::StorageFull));
        assert!(Error::from(Invalid::new("x", "is empty")).cause().is_none());
        assert_eq!(format!("{error:?}"), "Unavailable(\"no storage space\")");
    }
}
