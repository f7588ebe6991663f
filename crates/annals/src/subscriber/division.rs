//! The division of a subscriber's work into rows of `checkpoints`, and the handling of finished events when
//! the division changes.
//!
//! ```text
//! mail/1 of 4 at 300 · mail/2 of 4 at 120 · mail/3 of 4 at 300 · mail/4 of 4 at 300        stopped
//! mail/1 of 2 at 120 · mail/2 of 2 at 120 · mail/division: of 4, at 300, 120, 300, 300     started with two shares
//! ```
//!
//! - V1  All rows of a division are written in one transaction, if the old rows are unchanged since they were
//!       read (`replace_parts`), so processes that start at the same time create one division.
//! - V2  New shares begin at the checkpoint of the slowest old one. Later events that an old share had
//!       finished are recorded, and not delivered again.
//! - V3  The record names its event as a checkpoint does: after a loss of events only the events in common
//!       are finished. This is checked when the work is divided, and again before finished events are
//!       skipped, because a share whose checkpoint is before the lost events does not notice the loss by its
//!       own reads.
//!
//! The row `NAME/division` exists only while something is recorded.

use std::time::Duration;

use annals_consume::Ladder;
use annals_core::{Error, EventStore, Position, Result, Witness};
use annals_state::Checkpoint;

use super::checkpoint::{CheckpointError, Checkpoints, Stored};
use super::group::Share;

/// Attempts to divide work that other processes divide or handle at the same time.
const TRIES: u32 = 20;
/// The pause between these attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// The events that shares of earlier divisions had finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finished(Vec<Division>);

/// The checkpoint of each share of an earlier division.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Division {
    positions: Vec<Position>,
    /// The ladder of the share with the highest position.
    ladder: Ladder,
}

impl Finished {
    /// Whether this event was finished.
    pub fn has(&self, stream: &str, position: Position) -> bool {
        self.0.iter().any(|division| {
            let share = Share::index_of(stream, division.positions.len());
            division.positions.get(share).is_some_and(|finished| *finished >= position)
        })
    }

    /// Reads the record of this subscriber.
    pub async fn read(checkpoints: &Checkpoints) -> Result<Self, CheckpointError> {
        let name = checkpoints.subscriber.split('/').next().unwrap_or_default();
        let found = checkpoints.store.checkpoint(&row_of(name)).await?;
        found.map_or(Ok(Self::default()), |found| Self::of(name, &found))
    }

    /// Drops the events that the log no longer has.
    pub async fn step_back(&mut self, store: &dyn EventStore) -> Result<()> {
        for division in &mut self.0 {
            let newest = division.ladder.newest();
            if let Some(newest) = newest
                && newest.holds(store).await?
            {
                continue;
            }
            // Without a witness in common, the events may be of any history.
            let common = division.ladder.last_in_common(store).await?;
            let common = common.unwrap_or(Witness::origin(store.id()));
            division.ladder.step_back(common);
            for finished in &mut division.positions {
                *finished = common.position.min(*finished);
            }
        }
        Ok(())
    }

    fn of(name: &str, noted: &Checkpoint) -> Result<Self, CheckpointError> {
        let read = noted.ladder.as_deref().map_or(Some(Self::default()), Self::from_bytes);
        read.ok_or_else(|| CheckpointError::Unreadable {
            subscriber: row_of(name),
            problem: "has an invalid record of the finished events".to_owned(),
        })
    }

    /// For each division: the number of shares, the bytes of the ladder, the positions, the ladder.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Division { positions, ladder } in &self.0 {
            let ladder = ladder.to_bytes();
            for number in [positions.len(), ladder.len()] {
                bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
            }
            bytes.extend(positions.iter().flat_map(|position| position.get().to_be_bytes()));
            bytes.extend(ladder);
        }
        bytes
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut divisions = Vec::new();
        while !bytes.is_empty() {
            let (count, rest) = bytes.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (count, length) = (u32::from_be_bytes(*count) as usize, u32::from_be_bytes(*length) as usize);
            let (positions, rest) = rest.split_at_checked(count.checked_mul(8)?)?;
            let (ladder, rest) = rest.split_at_checked(length)?;
            let position = |bytes: &[u8]| Some(Position::new(u64::from_be_bytes(bytes.try_into().ok()?)));
            let positions = positions.chunks(8).map(position).collect::<Option<Vec<_>>>()?;
            divisions.push(Division { positions, ladder: Ladder::from_bytes(ladder)? });
            bytes = rest;
        }
        Some(Self(divisions))
    }

    /// Adds a division, and drops divisions without finished events after this position.
    fn with(mut self, division: Option<Division>, everything_up_to: Position) -> Self {
        self.0.extend(division);
        self.0.retain(|division| division.positions.iter().any(|finished| *finished > everything_up_to));
        self
    }

    fn furthest(&self) -> Position {
        self.0.iter().flat_map(|division| &division.positions).max().copied().unwrap_or_default()
    }
}

/// The row that records the finished events.
fn row_of(name: &str) -> String {
    format!("{name}/division")
}

