//! Appends that are validated together, and the event they may rest on that the log has lost.

use annals_core::{Append, Condition, Position, StoreId, Version, Witness};

/// Appends that are validated together.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The appends, in the order of their arrival.
    pub appends: Vec<Pending<'a>>,
    /// The newest event that was known when `lost` was looked up. It must be in the log when the batch is
    /// written: if it is not, events were lost meanwhile.
    pub known: Witness,
    /// The identity of the log.
    pub log: StoreId,
}

/// An append to be validated.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    /// The append.
    pub append: &'a Append,
    /// An event that was found to be lost after the append arrived.
    pub lost: Option<Witness>,
}

impl Pending<'_> {
    /// Whether a condition may hold although the append rests on lost events.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.lost.is_some() && self.append.conditions.iter().any(names_only_a_place)
    }
}

/// Whether a condition names a version or a position, at which another history may have another event.
pub(crate) fn names_only_a_place(condition: &Condition) -> bool {
    match condition {
        Condition::Version { expected, .. } => {
            expected.version().is_some_and(|version| version > Version::ZERO)
        }
        Condition::NoMatch { after, .. } => after.event.is_none() && after.position > Position::ZERO,
        _ => false,
    }
}
