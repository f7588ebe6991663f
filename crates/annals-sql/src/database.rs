//! What a database is to the writer: how it is reached, and what is said to it. The flow of it is `writer`'s.

use annals_core::{Position, Timestamp, Version};
use async_trait::async_trait;

use crate::{Asked, Facts, Failure, Session, Staged, Step};

/// A database with a log in it, as it is written to.
///
/// After an error the connection is given up, with whatever was not committed on it.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// A connection that writes.
    type Connection: Send + 'static;
    /// What the driver says when something fails.
    type Error: Send;

    /// Makes a connection.
    async fn connect(&self) -> Result<Self::Connection, Self::Error>;

    /// Whether the server still answers on this connection.
    async fn answers(&self, connection: &mut Self::Connection) -> bool;

    /// Checks under the lock of the log what the group assumes, and writes it: in one round trip, and as a transaction of its
    /// own if `whole`, else in the one that is open. Nothing if what it assumes is not so; then nothing was written, and no
    /// transaction is open any more.
    async fn append(
        &self,
        connection: &mut Self::Connection,
        staged: &Staged<'_>,
        whole: bool,
    ) -> Result<Option<Tail>, Self::Error>;

    /// Begins a transaction.
    async fn begin(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Begins a transaction, locks the log until its end, and reads what a group must know of it.
    async fn lock(&self, connection: &mut Self::Connection, asked: &Asked<'_>) -> Result<Facts, Self::Error>;

    /// The transaction that is open, for statements of others.
    fn session<'a>(&self, connection: &'a mut Self::Connection) -> Box<dyn Session + 'a>;

    /// Commits. Bare names of tables are those of the log again, whatever a session has entered.
    async fn commit(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Takes back what is open. Bare names of tables are those of the log again.
    async fn roll_back(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// What an error means that came at this step.
    fn failure(error: Self::Error, step: Step) -> Failure;

    /// The log has come to here, by what this process has committed.
    fn written(&self, _head: Position) {}
}

/// The end of the log as a group found it.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Position of the last event in front of the group.
    pub position: Position,
    /// When that was recorded; the group's times are held to it.
    pub recorded_at: Timestamp,
    /// The version of each of the group's streams in front of it, in their order.
    pub versions: Vec<Version>,
}
