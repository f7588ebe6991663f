//! What a session has prepared for statements that are queued (`queue`).

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgTypeInfo;

/// The statements that are prepared in a session.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) by_text: HashMap<String, Arc<Named>>,
    /// The number of the next name.
    pub(crate) next: u64,
    /// Names that are not used any more.
    pub(crate) stale: Vec<u64>,
}

/// A statement that is prepared.
pub(crate) struct Named {
    pub(crate) number: u64,
    /// The types that it takes.
    pub(crate) types: Vec<PgTypeInfo>,
}

impl Prepared {
    /// None of them is used any more.
    pub(crate) fn forget(&mut self) {
        self.stale.extend(self.by_text.drain().map(|(_, named)| named.number));
    }
}
