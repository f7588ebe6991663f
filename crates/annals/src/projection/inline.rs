//! A projection that is inline: `annals_sql::Inline`, in the transaction of an append.
//!
//! - X1  The rows are exactly behind the group: its events are taken, the checkpoint moves to its last one, all of it
//!       commits with the append.
//! - X2  They are a little behind: what is missing is taken first, in the same transaction. It is committed already, and the
//!       log is locked, so nothing comes in between.
//! - X3  They are far behind, or gone, or one of the missing events fails: the group is written without them, and the task of
//!       the projection catches up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_core::{Event, EventStore, Invalid, LogRead, Position, Query, RecordedEvent, Witness};
use annals_sql::{Group, Inline, NotTaken, Session};
use async_trait::async_trait;

use super::schema::{check_deferred, lock, set_checkpoint, take};
use super::{Projected, Projection};
use crate::Failure;
use crate::sql::SqlError;
use crate::state::{ViewPlace, position_of};

/// So many positions the rows may be behind and be caught up in the transaction of an append.
const BEHIND_MAX: u64 = 1_000;

pub(super) struct InlineProjection<P> {
    pub projection: Arc<P>,
    pub place: ViewPlace,
    pub store: Arc<dyn EventStore>,
    pub projected: Arc<Projected>,
    pub query: Query,
    /// Where the checkpoint was the last time.
    pub known: AtomicU64,
}

/// Why the rows are left as they are.
enum Left {
    /// They cannot be gone on with just now.
    Behind,
    NotTaken(NotTaken),
}

impl<P: Projection> InlineProjection<P> {
    async fn go_on(&self, session: &mut (dyn Session + '_), group: &Group) -> Result<(), Left> {
        session.enter(self.place.schema()).await.map_err(|fault| Left::behind(&fault))?;
        // Without a lock, so as not to wait for whoever makes the rows.
        let far = |position: Position| group.behind.get().saturating_sub(position.get()) > BEHIND_MAX;
        if far(Position::new(self.known.load(Ordering::Relaxed))) && far(self.position(session).await?) {
            return Err(Left::Behind);
        }
        let found = lock(session, &self.place).await.map_err(|fault| Left::behind(&fault))?;
        self.known.store(found.get(), Ordering::Relaxed);
        if found > group.behind || far(found) {
            return Err(Left::Behind);
        }
        if found < group.behind {
            self.catch_up(session, found, group.behind).await.map_err(|failure| Left::behind(&failure))?;
            // Else a constraint that is deferred would refuse the group for what is older.
            check_deferred(session, &self.place).await.map_err(|fault| Left::behind(&fault))?;
        }
        let mut places = Vec::new();
        let mut events = Vec::new();
        for (place, event) in group.events.iter().enumerate() {
            if P::Event::TYPES.contains(&event.event_type.as_str()) {
                places.push(place);
                events.push(event.clone());
            }
        }
        let taken = take(session, &self.place, self.projection.clone(), events).await;
        taken.map_err(|not_taken| {
            let failure = not_taken.failed.failure;
            Left::NotTaken(match not_taken.lost {
                true => NotTaken::Unavailable(failure.to_string().into()),
                false => {
                    let event = places[not_taken.failed.index];
                    let kind = &group.events[event].event_type;
                    let problem = format!("({kind}) is refused by the projection `{}`: {failure}", P::NAME);
                    NotTaken::Refused { event, problem: Invalid::new("events", problem) }
                }
            })
        })?;
        if let Err(fault) = check_deferred(session, &self.place).await {
            let event = places.last().copied().unwrap_or_default();
            return Err(Left::NotTaken(match fault {
                annals_sql::Fault::Unavailable(cause) => NotTaken::Unavailable(cause),
                fault => {
                    let problem = format!("is refused by the projection `{}`: {fault}", P::NAME);
                    NotTaken::Refused { event, problem: Invalid::new("events", problem) }
                }
            }));
        }
        let last = group.events.last().ok_or(Left::Behind)?;
        let at = Witness::of(last);
        set_checkpoint(session, &self.place, at).await.map_err(|error| Left::behind(&error))?;
        self.known.store(at.position.get(), Ordering::Relaxed);
        Ok(())
    }

    /// Where the checkpoint is, which somebody may be moving.
    async fn position(&self, session: &mut (dyn Session + '_)) -> Result<Position, Left> {
        let (dialect, sql) = (self.place.database().dialect(), "SELECT position FROM annals_checkpoint");
        let answer = crate::sql::carry_out(session, dialect, self.place.schema(), sql, &[]).await;
        let answer = answer.map_err(|fault| Left::behind(&fault))?;
        Ok(answer.rows.first().map_or(Position::ZERO, |row| position_of(row).0))
    }

    /// Takes the events behind a position, up to another.
    async fn catch_up(
        &self,
        session: &mut (dyn Session + '_),
        behind: Position,
        through: Position,
    ) -> Result<(), Failure> {
        let mut read = LogRead::forward(behind.next()).matching(self.query.clone());
        while read.from <= through {
            let page = self.store.read_log(read.clone()).await?;
            let missing = |event: &RecordedEvent| event.position <= through;
            let events: Vec<_> = page.events.into_iter().filter(missing).collect();
            let taken = take(session, &self.place, self.projection.clone(), events).await;
            taken.map_err(|not_taken| not_taken.failed.failure)?;
            if page.next <= read.from {
                return Err(Failure::new("a replica does not show yet what is missing"));
            }
            read.from = page.next;
        }
        Ok(())
    }
}

impl Left {
    fn behind(reason: &dyn std::fmt::Display) -> Self {
        tracing::debug!(%reason, "rows are not written with an append; they are filled later");
        Self::Behind
    }
}

#[async_trait]
impl<P: Projection> Inline for InlineProjection<P> {
    async fn take(&self, session: &mut (dyn Session + '_), group: &Group) -> Result<bool, NotTaken> {
        let lost = |fault: annals_sql::Fault| NotTaken::Unavailable(Box::new(SqlError::from(fault)));
        session.script("SAVEPOINT annals_inline").await.map_err(lost)?;
        match self.go_on(session, group).await {
            Ok(()) => Ok(true),
            Err(Left::NotTaken(not_taken)) => Err(not_taken),
            Err(Left::Behind) => {
                session.script("ROLLBACK TO SAVEPOINT annals_inline").await.map_err(lost)?;
                Ok(false)
            }
        }
    }

    fn committed(&self, head: Position) {
        self.projected.progress.reached(head);
    }
}
