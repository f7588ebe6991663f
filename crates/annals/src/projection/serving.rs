//! What answers the queries of a projection, and what is known of it while it runs.

use std::sync::Arc;

use annals_core::EventStore;
use annals_state::{Database, Row, SqlError, Value, ViewPlace, select};
use parking_lot::RwLock;

use crate::progress::{Kind, Progress};
use crate::tasks::Known;

/// What is known of a running projection by everybody but its task.
pub(crate) struct Projected {
    /// The log that the rows are made of.
    pub store: Arc<dyn EventStore>,
    pub progress: Progress,
    /// The database that answers queries.
    pub serving: RwLock<Serving>,
}

/// The database that answers queries, and whether it is that of an older version.
#[derive(Clone)]
pub(crate) struct Serving {
    pub database: Answering,
    pub older: Option<u32>,
}

/// What answers queries.
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
