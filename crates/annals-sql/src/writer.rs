//! The writer: the one connection over which the groups of a store are written, and the steps of a write.
//!
//! - W1  After any error the connection is closed, and what was not committed on it is rolled back. The next
//!       group uses a new one.
//! - W2  An error while a commit may be in progress is [`Step::Commit`], everything else [`Step::Read`].
//! - W3  Each step has a time limit on this side. A writer that is dropped in the middle of a step leaves
//!       nothing open.
//!
//! Next above: `committer`, and `inline` with rows of projections; below: `database`, whose words differ.

use std::time::Instant;

use annals_core::Clock;
use annals_state::Session;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::line::{IDLE, Line, usable};
use crate::{Asked, Batch, Database, Failure, How, Lineage, Staged, Step, Stopped, Tail};

/// Writes groups to a database.
pub(crate) struct Writer<D: Database> {
    database: D,
    /// The connection, on which a transaction may be open, and when it was used.
    line: Option<(Line<D::Driver>, Instant)>,
}

impl<D: Database> Writer<D> {
    pub(crate) fn new(database: D) -> Self {
        Self { database, line: None }
    }

    /// The identity and the newest known event of the log.
    pub(crate) fn lineage(&self) -> &Lineage {
        self.database.lineage()
    }

    /// Closes the connection and rolls back what is open on it.
    pub(crate) fn close(&mut self) {
        self.line = None;
    }

    /// Writes the group and commits it if its assumptions hold: one transaction, one round trip. If not,
    /// nothing was written.
    pub(crate) async fn write(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure> {
        let limit = self.database.silence();
        let mut line = self.take().await?;
        let tail = self.database.append(line.begin(Step::Commit), staged, How::Whole);
        let tail = timeout(limit, tail).await;
        let tail = self.ended(&mut line, Step::Commit, tail)?;
        self.put_back(line);
        if let Some(tail) = &tail {
            self.written(staged, tail);
        }
        Ok(tail)
    }

    /// Begins a transaction and writes the group in it if its assumptions hold. If not, nothing was written,
    /// and no transaction is open.
    pub(crate) async fn begin(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure> {
        let limit = self.database.silence();
        let mut line = self.take().await?;
        let begun = timeout(limit, self.database.begin(line.begin(Step::Read))).await;
        self.ended(&mut line, Step::Read, begun)?;
        let tail = timeout(limit, self.database.append(line.begin(Step::Read), staged, How::Assuming)).await;
        let tail = self.ended(&mut line, Step::Read, tail)?;
        self.put_back(line);
        Ok(tail)
    }

    /// Locks the log, validates these appends against it, and writes the valid ones. The transaction stays
    /// open.
    pub(crate) async fn begin_locked<'a>(
        &mut self,
        clock: &dyn Clock,
        batch: &Batch<'a>,
    ) -> Result<(Staged<'a>, Tail), Failure> {
        let limit = self.database.silence();
        let mut line = self.take().await?;
        let asked = Asked::of(batch);
        let facts = timeout(limit, self.database.lock(line.begin(Step::Read), &asked)).await;
        let facts = self.ended(&mut line, Step::Read, facts)?;
        let staged = Staged::validate(facts, batch, clock.now());
        let tail = match staged.nothing() {
            Some(tail) => tail,
            None => {
                let tail =
                    timeout(limit, self.database.append(line.begin(Step::Read), &staged, How::Locked)).await;
                let tail = self.ended(&mut line, Step::Read, tail)?;
                tail.ok_or_else(|| {
                    Failure::unavailable("the tables were changed by somebody who does not lock the log")
                })?
            }
        };
        self.put_back(line);
        Ok((staged, tail))
    }

    /// Returns the open transaction. The caller reports when it is done with it ([`Writer::session_done`]).
    pub(crate) fn session(&mut self) -> Option<Box<dyn Session + '_>> {
        self.line.as_mut().map(|(line, _)| self.database.session(line.begin(Step::Read)))
    }

    /// Records that no statement is in progress in the open transaction.
    pub(crate) fn session_done(&mut self) {
        if let Some((line, _)) = &mut self.line {
            line.end();
        }
    }

    /// Commits the open transaction.
    pub(crate) async fn finish(&mut self, staged: &Staged<'_>, tail: &Tail) -> Result<(), Failure> {
        let limit = self.database.silence();
        let mut line = self.open()?;
        let done = timeout(limit, self.database.commit(line.begin(Step::Commit))).await;
        self.ended(&mut line, Step::Commit, done)?;
        self.put_back(line);
        self.written(staged, tail);
        Ok(())
    }

    /// Rolls the open transaction back.
    pub(crate) async fn undo(&mut self) {
        let limit = self.database.silence();
        // If that fails, the connection is closed, which rolls it back too.
        let Ok(mut line) = self.open() else { return };
        let undone = timeout(limit, self.database.roll_back(line.begin(Step::Read))).await;
        if self.ended(&mut line, Step::Read, undone).is_ok() {
            self.put_back(line);
        }
    }

    /// Takes the connection, or opens a new one. It is put back after a success.
    async fn take(&mut self) -> Result<Line<D::Driver>, Failure> {
        let driver = self.database.driver().clone();
        let idle = &mut self.line;
        let line = usable(&driver, || idle.take().map(|(line, used)| (line, used.elapsed() < IDLE))).await;
        line.map_err(|error| D::failure(error, Step::Read))
    }

    /// Takes the connection with the open transaction.
    fn open(&mut self) -> Result<Line<D::Driver>, Failure> {
        let open = self.line.take().map(|(line, _)| line).filter(|line| !line.is_under_way());
        open.ok_or_else(|| Failure::unavailable("no transaction is open"))
    }

    /// The result of a step. If the server does not answer, the line stays in use, so that the statement is
    /// cancelled there too.
    fn ended<T>(
        &self,
        line: &mut Line<D::Driver>,
        step: Step,
        answer: Result<Result<T, D::Error>, Elapsed>,
    ) -> Result<T, Failure> {
        let Ok(done) = answer else {
            return Err(Failure::stopped(step, Stopped::Silent(self.database.silence())));
        };
        line.end();
        done.map_err(|error| D::failure(error, step))
    }

    fn put_back(&mut self, line: Line<D::Driver>) {
        self.line = Some((line, Instant::now()));
    }

    fn written(&self, staged: &Staged<'_>, tail: &Tail) {
        if let Some(newest) = staged.newest(tail) {
            self.database.lineage().saw(newest);
            self.database.written(newest.position);
        }
    }
}
