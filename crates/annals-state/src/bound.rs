//! The checkpoint that lies with the rows of a projection: which log and which schema they are of, up to where they are
//! made, and whether they can be resumed. Where it is stored is not known here.

use annals_core::{EventStore, Position, Result, Witness};

/// What rows say of themselves.
pub struct Bound {
    /// The log that they are made of.
    pub store: [u8; 16],
    /// The text of the schema.
    pub schema: String,
    /// Everything up to here is in them.
    pub position: Position,
    /// The event there.
    pub witness: Option<Witness>,
}

/// Why rows cannot be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// They are of another log.
    OtherLog,
    /// The text of the schema has changed.
    OtherSchema,
    /// They reach beyond the end of the log.
    Beyond,
    /// The log does not have the event at which they are.
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
        // Asked first: a server that does not have the event yet does not answer.
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

/// Rows that were checked: where they are, and whether they had to be made again.
pub struct Checked {
    /// Everything up to here is in them.
    pub position: Position,
    /// The event there. `None` at the beginning, and in rows of versions of Annals that did not note it.
    pub witness: Option<Witness>,
    /// Why the rows are made again.
    pub made_again: Option<String>,
}
