//! The writer: the one connection over which the groups of a store are written, and the steps that this takes.
//!
//! - W1  A connection on which anything has failed is given up, with whatever was not committed on it. The next group begins
//!       on a new one.
//! - W2  What fails while a commit may be under way is [`Step::Commit`], everything else [`Step::Read`].
//!
//! Next above: `committer`, and `inline` with rows of projections; below: `database`, whose words differ.

use std::time::{Duration, Instant};

use annals_core::{Append, Clock};

use crate::{Asked, Database, Failure, Session, Staged, Step, Tail};

/// A connection that was not used for this long is tried before it is used.
pub const IDLE: Duration = Duration::from_secs(1);

/// Writes groups to a database.
pub(crate) struct Writer<D: Database> {
    database: D,
    /// The connection that is there, on which a transaction may be open, and when it was used.
    connection: Option<(D::Connection, Instant)>,
}

impl<D: Database> Writer<D> {
    pub(crate) fn new(database: D) -> Self {
        Self { database, connection: None }
    }

    /// Writes the group and commits it, if what it assumes is so: one transaction, one round trip. If not, nothing was
    /// written.
    pub(crate) async fn write(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure> {
        let mut connection = self.take().await?;
        let tail = self.database.append(&mut connection, staged, true).await;
        let tail = tail.map_err(Self::at_commit)?;
        self.put_back(connection);
        if let Some(tail) = &tail {
            self.written(staged, tail);
        }
        Ok(tail)
    }

    /// Begins a transaction and writes the group in it, if what it assumes is so. If not, nothing was written, and no
    /// transaction is open.
    pub(crate) async fn begin(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure> {
        let mut connection = self.take().await?;
        self.database.begin(&mut connection).await.map_err(Self::before_commit)?;
        let tail = self.database.append(&mut connection, staged, false).await.map_err(Self::before_commit)?;
        self.put_back(connection);
        Ok(tail)
    }

    /// Locks the log, judges these appends on what is so, and writes those that are to be written. The transaction stays
    /// open.
    pub(crate) async fn begin_locked<'a>(
        &mut self,
        clock: &dyn Clock,
        appends: &[&'a Append],
    ) -> Result<(Staged<'a>, Tail), Failure> {
        let mut connection = self.take().await?;
        let asked = Asked::of(appends.to_vec());
        let facts = self.database.lock(&mut connection, &asked).await.map_err(Self::before_commit)?;
        let staged = Staged::judge(facts, appends, clock.now());
        let tail = match staged.nothing() {
            Some(tail) => tail,
            None => {
                let tail = self
                    .database
                    .append(&mut connection, &staged, false)
                    .await
                    .map_err(Self::before_commit)?;
                tail.ok_or_else(|| {
                    Failure::unavailable("the tables were changed by somebody who does not lock the log")
                })?
            }
        };
        self.put_back(connection);
        Ok((staged, tail))
    }

    /// The transaction that is open.
    pub(crate) fn session(&mut self) -> Option<Box<dyn Session + '_>> {
        self.connection.as_mut().map(|(connection, _)| self.database.session(connection))
    }

    /// Commits what is open.
    pub(crate) async fn finish(&mut self, staged: &Staged<'_>, tail: &Tail) -> Result<(), Failure> {
        let mut connection = self.open()?;
        let done = self.database.commit(&mut connection).await;
        done.map_err(Self::at_commit)?;
        self.put_back(connection);
        self.written(staged, tail);
        Ok(())
    }

    /// Takes back what is open.
    pub(crate) async fn undo(&mut self) {
        // A connection on which that fails is given up, which undoes it as well.
        if let Ok(mut connection) = self.open()
            && self.database.roll_back(&mut connection).await.is_ok()
        {
            self.put_back(connection);
        }
    }

    /// Takes the connection out, or makes a new one. It is put back when all has gone well.
    async fn take(&mut self) -> Result<D::Connection, Failure> {
        if let Some((mut connection, used)) = self.connection.take()
            && (used.elapsed() < IDLE || self.database.answers(&mut connection).await)
        {
            return Ok(connection);
        }
        self.database.connect().await.map_err(Self::before_commit)
    }

    /// Takes the connection out on which a transaction is open.
    fn open(&mut self) -> Result<D::Connection, Failure> {
        let open = self.connection.take().map(|(connection, _)| connection);
        open.ok_or_else(|| Failure::unavailable("no transaction is open"))
    }

    fn put_back(&mut self, connection: D::Connection) {
        self.connection = Some((connection, Instant::now()));
    }

    fn before_commit(error: D::Error) -> Failure {
        D::failure(error, Step::Read)
    }

    fn at_commit(error: D::Error) -> Failure {
        D::failure(error, Step::Commit)
    }

    fn written(&self, staged: &Staged<'_>, tail: &Tail) {
        if !staged.events.is_empty() {
            self.database.written(tail.position.plus(staged.events.len() as u64));
        }
    }
}
