//! The rows of a projection: in a file, or in a schema of a database.

use std::sync::Arc;

use annals_core::{EventStore, Position, Result, Witness};
use annals_state::{Checked, Lease, SqlError, blocking};

use super::Projection;
use super::decoded::Decoded;
use super::file::ViewFile;
use super::run::{self, Batching, NotApplied};
use super::schema::{self, ViewSchema};
use super::serving::Serving;
use crate::shared::Shared;
use crate::state::Views;

/// The rows of a projection, and those of the previous version as long as they serve queries.
pub(super) enum Home {
    File(ViewFile),
    Schema(ViewSchema),
}

impl Home {
    /// Opens or creates the rows of this version.
    pub async fn open<P: Projection>(shared: &Shared) -> Result<Self> {
        match &shared.state.views {
            Views::Sqlite(views) => ViewFile::open::<P>(&*shared.store, views.clone()).await.map(Self::File),
            Views::Database(database, _) => {
                ViewSchema::open::<P>(&*shared.store, database).await.map(Self::Schema)
            }
        }
    }

    /// The checkpoint of the rows when they were opened.
    pub fn checkpoint(&self) -> Position {
        match self {
            Self::File(file) => file.checkpoint(),
            Self::Schema(schema) => schema.checkpoint(),
        }
    }

    /// The database that serves queries: that of the previous version, as long as there is one.
    pub fn serving(&self) -> Serving {
        match self {
            Self::File(file) => file.serving(),
            Self::Schema(schema) => schema.serving(),
        }
    }

    /// Ensures that the rows exist and are of this log and this schema. Rebuilds them otherwise.
    pub async fn check(&mut self, store: &dyn EventStore) -> Result<Checked> {
        match self {
            Self::File(file) => file.check(store).await,
            Self::Schema(schema) => schema.check(store).await,
        }
    }

    /// The checkpoint stored with the rows, and the event there.
    pub async fn at(&self) -> Result<(Position, Option<Witness>), SqlError> {
        match self {
            Self::File(file) => file.at().await,
            Self::Schema(schema) => Ok(schema.place().checkpoint().await?),
        }
    }

    /// Records from time to time that this process uses the rows.
    pub async fn renew(&mut self) -> Result<(), SqlError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Schema(schema) => schema.renew().await,
        }
    }

    /// Removes the record that this process uses the rows.
    pub async fn release(&self) {
        match self {
            Self::File(_) => {}
            Self::Schema(schema) => schema.release().await,
        }
    }

    /// Sets the lease under which the rows are filled from now on.
    pub fn hold(&mut self, lease: &Lease) {
        match self {
            Self::File(_) => {}
            Self::Schema(schema) => schema.hold(lease),
        }
    }

    /// Called when the rows have reached the end of the log. Returns the database for queries if it may have
    /// changed, and then older rows can be removed.
    pub fn caught_up(&mut self) -> Option<Serving> {
        match self {
            Self::File(file) => file.caught_up(),
            Self::Schema(schema) => schema.caught_up(),
        }
    }

    /// Removes the rows of older versions. Call it after queries have stopped using them.
    pub async fn remove_older(&mut self) {
        match self {
            Self::File(file) => file.remove_older().await,
            Self::Schema(schema) => schema.remove_older().await,
        }
    }

    /// Applies events in one transaction with the checkpoint before and after them. To a file they are
    /// applied on the thread of the caller, which must be one for blocking work; the checkpoint alone is
    /// written from any.
    pub async fn apply<P: Projection>(
        &self,
        projection: Arc<P>,
        events: Arc<Vec<Decoded<P::Event>>>,
        before: Position,
        at: Witness,
        batching: Batching,
    ) -> Result<(), NotApplied> {
        match self {
            Self::File(file) if events.is_empty() => {
                let database = file.database.clone();
                blocking(move || run::apply(&database, &*projection, &[], before, at, batching)).await
            }
            Self::File(file) => run::apply(&file.database, &*projection, &events, before, at, batching),
            Self::Schema(schema) => {
                let lease = schema.lease();
                schema::apply(schema.place(), projection, events, before, at, batching, lease).await
            }
        }
    }
}
