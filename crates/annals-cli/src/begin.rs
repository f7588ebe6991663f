//! Where a read begins: a place that an earlier read ended at, and the history that it belongs to.
//!
//! A number alone is believed. With the id of the event there, `42@UUID`, it is a witness: if the log has another event at
//! that place, because it was restored or is another log, the read is refused instead of skipping what is new.

use std::str::FromStr;

use annals_core::{
    Direction, EventId, EventStore, Position, RecordedEvent, StreamId, StreamRead, Version, Witness,
};
use anyhow::bail;
use clap::Args;

use crate::whole_number;

/// The options that say where a read begins.
#[derive(Args)]
pub(crate) struct BeginOptions {
    /// Where to begin, inclusive: a position, or for one stream a version; as 42@UUID, with the id of the event there,
    /// the log must have that event there
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    from: Option<Place>,
    /// The same, exclusive: begin with the event that follows, to resume after the last one that was read
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "from")]
    after: Option<Place>,
}

/// A position or version, perhaps with the id of the event there.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    id: Option<EventId>,
}

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
    /// If the store does not have the event that is named.
    pub(crate) async fn resolve(
        &self,
        store: &dyn EventStore,
        stream: Option<&StreamId>,
        direction: Direction,
    ) -> anyhow::Result<Option<u64>> {
        if let Some(place) = self.from.or(self.after) {
            place.check(store, stream).await?;
        }
        let first = if direction == Direction::Forward { 1 } else { u64::MAX };
        let Some(after) = self.after else { return Ok(Some(self.from.map_or(first, |from| from.number))) };
        Ok(match direction {
            Direction::Forward => after.number.checked_add(1),
            Direction::Backward => after.number.checked_sub(1).filter(|number| *number > 0),
        })
    }
}

impl Place {
    /// Refuses a place at which the store has another event than the one that is named.
    async fn check(self, store: &dyn EventStore, stream: Option<&StreamId>) -> anyhow::Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        let held = match stream {
            None => Witness { position: Position::new(self.number), id }.holds(store).await?,
            Some(stream) => {
                let read = StreamRead::forward(stream, Version::new(self.number)).limit(1);
                let is_it = |event: &RecordedEvent| event.version.get() == self.number && event.id == id;
                store.read_stream(read).await?.events.first().is_some_and(is_it)
            }
        };
        if !held {
            let (what, whose) =
                stream.map_or(("position", String::new()), |stream| ("version", format!(" of {stream}")));
            bail!(
                "event {id} is not at {what} {}{whose}: the log has another history than the one that was read before; \
                 it was restored to an earlier time, or is another log. Read it from the beginning, or from a place \
                 before the restore",
                self.number
            );
        }
        Ok(())
    }
}