impl Checkpoints {
    /// Creates the rows for this division of the work, and removes all others. State that only one process
    /// uses has no divisions.
    pub async fn divide(&self, store: &dyn EventStore, shares: &[Share]) -> Result<(), CheckpointError> {
        if self.database.is_none() {
            return Ok(());
        }
        let first = self.first(store).await?;
        for _ in 1..TRIES {
            match self.try_divide(store, shares, &first).await {
                Ok(true) => return Ok(()),
                // Another process has moved a checkpoint, or divides the work too, and the database has
                // rolled one back.
                Ok(false) | Err(CheckpointError::Failed(Error::Unavailable(_))) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        match self.try_divide(store, shares, &first).await? {
            true => Ok(()),
            false => {
                let problem = format!(
                    "the work of `{}` is handled and divided by others all the time",
                    self.subscriber
                );
                Err(Error::Unavailable(problem.into()).into())
            }
        }
    }

    /// Divides the work. Returns `false` if a checkpoint has moved meanwhile.
    async fn try_divide(
        &self,
        store: &dyn EventStore,
        shares: &[Share],
        first: &Stored,
    ) -> Result<bool, CheckpointError> {
        let mut wanted: Vec<String> = match shares {
            [] => vec![self.subscriber.clone()],
            shares => shares.iter().map(|share| self.of_share(*share).subscriber).collect(),
        };
        wanted.sort();
        let all = self.store.parts(&self.subscriber).await?;
        let row = row_of(&self.subscriber);
        let mut rows = Vec::with_capacity(all.len());
        for (name, checkpoint) in all.iter().filter(|(name, _)| *name != row) {
            rows.push((name.clone(), Stored::of(name, checkpoint)?));
        }
        if rows.iter().map(|(name, _)| name).eq(&wanted) {
            return Ok(true);
        }
        // Some shares may have stepped back after a loss, and others not yet: from here on all are of one
        // history.
        let mut found = Vec::with_capacity(rows.len());
        for (name, stored) in rows {
            let (stored, _) = self.in_common(stored, store).await?;
            found.push((name, stored));
        }
        let slowest = found.iter().map(|(_, stored)| stored).min_by_key(|stored| stored.position);
        let begin = slowest.unwrap_or(first).clone();
        let finished = match all.iter().find(|(name, _)| *name == row) {
            // Without rows of shares, the record belongs to rows that were removed by hand.
            Some((_, noted)) if !found.is_empty() => Finished::of(&self.subscriber, noted)?,
            _ => Finished::default(),
        };
        let finished = finished.with(self.division_of(&found, begin.position), begin.position);
        let mut instead: Vec<_> = wanted.into_iter().map(|name| (name, begin.checkpoint())).collect();
        if !finished.0.is_empty() {
            let (position, ladder) = (finished.furthest(), Some(finished.to_bytes()));
            instead.push((row, Checkpoint { position, event: None, ladder }));
        }
        let is_divided = self.store.replace_parts(&self.subscriber, &all, &instead).await?;
        if is_divided && !found.is_empty() {
            let (subscriber, position) = (&self.subscriber, begin.position);
            tracing::info!(subscriber, %position, "the streams are divided into new partitions from this position on");
        }
        Ok(is_divided)
    }

    /// The division that these rows form. A share whose row is missing is at the position of the slowest.
    fn division_of(&self, found: &[(String, Stored)], slowest: Position) -> Option<Division> {
        let furthest = found.iter().map(|(_, stored)| stored).max_by_key(|stored| stored.position)?;
        let share_of = |name: &str| match name.strip_prefix(&self.subscriber)? {
            "" => Some((0, 1)),
            share => {
                let (number, of) = share.strip_prefix('/')?.split_once(" of ")?;
                Some((number.parse::<usize>().ok()?.checked_sub(1)?, of.parse::<usize>().ok()?))
            }
        };
        let (_, of) = share_of(&found.first()?.0)?;
        let mut positions = vec![slowest; of];
        for (name, stored) in found {
            let (index, others) = share_of(name)?;
            if others != of {
                return None;
            }
            *positions.get_mut(index)? = stored.position;
        }
        Some(Division { positions, ladder: furthest.ladder.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_is_read_as_it_was_written() {
        let division = |positions: &[u64]| Division {
            positions: positions.iter().copied().map(Position::new).collect(),
            ladder: Ladder::default(),
        };
        let finished = Finished(vec![division(&[1, 2, 3]), division(&[7])]);
        let bytes = finished.to_bytes();
        assert_eq!(Finished::from_bytes(&bytes), Some(finished.clone()));
        for cut in [1, 8, bytes.len() - 1] {
            assert_eq!(Finished::from_bytes(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(Finished::from_bytes(&[0xff; 8]), None, "more than there are bytes");
        assert!(finished.has("a-1", Position::new(7)) && !finished.has("a-1", Position::new(8)));
        assert_eq!(finished.with(None, Position::new(3)), Finished(vec![division(&[7])]));
    }
}
