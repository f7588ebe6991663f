//! How the work of a subscriber is divided into rows of `checkpoints`, and what becomes of what is finished when it is
//! divided otherwise.
//!
//! ```text
//! mail/1 of 4 at 300 · mail/2 of 4 at 120 · mail/3 of 4 at 300 · mail/4 of 4 at 300        stopped
//! mail/1 of 2 at 120 · mail/2 of 2 at 120 · mail/division: of 4, at 300, 120, 300, 300     started with two shares
//! ```
//!
//! - V1  All rows of a division are made in one transaction, under the lock of the row `NAME/division`, so processes that
//!       start at once make one division.
//! - V2  New shares begin where the slowest old one was. What an old share had finished beyond that is noted, and not
//!       delivered again.
//! - V3  What is noted names its event as a checkpoint does: after a loss of events only what is in common is finished. That is
//!       looked at when work is divided, and again whenever something is about to be passed over, because a share that is
//!       behind what was lost does not notice the loss by what it reads.
//!
//! The row `NAME/division` is there only while something is noted.

use std::time::Duration;

use annals_consume::Ladder;
use annals_core::{EventStore, Position, Result, StreamId, Witness};
use annals_sql::{Fault, Value};

use super::checkpoint::{CheckpointError, Checkpoints, Kept, Stored, insert};
use super::group::Share;
use crate::sql::{Params, SqlError};
use crate::state::{StateDatabase, Transaction};

/// A transaction that meets those of others is tried again this often.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What shares of other divisions had finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finished(Vec<Division>);

/// Up to where each share of a division had finished.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Division {
    positions: Vec<Position>,
    /// That of the share that was furthest.
    ladder: Ladder,
}

impl Finished {
    /// Whether this event was finished.
    pub fn has(&self, stream: &StreamId, position: Position) -> bool {
        self.0.iter().any(|division| {
            let share = Share::index_of(stream, division.positions.len());
            division.positions.get(share).is_some_and(|finished| *finished >= position)
        })
    }

    /// What is noted for this subscriber.
    pub async fn read(checkpoints: &Checkpoints) -> Result<Self, CheckpointError> {
        let Kept::Database(database) = &checkpoints.kept else { return Ok(Self::default()) };
        let name = checkpoints.subscriber.split('/').next().unwrap_or_default();
        let sql = "SELECT ladder FROM {state}.checkpoints WHERE subscriber = ?1";
        let answer = database.read(sql, &[Value::Text(row_of(name))]).await.map_err(SqlError::from)?;
        answer.rows.first().map_or(Ok(Self::default()), |row| Self::of(name, &row[0]))
    }

    /// Forgets what the log does not have any more.
    pub async fn step_back(&mut self, store: &dyn EventStore) -> Result<()> {
        for division in &mut self.0 {
            let newest = division.ladder.newest();
            if let Some(newest) = newest
                && newest.holds(store).await?
            {
                continue;
            }
            // What has no witness may be of any history.
            let common = division.ladder.last_in_common(store).await?;
            let common = common.unwrap_or(Witness::origin(store.id()));
            division.ladder.step_back(common);
            for finished in &mut division.positions {
                *finished = common.position.min(*finished);
            }
        }
        Ok(())
    }

    fn of(name: &str, cell: &Value) -> Result<Self, CheckpointError> {
        let read = match cell {
            Value::Null => Some(Self::default()),
            Value::Blob(bytes) => Self::from_bytes(bytes),
            _ => None,
        };
        read.ok_or_else(|| CheckpointError::Unreadable {
            subscriber: row_of(name),
            problem: "does not say what is finished".to_owned(),
        })
    }

    /// For each division its number of shares, their positions, the bytes of the ladder and the ladder.
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

    /// Adds a division, and forgets what is below this position.
    fn with(mut self, division: Option<Division>, everything_up_to: Position) -> Self {
        self.0.extend(division);
        self.0.retain(|division| division.positions.iter().any(|finished| *finished > everything_up_to));
        self
    }

    fn furthest(&self) -> Position {
        self.0.iter().flat_map(|division| &division.positions).max().copied().unwrap_or_default()
    }
}

/// The row that is locked to divide the work, and says what is finished.
fn row_of(name: &str) -> String {
    format!("{name}/division")
}

