//! What a database is to the writer: how it is reached, and what is said to it. The flow of it is `writer`'s.

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
    /// As a transaction of its own.
    Whole,
    /// In the transaction that is open. The log may not be as the group assumes.
    Assuming,
    /// In the transaction that is open and holds the lock of the log, after what is so was read.
    Locked,
}

/// A database with a log in it, as it is written to.
///
/// After an error the connection is given up, with whatever was not committed on it.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// How its connections are made.
    type Driver: Driver<Connection = Self::Connection, Error = Self::Error>;
    /// A connection that writes.
    type Connection: Send + 'static;
    /// What the library says when something fails.
    type Error: Send;

    /// How connections that write are made.
    fn driver(&self) -> &Arc<Self::Driver>;

    /// By what the log is recognised.
    fn lineage(&self) -> &Arc<Lineage>;

    /// The longest that the server may take to answer a statement.
    fn silence(&self) -> Duration;

    /// Checks under the lock of the log that it is the one that is meant and is as the group assumes, and writes the group,
    /// in one round trip. `None` if it is not as assumed; then nothing was written, and no transaction is open.
    async fn append(
        &self,
        connection: &mut Self::Connection,
        staged: &Staged<'_>,
        how: How,
    ) -> Result<Option<Tail>, Self::Error>;

    /// Begins a transaction.
    async fn begin(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Begins a transaction, locks the log until its end, checks that it is the one that is meant, and reads what a group
    /// must know of it.
    async fn lock(&self, connection: &mut Self::Connection, asked: &Asked<'_>) -> Result<Facts, Self::Error>;

    /// The transaction that is open, for statements of others.
    fn session<'a>(&self, connection: &'a mut Self::Connection) -> Box<dyn Session + 'a>;

    /// Commits. Bare names of tables are those of the log again, whatever a session has entered.
    async fn commit(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Takes back what is open. Bare names of tables are those of the log again.
    async fn roll_back(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// What an error means that came at this step.
    fn failure(error: Self::Error, step: Step) -> Failure;

    /// The log goes to here, by what this process has committed.
    fn written(&self, _head: Position) {}
}
