//! The task that fills a projection: page after page of the log, each in one transaction.

use std::sync::Arc;

use annals_core::{LogPage, LogRead, Position, Query, RecordedEvent};

use super::file::{ViewFile, set_checkpoint};
use super::{Projected, Projection, Witness};
use crate::Recorded;
use crate::backoff::Backoff;
use crate::failure::FailedAt;
use crate::shared::Shared;
use crate::sql::{Database, Rows};
use crate::tasks::Stop;

/// A checkpoint is written at the latest when this many positions without an event for the projection have
/// passed; until then the memory of the task is enough.
const PASSED_MAX: u64 = 10_000;

/// A projection on its way through the log.
pub(super) struct Filling<P> {
    pub projection: Arc<P>,
    pub file: ViewFile,
    pub shared: Arc<Shared>,
    pub projected: Arc<Projected>,
    pub backoff: Backoff,
    pub read: LogRead,
    /// The checkpoint in the file.
    pub written: Position,
}

impl<P: Projection> Filling<P> {
    pub fn new(
        projection: P,
        file: ViewFile,
        shared: Arc<Shared>,
        projected: Arc<Projected>,
        query: Query,
    ) -> Self {
        let written = file.checkpoint();
        let read = LogRead::forward(written.next()).matching(query);
        let (projection, backoff) = (Arc::new(projection), crate::tasks::BACKOFF);
        Self { projection, file, shared, projected, backoff, read, written }
    }

    /// Goes on until the system stops. Whatever is under way then is finished or undone by SQLite.
    pub async fn run(self, mut stop: Stop) {
        let projected = self.projected.clone();
        tokio::select! {
            () = self.go_on() => {}
            () = stop.asked() => {}
        }
        projected.progress.stopped();
    }

    async fn go_on(mut self) {
        loop {
            match self.shared.store.read_log(self.read.clone()).await {
                Ok(page) if page.next > self.read.from => self.take(page).await,
                Ok(_) => {
                    self.at_the_end().await;
                    if let Err(error) = self.shared.store.wait(self.read.from.previous()).await {
                        self.wait_after(error.chain(), None).await;
                    }
                }
                Err(error) => self.wait_after(error.chain(), None).await,
            }
        }
    }

    /// Takes a page, however often that has to be tried.
    async fn take(&mut self, page: LogPage) {
        let through = page.next.previous();
        let events = page.events;
        let mut done = 0;
        while done < events.len() {
            let Err(FailedAt { index, failure }) = self.apply(&events[done..], through).await else { break };
            let failed = done + index;
            // Those before it are done on their own, so that what they say can be seen.
            if index > 0 {
                let last = events[failed - 1].position;
                if self.apply(&events[done..failed], last).await.is_ok() {
                    done = failed;
                    self.projected.progress.worked();
                    self.projected.progress.reached(last);
                }
            }
            self.wait_after(failure.to_string(), Some(events[failed].position)).await;
        }
        if through.get() - self.written.get() >= PASSED_MAX {
            let moved = self.file.database.write(move |connection| set_checkpoint(connection, through, None));
            match moved.await {
                Ok(()) => self.written = through,
                Err(error) => tracing::warn!(projection = P::NAME, %error, "a checkpoint could not be moved"),
            }
        }
        self.read.from = page.next;
        self.projected.progress.worked();
        self.projected.progress.reached(through);
        if page.end {
            self.at_the_end().await;
        }
    }

    /// Applies events, of which the last one is at `through` or the rest up to it is of no concern.
    async fn apply(&mut self, events: &[RecordedEvent], through: Position) -> Result<(), FailedAt> {
        apply(&self.file.database, self.projection.clone(), events.to_vec(), through).await?;
        self.written = through;
        Ok(())
    }

    async fn at_the_end(&mut self) {
        if let Some(serving) = self.file.caught_up().await {
            *self.projected.serving.write() = serving;
        }
        self.projected.progress.worked();
        self.projected.progress.caught_up();
    }

    async fn wait_after(&self, error: String, position: Option<Position>) {
        tracing::warn!(projection = P::NAME, ?position, error, "a projection cannot go on; it tries again");
        let attempts = self.projected.progress.failed(error, position, self.shared.clock.now());
        tokio::time::sleep(self.backoff.before(attempts)).await;
    }
}

/// Applies events in one transaction with the checkpoint after them. A panic of the projection is a failure of
/// the event that it met.
async fn apply<P: Projection>(
    database: &Database,
    projection: Arc<P>,
    events: Vec<RecordedEvent>,
    through: Position,
) -> Result<(), FailedAt> {
    let work = move |connection: &rusqlite::Connection| {
        let rows = Rows::new(connection);
        let mut witness = None;
        for (index, stored) in events.into_iter().enumerate() {
            witness = Some(Witness { position: stored.position, id: stored.id });
            let taken = crate::failure::caught(|| {
                let event = Recorded::<P::Event>::read(stored)?;
                projection.apply(&event, &rows)
            });
            taken.map_err(|failure| FailedAt { index, failure })?;
        }
        set_checkpoint(connection, through, witness)?;
        Ok(())
    };
    database.write(work).await
}
