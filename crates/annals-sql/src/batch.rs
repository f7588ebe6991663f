//! Appends that are to be judged together, and what of the log they were decided on may be lost.

use annals_core::{Append, Condition, Position, StoreId, Version, Witness};

/// Appends that are to be judged together.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The appends, in the order in which they came in.
    pub appends: Vec<Pending<'a>>,
    /// The newest event that was known when `lost` was looked up. It must be in the log when the batch is written: if it is
    /// not, events were lost meanwhile.
    pub known: Witness,
    /// The identity of the log.
    pub log: StoreId,
}

/// An append that is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    /// The append.
    pub append: &'a Append,
    /// An event that the log was found to have lost after the append came in.
    pub lost: Option<Witness>,
}

impl Pending<'_> {
    /// Whether a condition may hold although the append was decided on events that are lost.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.lost.is_some() && self.append.conditions.iter().any(names_only_a_place)
    }
}

/// Whether a condition is about a version or a position at which another history has another event.
pub(crate) fn names_only_a_place(condition: &Condition) -> bool {
    match condition {
        Condition::Version { expected, .. } => {
            expected.version().is_some_and(|version| version > Version::ZERO)
        }
        Condition::NoMatch { after, .. } => after.event.is_none() && after.position > Position::ZERO,
        _ => false,
    }
}
