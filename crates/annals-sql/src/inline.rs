//! Inline projections: rows that are written in the transaction of the append that they are made of.
//!
//! ```text
//! BEGIN · the rows of the group · for each inline projection: its rows and its checkpoint · COMMIT
//! ```
//!
//! - I1  The rows that a group makes are committed with it or not at all.
//! - I2  An append of which a projection refuses an event is refused and writes nothing. The others of its
//!       group are written: the group is undone and divided (`committer`, K1).
//! - I3  A projection that cannot follow for another reason (its rows are far behind, an older event fails)
//!       is left out; its own task catches up. That holds up no append.
//!
//! Without an inline projection none of this runs. Next above: `committer`.

use std::sync::Arc;

use annals_core::{Clock, Invalid};
use annals_state::{Group, InlineProjection, NotTaken};

use crate::writer::Writer;
use crate::{Batch, Database, Failure, Staged, Tail};

/// Why a group was undone.
pub(crate) enum Undone {
    Failed(Failure),
    /// An append is refused by a projection, and with it the group.
    Refused(Invalid),
}

impl Undone {
    /// Whether the reason may be one append of the group.
    pub(crate) fn may_be_of_one(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.may_be_of_one(),
            Self::Refused(_) => true,
        }
    }
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Carries out a group with the rows of these projections.
pub(crate) async fn write<'a>(
    writer: &mut Writer<impl Database>,
    clock: &dyn Clock,
    batch: &Batch<'a>,
    inlines: &[Arc<dyn InlineProjection>],
) -> Result<(Staged<'a>, Tail), Undone> {
    let (staged, tail) = begin(writer, clock, batch).await?;
    if staged.events.is_empty() {
        writer.undo().await;
        return Ok((staged, tail));
    }
    let group = Group { behind: tail.position, events: staged.recorded_behind(&tail).into() };
    let mut took = Vec::new();
    for inline in inlines {
        let mut session = writer.session().ok_or_else(|| Failure::unavailable("no transaction is open"))?;
        let taken = inline.take(&mut *session, &group).await;
        drop(session);
        match taken {
            Ok(taken) => {
                writer.session_done();
                took.extend(taken.then_some(inline));
            }
            Err(NotTaken::Refused { event, mut problem }) => {
                writer.session_done();
                writer.undo().await;
                let place = event + 1 - staged.events[event].append as usize;
                problem.field = format!("events[{place}]");
                return Err(Undone::Refused(problem));
            }
            // What is under way on the connection is not known.
            Err(NotTaken::Unavailable(cause)) => {
                writer.close();
                return Err(Undone::Failed(Failure::unavailable(cause)));
            }
        }
    }
    writer.finish(&staged, &tail).await?;
    if let Some(newest) = staged.newest(&tail) {
        took.into_iter().for_each(|inline| inline.committed(newest));
    }
    Ok((staged, tail))
}

async fn begin<'a>(
    writer: &mut Writer<impl Database>,
    clock: &dyn Clock,
    batch: &Batch<'a>,
) -> Result<(Staged<'a>, Tail), Failure> {
    if let Some(staged) = Staged::assuming(batch, clock.now())
        && let Some(tail) = writer.begin(&staged).await?
    {
        return Ok((staged, tail));
    }
    writer.begin_locked(clock, batch).await
}
