//! The database that serves the queries of a projection, and the shared state of a running projection.

use std::sync::Arc;

use annals_core::EventStore;
use annals_state::{Database, Row, SqlError, Value, ViewPlace, select};
use parking_lot::RwLock;

use crate::progress::{Kind, Progress};
use crate::tasks::Known;

/// The state of a running projection that its task shares with queries and statuses.
pub(crate) struct Projected {
    /// The log from which the rows are derived.
    pub store: Arc<dyn EventStore>,
    pub progress: Progress,
    /// The database that serves queries.
    pub serving: RwLock<Serving>,
}

/// The database that serves queries, and its version if it is an older one.
#[derive(Clone)]
pub(crate) struct Serving {
    pub database: Answering,
    pub older: Option<u32>,
}

/// A file or a schema that serves queries.
#[derive(Clone)]
pub(crate) enum Answering {
    File(Database),
    Schema(ViewPlace),
}

impl Answering {
    pub async fn select(&self, sql: Arc<str>, params: Arc<[Value]>) -> Result<Vec<Row>, SqlError> {
        match self {
            Self::File(database) => database.read(move |connection| select(connection, &sql, &params)).await,
            Self::Schema(place) => place.select(&sql, &params).await,
        }
    }
}

impl Known for Projected {
    fn kind(&self) -> Kind {
        Kind::Projection
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn shows_it(&self) -> bool {
        self.serving.read().older.is_none()
    }
}