impl Checkpoints {
    /// Has rows for this division of the work and no others. Files know no division.
    pub async fn divide(&self, store: &dyn EventStore, shares: &[Share]) -> Result<(), CheckpointError> {
        let Kept::Database(database) = &self.kept else { return Ok(()) };
        let first = self.first(store).await?;
        for attempt in 1.. {
            match self.try_divide(store, database, shares, &first).await {
                // Others divide it too, and the database has undone one of us.
                Err(NotDivided::Fault(Fault::Unavailable(_))) if attempt < TRIES => {}
                Err(NotDivided::Fault(fault)) => return Err(SqlError::from(fault).into()),
                Err(NotDivided::Other(error)) => return Err(error),
                Ok(()) => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn try_divide(
        &self,
        store: &dyn EventStore,
        database: &StateDatabase,
        shares: &[Share],
        first: &Stored,
    ) -> Result<(), NotDivided> {
        let mut wanted: Vec<String> = match shares {
            [] => vec![self.subscriber.clone()],
            shares => shares.iter().map(|share| self.of_share(*share).subscriber).collect(),
        };
        wanted.sort();
        let mut transaction = database.begin().await?;
        let lock = Stored::of(&self.subscriber, &[Value::Integer(0)])?.values(&row_of(&self.subscriber))?;
        transaction.run(&insert(database), &lock).await?;
        let sql = "SELECT ladder FROM {state}.checkpoints WHERE subscriber = ?1 FOR UPDATE";
        let noted = transaction.run(sql, &[Value::Text(row_of(&self.subscriber))]).await?;
        let found = self.rows(&mut transaction).await?;
        if found.iter().map(|(name, _)| name).eq(&wanted) {
            transaction.rollback().await;
            return Ok(());
        }
        // Some may have stepped back after a loss, and others not yet: from here on all are of one history.
        let mut in_common = Vec::with_capacity(found.len());
        for (name, stored) in found {
            let (stored, _) = self.in_common(stored, store).await.map_err(CheckpointError::from)?;
            in_common.push((name, stored));
        }
        let found = in_common;
        let slowest = found.iter().map(|(_, stored)| stored).min_by_key(|stored| stored.position);
        let begin = slowest.unwrap_or(first).clone();
        let finished = match noted.rows.first() {
            // Without rows of shares it is of those that were removed by hand.
            Some(row) if !found.is_empty() => Finished::of(&self.subscriber, &row[0])?,
            _ => Finished::default(),
        };
        let finished = finished.with(self.division_of(&found, begin.position), begin.position);
        if !found.is_empty() {
            let (subscriber, position) = (&self.subscriber, begin.position);
            tracing::info!(subscriber, %position, "the work is divided otherwise from here on");
        }
        let delete = format!("DELETE {OF_ALL}");
        transaction.run(&delete, &self.range()?).await?;
        for share in wanted {
            transaction.run(&insert(database), &begin.values(&share)?).await?;
        }
        if !finished.0.is_empty() {
            let values = (row_of(&self.subscriber), finished.furthest(), None::<i64>, finished.to_bytes());
            transaction.run(&insert(database), &values.values()?).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// All rows of the subscriber but the one that is locked, by name.
    async fn rows(&self, transaction: &mut Transaction) -> Result<Vec<(String, Stored)>, NotDivided> {
        let sql = format!("SELECT subscriber, position, event_id, ladder {OF_ALL} FOR UPDATE");
        let rows = transaction.run(&sql, &self.range()?).await?.rows;
        let mut found = Vec::new();
        for row in rows {
            let Some(name) = text_of(&row[0]).filter(|name| *name != row_of(&self.subscriber)) else {
                continue;
            };
            let stored = Stored::of(&name, &row[1..])?;
            found.push((name, stored));
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }

    /// The parameters of [`OF_ALL`].
    fn range(&self) -> Result<Vec<Value>, SqlError> {
        let name = &self.subscriber;
        // `0` is the sign behind `/`.
        (name.as_str(), format!("{name}/"), format!("{name}0")).values()
    }

    /// What these rows had finished. A share whose row is missing had finished what the slowest had.
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

const OF_ALL: &str =
    "FROM {state}.checkpoints WHERE subscriber = ?1 OR (subscriber > ?2 AND subscriber < ?3)";

enum NotDivided {
    Fault(Fault),
    Other(CheckpointError),
}

impl From<Fault> for NotDivided {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<CheckpointError> for NotDivided {
    fn from(error: CheckpointError) -> Self {
        Self::Other(error)
    }
}

impl From<SqlError> for NotDivided {
    fn from(error: SqlError) -> Self {
        Self::Other(error.into())
    }
}

/// A name in a column, which has bytes in MariaDB and MySQL.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(name) => Some(name.clone()),
        Value::Blob(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
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
        let stream = StreamId::new("a-1").unwrap();
        assert!(finished.has(&stream, Position::new(7)) && !finished.has(&stream, Position::new(8)));
        assert_eq!(finished.with(None, Position::new(3)), Finished(vec![division(&[7])]));
    }
}
