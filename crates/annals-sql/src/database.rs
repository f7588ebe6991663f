//! The interface of the writer to a database: connections and statements. Their order is in `writer`.

use std::sync::Arc;
use std::time::Duration;

use annals_core::Position;
use annals_state::Session;
use async_trait::async_trait;

use crate::line::Driver;
use crate::{Asked, Facts, Failure, Lineage, Staged, Step, Tail};

/// How the rows of a group are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In a transaction of their own.
    Whole,
    /// In the open transaction. The assumptions of the group are checked.
    Assuming,
    /// In the open transaction, which holds the lock of the log and has read the facts.
    Locked,
}

/// A database with a log, for writing.
///
/// After an error the connection is closed, and what was not committed on it is rolled back.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// The driver of its connections.
    type Driver: Driver<Connection = Self::Connection, Error = Self::Error>;
    /// A connection that writes.
    type Connection: Send + 'static;
    /// The error of the driver.
    type Error: Send;

    /// How connections that write are made.
    fn driver(&self) -> &Arc<Self::Driver>;

    /// The identity and the newest known event of the log.
    fn lineage(&self) -> &Arc<Lineage>;

    /// Time limit for the answer of the server to a statement.
    fn silence(&self) -> Duration;

    /// Locks the log, checks its identity and the assumptions of the group, and writes the group, in one
    /// round trip. `None` if an assumption does not hold; then nothing was written, and no transaction is
    /// open.
    async fn append(
        &self,
        connection: &mut Self::Connection,
        staged: &Staged<'_>,
        how: How,
    ) -> Result<Option<Tail>, Self::Error>;

    /// Begins a transaction.
    async fn begin(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Begins a transaction, locks the log until its end, checks its identity, and reads the facts that a
    /// group needs.
    async fn lock(&self, connection: &mut Self::Connection, asked: &Asked<'_>) -> Result<Facts, Self::Error>;

    /// The open transaction, for statements of inline projections.
    fn session<'a>(&self, connection: &'a mut Self::Connection) -> Box<dyn Session + 'a>;

    /// Commits. Resets unqualified table names to the schema of the log.
    async fn commit(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Rolls back. Resets unqualified table names to the schema of the log.
    async fn roll_back(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Classifies an error of this step.
    fn failure(error: Self::Error, step: Step) -> Failure;

    /// Reports the new head of the log after a commit of this process.
    fn written(&self, _head: Position) {}
}
