//! Where the rows of a projection lie: in a file, or in a schema of a database.

use std::sync::Arc;

use annals_core::{EventStore, Position, RecordedEvent, Result, Witness};
use annals_state::{Checked, Lease, SqlError};

use super::Projection;
use super::file::ViewFile;
use super::run::{self, Batching, NotApplied};
use super::schema::{self, ViewSchema};
use super::serving::Serving;
use crate::shared::Shared;
use crate::state::Views;

/// Where the rows of a projection lie, with those of the version before as long as they answer.
pub(super) enum Home {
    File(ViewFile),
    Schema(ViewSchema),
}

impl Home {
    /// Opens the rows of this version, or begins them.
    pub async fn open<P: Projection>(shared: &Shared) -> Result<Self> {
        match &shared.state.views {
            Views::Sqlite(views) => ViewFile::open::<P>(&*shared.store, views.clone()).await.map(Self::File),
            Views::Database(database, _) => {
                ViewSchema::open::<P>(&*shared.store, database).await.map(Self::Schema)
            }
        }
    }

    /// Everything up to here was in the rows when they were opened.
    pub fn checkpoint(&self) -> Position {
        match self {
            Self::File(file) => file.checkpoint(),
            Self::Schema(schema) => schema.checkpoint(),
        }
    }

    /// What answers queries: the version before, as long as there is one.
    pub fn serving(&self) -> Serving {
        match self {
            Self::File(file) => file.serving(),
            Self::Schema(schema) => schema.serving(),
        }
    }

    /// Makes sure that the rows are there, and are of this log and this schema. Makes them again if they are not.
    pub async fn check(&mut self, store: &dyn EventStore) -> Result<Checked> {
        match self {
            Self::File(file) => file.check(store).await,
            Self::Schema(schema) => schema.check(store).await,
        }
    }

    /// Where the checkpoint with the rows is, and the event there.
    pub async fn at(&self) -> Result<(Position, Option<Witness>), SqlError> {
        match self {
            Self::File(file) => file.at().await,
            Self::Schema(schema) => Ok(schema.place().checkpoint().await?),
        }
    }

    /// Says from time to time that this process uses the rows.
    pub async fn renew(&mut self) -> Result<(), SqlError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Schema(schema) => schema.renew().await,
        }
    }

    /// Says that this process does not use the rows any more.
    pub async fn let_go(&self) {
        match self {
            Self::File(_) => {}
            Self::Schema(schema) => schema.let_go().await,
        }
    }

    /// From here on the rows are filled under this lease.
    pub fn hold(&mut self, lease: &Lease) {
        match self {
            Self::File(_) => {}
            Self::Schema(schema) => schema.hold(lease),
        }
    }

    /// The rows have reached the end of the log: this version answers from now on, if an older one did so far.
    pub fn caught_up(&mut self) -> Option<Serving> {
        match self {
            Self::File(file) => file.caught_up(),
            Self::Schema(schema) => schema.caught_up(),
        }
    }

    /// Removes the rows of older versions, once nobody is sent to them any more.
    pub async fn remove_older(&mut self) {
        match self {
            Self::File(file) => file.remove_older().await,
            Self::Schema(schema) => schema.remove_older().await,
        }
    }

    /// Applies events in one transaction with the checkpoint before and after them.
    pub async fn apply<P: Projection>(
        &self,
        projection: Arc<P>,
        events: Arc<Vec<RecordedEvent>>,
        before: Position,
        at: Witness,
        batching: Batching,
    ) -> Result<(), NotApplied> {
        match self {
            Self::File(file) => run::apply(&file.database, projection, events, before, at, batching).await,
            Self::Schema(schema) => {
                let lease = schema.lease();
                schema::apply(schema.place(), projection, events, before, at, batching, lease).await
            }
        }
    }
}
