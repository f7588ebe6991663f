//! The checkpoint of a subscriber in `annals_state`, and the event in the log at which it resumes.
//!
//! - C1  A checkpoint names its event and contains a ladder of older ones (`history`). If the log lost
//!       events, the subscriber steps back to the newest event in common, and its status reports that.
//! - C2  A row that cannot be read stops only its own subscriber, and is not changed.
//!
//! `division` handles several rows of one subscriber, and changes of the number of shares.

use std::sync::Arc;

use annals_consume::Ladder;
use annals_core::{Error, EventStore, Position, Result, Seen, Witness};
use annals_state::{Advanced, Checkpoint, HeldLease, Lease, SqlState, StateError, StateStore};

use super::division::Finished;
use super::group::Share;
use crate::state::Opened;

/// The checkpoint of one subscriber, or of one share of a group.
#[derive(Clone)]
pub(super) struct Checkpoints {
    pub(super) store: Arc<dyn StateStore>,
    /// The shared database, if the state is in one.
    pub(super) database: Option<SqlState>,
    pub(super) subscriber: String,
    /// Whether a subscriber without a checkpoint begins at the end of the log.
    pub(super) from_now: bool,
    /// Whether `division` creates the row.
    is_share: bool,
    /// The lease under which it is written.
    lease: Option<Lease>,
}

/// A stored checkpoint: everything up to the position is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub position: Position,
    /// Ends at the position. Empty at the beginning of the log, and if the event there was not stored.
    pub ladder: Ladder,
    /// Whether the row has a ladder, and not only the event at the position.
    whole: bool,
}

/// The checkpoint at which a subscriber resumes.
pub(super) struct Resumed {
    pub at: Witness,
    pub ladder: Ladder,
    /// The events after it that other divisions of the work had finished.
    pub finished: Finished,
    /// A notice for the operator, if the subscriber had to step back.
    pub notice: Option<String>,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    #[error(
        "the checkpoint of `{subscriber}` {problem}: correct its row in `checkpoints`, or remove it, \
         and the subscriber starts as for the first time"
    )]
    Unreadable { subscriber: String, problem: String },
    #[error(
        "the checkpoint of `{0}` is gone: another process divides the group into another number of partitions; \
         start all of them with the same number"
    )]
    Gone(String),
    #[error("{0}")]
    LeaseLost(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<StateError> for CheckpointError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Unreadable { name, problem } => Self::Unreadable { subscriber: name, problem },
            StateError::LeaseLost(_) => Self::LeaseLost(error.to_string()),
            StateError::Failed(error) => Self::Failed(error),
        }
    }
}

impl Checkpoints {
    pub fn new(state: &Opened, subscriber: &str, from_now: bool) -> Self {
        Self {
            store: state.store.clone(),
            database: state.database().cloned(),
            subscriber: subscriber.to_owned(),
            from_now,
            is_share: false,
            lease: None,
        }
    }

    /// The same checkpoint, written under this lease.
    pub fn under(&self, lease: Option<&Lease>) -> Self {
        Self { lease: lease.cloned(), ..self.clone() }
    }

    /// The checkpoint of one share of a group.
    pub fn of_share(&self, share: Share) -> Self {
        // No subscriber has `/` in its name.
        Self { subscriber: format!("{}/{share}", self.subscriber), is_share: true, ..self.clone() }
    }

    /// The position at which the subscriber will resume. Creates the checkpoint at the very first start.
    pub async fn begin(&self, store: &dyn EventStore) -> Result<Position, CheckpointError> {
        let found = self.stored(store).await?;
        let (position, was_whole) = (found.position, found.whole);
        let (stored, is_back) = self.in_common(found, store).await?;
        if !is_back && !was_whole {
            self.put(Some(position), &stored).await?;
        }
        Ok(stored.position)
    }

    /// Reads the checkpoint, which is created at the very first start.
    async fn stored(&self, store: &dyn EventStore) -> Result<Stored, CheckpointError> {
        if let Some(stored) = self.read().await? {
            return Ok(stored);
        }
        if self.is_share {
            return Err(CheckpointError::Gone(self.subscriber.clone()));
        }
        let first = self.first(store).await?;
        self.put(None, &first).await?;
        // Another process may have created it first: then that one is used.
        Ok(self.read().await?.unwrap_or(first))
    }

    /// The newest checkpoint whose event the log has: the stored one, or an earlier one that must replace it,
    /// with `true`.
    pub(super) async fn in_common(&self, found: Stored, store: &dyn EventStore) -> Result<(Stored, bool)> {
        let witness = match found.ladder.newest() {
            // A checkpoint without an event is accepted if the log extends to its position.
            None => Witness::at(store, found.position).await?,
            witness => witness,
        };
        if let Some(at) = witness
            && at.holds(store).await?
        {
            return match found.whole {
                true => Ok((found, false)),
                false => Ok((Stored::at(store, Some(at)).await?, false)),
            };
        }
        let back = match found.ladder.last_in_common(store).await? {
            Some(common) => {
                let mut ladder = found.ladder;
                ladder.step_back(common);
                Stored { position: common.position, ladder, whole: found.whole }
            }
            // No event is in common, not even the oldest: nothing of this history was handled, even if the
            // subscriber began at its end.
            None => Stored::at(store, None).await?,
        };
        Ok((back, true))
    }

