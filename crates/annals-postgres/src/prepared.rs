//! The statements that are prepared in a session for queued statements (`queue`).

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgTypeInfo;

/// The prepared statements of a session.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) by_text: HashMap<String, Arc<Named>>,
    /// The number of the next name.
    pub(crate) next: u64,
    /// Names that are no longer used.
    pub(crate) stale: Vec<u64>,
}

/// A prepared statement.
pub(crate) struct Named {
    pub(crate) number: u64,
    /// The types of its parameters.
    pub(crate) types: Vec<PgTypeInfo>,
}

impl Prepared {
    /// Marks all of them as no longer used.
    pub(crate) fn forget(&mut self) {
        self.stale.extend(self.by_text.drain().map(|(_, named)| named.number));
    }
}
