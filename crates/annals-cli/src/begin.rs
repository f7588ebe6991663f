//! Positions and versions on the command line: the start or the end of a read, and the history that it
//! belongs to.
//!
//! A bare number is not checked. With the id of the event there, `42@UUID`, it is a witness: if the log has
//! another event there, because it was restored or is another log, the command is refused instead of skipping
//! new events.

use std::str::FromStr;

use annals_core::{
    Direction, EventId, EventStore, LogRead, Position, RecordedEvent, StreamId, StreamRead, Version, Witness,
};
use anyhow::bail;
use clap::Args;

use crate::numbers::whole_number;

/// The options that say where a read begins.
#[derive(Args)]
pub(crate) struct BeginOptions {
    /// Where to begin, inclusive: a position, or for one stream a version; as 42@UUID, with the id of the
    /// event there, the log must have that event there
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    from: Option<Place>,
    /// The same, exclusive: begin with the event that follows, to resume after the last one that was read
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "from")]
    after: Option<Place>,
}

/// A position or version, optionally with the id of the event there; at 0, with the id of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    number: u64,
    id: Option<EventId>,
}

/// The error if the log does not have the event that a place names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OtherHistory(String);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, id) = text.split_once('@').map_or((text, None), |(number, id)| (number, Some(id)));
        let number = whole_number(number)?;
        let id = id.map(str::parse).transpose().map_err(|wrong: annals_core::Invalid| wrong.problem)?;
        Ok(Self { number, id })
    }
}

impl BeginOptions {
    /// The position or version to begin at, inclusive; `None` if there is nothing to read in this direction.
    ///
    /// # Errors
    /// If the store does not have the event that the user named.
    pub(crate) async fn resolve(
        &self,
        store: &dyn EventStore,
        stream: Option<&StreamId>,
        direction: Direction,
    ) -> anyhow::Result<Option<u64>> {
        let first = if direction == Direction::Forward { 1 } else { u64::MAX };
        let Some(place) = self.from.or(self.after) else { return Ok(Some(first)) };
        let number = place.number_in(store, stream).await?;
        Ok(match (self.after.is_some(), direction) {
            (false, _) => Some(number),
            (true, Direction::Forward) => number.checked_add(1),
            (true, Direction::Backward) => number.checked_sub(1).filter(|number| *number > 0),
        })
    }
}

impl Place {
    /// The number as a position of the log.
    pub(crate) fn position(self) -> Position {
        Position::new(self.number)
    }

    /// The id of the event there, if it names one.
    pub(crate) fn id(self) -> Option<EventId> {
        self.id
    }

    /// Whether the log or the stream has the event that this place names; `true` if it names none. At 0 it
    /// names the log.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn holds(self, store: &dyn EventStore, stream: Option<&StreamId>) -> anyhow::Result<bool> {
        let Some(id) = self.id else { return Ok(true) };
        let (Some(stream), 1..) = (stream, self.number) else {
            return Ok(Witness { position: self.position(), id }.holds(store).await?);
        };
        let read = StreamRead::forward(stream, Version::new(self.number)).limit(1);
        let is_it = |event: &RecordedEvent| event.version().get() == self.number && event.id() == id;
        Ok(store.read_stream(read).await?.events.first().is_some_and(is_it))
    }

    /// The position of this place, after a check that the log has the event that it names.
    ///
    /// # Errors
    /// If the log does not have it there, or if the store cannot be read.
    pub(crate) async fn check(self, store: &dyn EventStore) -> anyhow::Result<Position> {
        if self.holds(store, None).await? {
            return Ok(self.position());
        }
        Err(self.is_elsewhere("position", ""))
    }

    fn is_elsewhere(self, what: &str, whose: &str) -> anyhow::Error {
        let Self { number, id } = self;
        let problem = format!(
            "event {} is not at {what} {number}{whose}: the log has another history than the one that this place is of; it \
             was restored to an earlier time, or is another log. Name a place before the restore, or none",
            id.map_or_else(String::new, |id| id.to_string()),
        );
        OtherHistory(problem).into()
    }

    /// The number as a position or, in a stream, as a version, after the same check.
    ///
    /// # Errors
    /// If the store does not have the event that the user named.
    pub(crate) async fn number_in(
        self,
        store: &dyn EventStore,
        stream: Option<&StreamId>,
    ) -> anyhow::Result<u64> {
        match stream {
            Some(stream) => self.in_stream(store, stream).await,
            None => Ok(self.check(store).await?.get()),
        }
    }

    /// The version in a stream. The place may also be a position of the log at which there is an event of
    /// that stream.
    async fn in_stream(self, store: &dyn EventStore, stream: &StreamId) -> anyhow::Result<u64> {
        if self.holds(store, Some(stream)).await? {
            return Ok(self.number);
        }
        if !self.holds(store, None).await? {
            return Err(self.is_elsewhere("version", &format!(" of {stream}")));
        }
        let page = store.read_log(LogRead::forward(self.position()).limit(1)).await?;
        match page.events.first() {
            Some(event) if event.stream() == *stream => Ok(event.version().get()),
            _ => bail!(
                "position {} of the log has an event of another stream than {stream}: name a version of it, or read --all",
                self.number
            ),
        }
    }
}