    /// The first checkpoint of a subscriber.
    pub async fn first(&self, store: &dyn EventStore) -> Result<Stored> {
        match self.from_now {
            true => Ok(Stored::through(Ladder::from_now(store).await?)),
            false => Stored::at(store, None).await,
        }
    }

    /// Resumes at the checkpoint, or, if the log lost the event there, at the newest event in common, to
    /// which the checkpoint is moved. Only for the process that handles the events.
    pub async fn resume(&self, store: &dyn EventStore) -> Result<Resumed, CheckpointError> {
        let found = self.stored(store).await?;
        let (position, was_whole) = (found.position, found.whole);
        let mut finished = Finished::read(self).await?;
        finished.step_back(store).await?;
        let (stored, is_back) = self.in_common(found, store).await?;
        let mut notice = None;
        if is_back {
            let text = format!(
                "the log lost the event at position {position}, up to which this had handled everything (a backup was \
                 restored, or a standby was promoted that did not have it): it stepped back to {}, the newest event in \
                 common that it knows",
                stored.position
            );
            tracing::warn!(subscriber = self.subscriber, text, "the log has another history");
            notice = Some(text);
        }
        if is_back || !was_whole {
            self.put(Some(position), &stored).await?;
        }
        let at = stored.ladder.newest().unwrap_or(Witness::origin(store.id()));
        Ok(Resumed { at, ladder: stored.ladder, finished, notice })
    }

    /// The position stored now, with the event there if it is stored.
    pub async fn seen(&self) -> Result<Seen, CheckpointError> {
        let Some(stored) = self.read().await? else { return Ok(Position::ZERO.into()) };
        let newest = stored.ladder.newest().filter(|newest| newest.position == stored.position);
        Ok(newest.map_or(stored.position.into(), Seen::from))
    }

    /// Records that everything up to the end of this ladder is handled. Never moves a checkpoint back.
    pub async fn write(&self, ladder: &Ladder) -> Result<(), CheckpointError> {
        let Some(witness) = ladder.newest() else { return Ok(()) };
        let stored = Stored { position: witness.position, ladder: ladder.clone(), whole: true };
        match self.store.advance(&self.subscriber, &stored.checkpoint(), self.lease.as_ref()).await? {
            Advanced::Missing => Err(CheckpointError::Gone(self.subscriber.clone())),
            Advanced::Moved | Advanced::Behind => Ok(()),
        }
    }

    /// The name of the lease that is needed to handle events.
    pub fn lease(&self) -> String {
        format!("subscriber {}", self.subscriber)
    }

    /// Acquires the lease of this subscriber, and waits until it is free. Returns `None` at once if the state
    /// is not in a database.
    pub async fn hold(&self) -> Option<HeldLease> {
        match &self.database {
            None => None,
            Some(database) => Some(database.leases().hold(self.lease()).await),
        }
    }

    /// Why this process does not have the lease.
    pub async fn waits_for(&self) -> Option<String> {
        match &self.database {
            None => None,
            Some(database) => Some(database.leases().waits_for(self.lease()).await),
        }
    }

    /// Creates a checkpoint, or replaces the one at the position `instead`. If another process has moved it
    /// meanwhile, it is left unchanged.
    async fn put(&self, instead: Option<Position>, stored: &Stored) -> Result<(), CheckpointError> {
        let (checkpoint, lease) = (stored.checkpoint(), self.lease.as_ref());
        match instead {
            None => self.store.create(&self.subscriber, &checkpoint, lease).await?,
            Some(position) => self.store.replace(&self.subscriber, position, &checkpoint, lease).await?,
        };
        Ok(())
    }

    pub(super) async fn read(&self) -> Result<Option<Stored>, CheckpointError> {
        let found = self.store.checkpoint(&self.subscriber).await?;
        found.map(|found| Stored::of(&self.subscriber, &found)).transpose()
    }
}

impl Stored {
    /// A checkpoint at this event of the log, or at its beginning.
    async fn at(store: &dyn EventStore, witness: Option<Witness>) -> Result<Self> {
        let ladder = match witness {
            Some(witness) => Ladder::below(store, witness).await?,
            None => Ladder::default(),
        };
        Ok(Self::through(ladder))
    }

    /// A checkpoint at the end of this ladder.
    fn through(ladder: Ladder) -> Self {
        let position = ladder.newest().map_or(Position::ZERO, |witness| witness.position);
        Self { position, ladder, whole: true }
    }

    /// Decodes the row with this name.
    pub fn of(subscriber: &str, found: &Checkpoint) -> Result<Self, CheckpointError> {
        let position = found.position;
        let event = found.event.map(|id| Witness { position, id });
        let ladder = match &found.ladder {
            None => None,
            Some(bytes) => Some(Ladder::from_bytes(bytes).ok_or_else(|| CheckpointError::Unreadable {
                subscriber: subscriber.to_owned(),
                problem: "has an invalid ladder".to_owned(),
            })?),
        };
        // A version of Annals without ladders may have moved it since.
        match ladder.filter(|ladder| ladder.newest() == event) {
            Some(ladder) => Ok(Self { position, ladder, whole: true }),
            None => {
                let mut ladder = Ladder::default();
                if let Some(event) = event {
                    ladder.push(event);
                }
                Ok(Self { position, ladder, whole: false })
            }
        }
    }

    /// Encodes it as a row.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            position: self.position,
            event: self.ladder.newest().map(|witness| witness.id),
            ladder: Some(self.ladder.to_bytes()),
        }
    }
}
