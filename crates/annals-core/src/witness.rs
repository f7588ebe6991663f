//! A position together with the history to which it belongs.
//!
//! A position alone does not show whether the log is still the one it was read from: a restored backup, a
//! standby that lost the newest events, or another log at the same address has other events at the same
//! positions. A [`Witness`] names the event too, so the difference is detected when the position is used
//! again: `store` compares it.

use std::fmt;

use crate::{EventId, Invalid, Position, RecordedEvent};

/// A position and the id of the event there; at position 0, the id of the log.
///
/// Every component that gives out a position to be used later (a checkpoint, a `Last-Event-ID`, a cursor)
/// gives out a witness. As text it is the position, `@` and the id:
/// `42@0f8fad5b-d9cb-469f-a165-70867728950e`.
#[doc(alias("tracking token", "resume token"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// The position.
    pub position: Position,
    /// The id of the event at that position, or of the log if the position is 0.
    pub id: EventId,
}

impl Witness {
    /// The witness of an event.
    pub fn of(event: &RecordedEvent) -> Self {
        Self { position: event.position(), id: event.id() }
    }
}

/// How far a caller has seen a log: a position, with the id of the event there if it is known.
///
/// When it is used, one made from a [`Witness`] is compared with the log, so another history is detected; one
/// made from a [`Position`] alone is not compared. As text it is `42@UUID` or `42`.
///
/// The greater of two is the one with the greater position. The default is position 0, before the first
/// event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// The position up to which the caller has seen the log.
    pub position: Position,
    /// The id of the event there, or of the log if the position is 0. `None` if it is not known.
    pub event: Option<EventId>,
}

impl Seen {
    /// The witness, if the event is known.
    pub fn witness(self) -> Option<Witness> {
        self.event.map(|id| Witness { position: self.position, id })
    }
}

impl From<Position> for Seen {
    fn from(position: Position) -> Self {
        Self { position, event: None }
    }
}

impl From<Witness> for Seen {
    fn from(witness: Witness) -> Self {
        Self { position: witness.position, event: Some(witness.id) }
    }
}

impl From<&RecordedEvent> for Seen {
    fn from(event: &RecordedEvent) -> Self {
        Witness::of(event).into()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.witness() {
            Some(witness) => witness.fmt(f),
            None => self.position.fmt(f),
        }
    }
}

impl std::str::FromStr for Seen {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.contains('@') {
            return text.parse().map(Witness::into);
        }
        let position: Result<Position, _> = text.parse();
        position.map(Self::from).map_err(|_| {
            Invalid::new("position", format!("`{text}` is not a position, alone or as `42@UUID`"))
        })
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.position, self.id)
    }
}

impl std::str::FromStr for Witness {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts = text
            .split_once('@')
            .and_then(|(position, id)| Some(Self { position: position.parse().ok()?, id: id.parse().ok()? }));
        parts.ok_or_else(|| {
            Invalid::new("witness", format!("`{text}` is not a position and an event id, such as `42@UUID`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Append, EventStore, Expected, MemoryStore, NewEvent, StreamId};

    async fn log(events: u64) -> MemoryStore {
        let store = MemoryStore::new();
        for _ in 0..events {
            let event = NewEvent::new("thing.done", "{}").unwrap();
            store
                .append(Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event]))
                .await
                .unwrap();
        }
        store
    }

    #[tokio::test]
    async fn a_witness_holds_in_its_own_history_only() {
        let (one, other) = (log(2).await, log(2).await);
        for position in 0..=2 {
            let witness = Witness::at(&one, Position::new(position)).await.unwrap().unwrap();
            assert!(witness.holds(&one).await.unwrap(), "{witness}");
            assert!(!witness.holds(&other).await.unwrap(), "{witness}");
            assert_eq!(witness.to_string().parse(), Ok(witness));
        }
        assert_eq!(Witness::at(&one, Position::new(3)).await.unwrap(), None);
    }

    #[test]
    fn what_was_seen_is_written_as_it_is_read() {
        let witness = Witness { position: Position::new(42), id: EventId::from_name(b"seen") };
        for seen in [Seen::from(witness), Seen::from(Position::new(42)), Seen::from(Position::ZERO)] {
            assert_eq!(seen.to_string().parse(), Ok(seen));
        }
        for text in ["", "-1", "x", "42@", "42@x", "@0f8fad5b-d9cb-469f-a165-70867728950e"] {
            assert!(text.parse::<Seen>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_witness_is_read_whole() {
        for text in
            ["42", "42@", "@0f8fad5b-d9cb-469f-a165-70867728950e", "x@0f8fad5b-d9cb-469f-a165-70867728950e"]
        {
            assert!(text.parse::<Witness>().is_err(), "{text}");
        }
    }
}
