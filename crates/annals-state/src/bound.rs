//! The checkpoint that is stored with the rows of a projection: their log, their schema, the position up to
//! which they are complete, and whether they can be resumed. Independent of where it is stored.

use annals_core::{EventStore, Position, Result, Witness};

/// The checkpoint that is stored with rows.
pub struct Bound {
    /// The log from which they are made.
    pub store: [u8; 16],
    /// The text of the schema.
    pub schema: String,
    /// All events up to this position are in them.
    pub position: Position,
    /// The event at this position.
    pub witness: Option<Witness>,
}

/// Why rows cannot be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// They are made from another log.
    OtherLog,
    /// The text of the schema has changed.
    OtherSchema,
    /// They reach beyond the end of the log.
    Beyond,
    /// The log does not contain the event of their checkpoint.
    OtherHistory,
}

impl Bound {
    /// Why these rows cannot be resumed for this log and this schema.
    pub async fn unusable(&self, schema: &str, store: &dyn EventStore) -> Result<Option<Unusable>> {
        if self.store != *store.id().as_bytes() {
            return Ok(Some(Unusable::OtherLog));
        }
        if self.schema != schema {
            return Ok(Some(Unusable::OtherSchema));
        }
        // First, because a server that does not have the event yet returns nothing.
        let is_there = match self.witness {
            Some(witness) => witness.holds(store).await?,
            None => true,
        };
        Ok(match is_there {
            _ if self.position > store.head().await? => Some(Unusable::Beyond),
            false => Some(Unusable::OtherHistory),
            true => None,
        })
    }
}

impl Unusable {
    /// The reason in words, for a status.
    pub fn reason(self) -> &'static str {
        match self {
            Self::OtherLog => "they are of another log",
            Self::OtherSchema => "the schema has changed without another VERSION",
            Self::Beyond => "they reach beyond the end of the log, which lost events",
            Self::OtherHistory => "they are made of events that the log lost",
        }
    }
}

/// The result of a check of rows: their position, and whether they must be made again.
pub struct Checked {
    /// All events up to this position are in them.
    pub position: Position,
    /// The event at this position. `None` at the beginning, and in rows of versions of Annals that did not
    /// store it.
    pub witness: Option<Witness>,
    /// Why the rows must be made again.
    pub made_again: Option<String>,
}
