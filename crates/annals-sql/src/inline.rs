//! Inline projections: rows that are written in the transaction of the append that they are made of.
//!
//! ```text
//! BEGIN · the rows of the group · for each inline projection: its rows and its checkpoint · COMMIT
//! ```
//!
//! - I1  The rows that a group makes are committed with it or not at all.
//! - I2  An append of which a projection refuses an event is refused and writes nothing. The others of its group are
//!       carried out: the group is undone, and each of its appends carried out by itself.
//! - I3  A projection that cannot follow for another reason (its rows are far behind, an older event fails) is left out;
//!       its own task catches up. That holds up no append.
//!
//! Without an inline projection none of this runs. Next above: `committer`.

use std::sync::{Arc, PoisonError, RwLock};

use annals_core::{Append, Cause, Clock, Invalid, Position, RecordedEvent};
use async_trait::async_trait;

use crate::{Asked, Database, Facts, Failure, Session, Staged, Tail};

/// A projection that takes events in the transaction of their append.
#[async_trait]
pub trait Inline: Send + Sync + 'static {
    /// Takes the events of a group, in its transaction; says whether it did.
    async fn take(&self, session: &mut (dyn Session + '_), group: &Group) -> Result<bool, NotTaken>;

    /// What it took is committed: its rows show the log up to here.
    fn committed(&self, head: Position);
}

/// What a group has written, which is not committed yet.
#[derive(Clone, Debug)]
pub struct Group {
    /// Position of the last event in front of it.
    pub behind: Position,
    /// Its events, in order.
    pub events: Arc<[RecordedEvent]>,
}

/// Why a projection has not taken a group.
#[derive(Debug)]
pub enum NotTaken {
    /// It refuses an event: this one of the group.
    Refused {
        /// The event's place in the group, from 0 on.
        event: usize,
        /// What to tell whoever appended it.
        problem: Invalid,
    },
    /// The database does not answer as it should.
    Unavailable(Cause),
}

/// The inline projections of one store in this process. A clone is the same.
#[derive(Clone, Default)]
pub struct Inlines(Arc<RwLock<Vec<Arc<dyn Inline>>>>);

/// An inline projection takes events as long as this is there.
#[must_use = "it takes events as long as this is there"]
pub struct Registered {
    inlines: Inlines,
    inline: Arc<dyn Inline>,
}

impl Inlines {
    /// From now on it takes every event that this process appends.
    pub fn register(&self, inline: Arc<dyn Inline>) -> Registered {
        // What is under the lock is whole whoever panicked.
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(inline.clone());
        Registered { inlines: self.clone(), inline }
    }

    pub(crate) fn all(&self) -> Vec<Arc<dyn Inline>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut inlines = self.inlines.0.write().unwrap_or_else(PoisonError::into_inner);
        inlines.retain(|inline| !Arc::ptr_eq(inline, &self.inline));
    }
}

/// A database in which a group can be written without being committed at once.
#[async_trait]
pub trait Transactional: Database {
    /// Begins a transaction, checks under the lock of the log what the group assumes, and writes it. Nothing if what it
    /// assumes is not so; then nothing was written, and no transaction is open.
    async fn begin(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure>;

    /// Writes what was staged on the facts that were read under the lock, which is held, if it is anything.
    async fn stage(&mut self, staged: &Staged<'_>) -> Result<Tail, Failure>;

    /// The transaction that is open.
    fn session(&mut self) -> Option<Box<dyn Session + '_>>;

    /// Commits what is open.
    async fn finish(&mut self, staged: &Staged<'_>, tail: &Tail) -> Result<(), Failure>;

    /// Takes back what is open.
    async fn undo(&mut self);
}

/// Why a group was undone.
pub(crate) enum Undone {
    Failed(Failure),
    /// An append is refused by a projection, and with it the group.
    Refused(Invalid),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Carries out a group with the rows of these projections.
pub(crate) async fn write<'a>(
    database: &mut impl Transactional,
    clock: &dyn Clock,
    appends: &[&'a Append],
    inlines: &[Arc<dyn Inline>],
) -> Result<(Staged<'a>, Tail), Undone> {
    let (staged, tail) = stage(database, clock, appends).await?;
    if staged.events.is_empty() {
        database.undo().await;
        return Ok((staged, tail));
    }
    let group = Group { behind: tail.position, events: staged.recorded_behind(&tail).into() };
    let mut took = Vec::new();
    for inline in inlines {
        let mut session = database.session().ok_or_else(|| Failure::unavailable("no transaction is open"))?;
        let taken = inline.take(&mut *session, &group).await;
        drop(session);
        match taken {
            Ok(true) => took.push(inline),
            Ok(false) => {}
            Err(not_taken) => {
                database.undo().await;
                return Err(match not_taken {
                    NotTaken::Refused { event, mut problem } => {
                        let place = event + 1 - staged.events[event].append as usize;
                        problem.field = format!("events[{place}]");
                        Undone::Refused(problem)
                    }
                    NotTaken::Unavailable(cause) => Undone::Failed(Failure::unavailable(cause)),
                });
            }
        }
    }
    database.finish(&staged, &tail).await?;
    let head = tail.position.plus(staged.events.len() as u64);
    for inline in took {
        inline.committed(head);
    }
    Ok((staged, tail))
}

async fn stage<'a>(
    database: &mut impl Transactional,
    clock: &dyn Clock,
    appends: &[&'a Append],
) -> Result<(Staged<'a>, Tail), Failure> {
    if let Some(assumed) = Facts::assumed(appends.iter().copied()) {
        let staged = Staged::judge(assumed, appends, clock.now());
        if staged.is_written_whole()
            && let Some(tail) = database.begin(&staged).await?
        {
            return Ok((staged, tail));
        }
    }
    let facts = database.lock(&Asked::of(appends.to_vec())).await?;
    let staged = Staged::judge(facts, appends, clock.now());
    let tail = match staged.nothing() {
        Some(tail) => tail,
        None => database.stage(&staged).await?,
    };
    Ok((staged, tail))
}
