//! A log that follows its moves, as the directory records them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use annals_consume::newest;
use annals_core::{
    Append, Appended, Error, EventStore, IdempotencyKey, LogPage, LogRead, Position, Result, StoreId,
    StreamInfo, StreamList, StreamPage, StreamRead, Witness,
};
use annals_state::Backend;
use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::Shared;

/// The time for which an append waits for the last step of a move.
const PATIENCE: Duration = Duration::from_secs(30);
/// Interval at which it reads the directory meanwhile.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct RoutedStore {
    tenant: String,
    id: StoreId,
    shared: Weak<Shared>,
    now: watch::Sender<Here>,
    /// Held while following: a caller with an older read of the directory must not overwrite a newer result.
    following: Mutex<()>,
}

/// The current place of the log.
#[derive(Clone)]
pub(super) struct Here {
    pub at: String,
    pub store: Arc<dyn EventStore>,
    pub backend: Arc<dyn Backend>,
}

impl Here {
    /// Whether an append was refused because the log is no longer here.
    fn has_moved(&self, error: &Error) -> bool {
        self.backend.relocation().is_some_and(|relocation| relocation.has_moved(error))
    }
}

impl RoutedStore {
    pub fn new(tenant: &str, here: Here, shared: Weak<Shared>) -> Self {
        let (tenant, id) = (tenant.to_owned(), here.store.id());
        Self { tenant, id, shared, now: watch::Sender::new(here), following: Mutex::default() }
    }

    fn store(&self) -> Arc<dyn EventStore> {
        self.now.borrow().store.clone()
    }

    /// Switches to the place in the directory, if that place has all events of the current one: a directory
    /// that was restored to a state before a move names the old place, where the log is fenced.
    pub async fn follow(&self) -> Result<()> {
        let gone = || Error::Closed;
        let shared = self.shared.upgrade().ok_or_else(gone)?;
        let _one = self.following.lock().await;
        let at = shared.place_of(&self.tenant).await?;
        if at != self.now.borrow().at {
            let there = shared.here(at).await?;
            // The place that the log has left may be gone.
            if let Ok(newest) = newest(&*self.store()).await
                && !newest.holds(&*there.store).await?
            {
                let (at, here) = (there.at, self.now.borrow().at.clone());
                let problem = format!(
                    "the directory has the log at {at}, which does not have all events of {here}, where the log was before: the \
                     directory has lost the end of a move; move the log to {here} again"
                );
                return Err(Error::Unavailable(problem.into()));
            }
            self.now.send_replace(there);
        }
        Ok(())
    }
}

#[async_trait]
impl EventStore for RoutedStore {
    fn id(&self) -> StoreId {
        self.id
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        let began = Instant::now();
        loop {
            let here = self.now.borrow().clone();
            match here.store.append(append.clone()).await {
                // Nothing was written at this place, and nothing will be: the append is retried at the new
                // place.
                Err(error) if here.has_moved(&error) && began.elapsed() < PATIENCE => {
                    self.follow().await?;
                    tokio::time::sleep(LOOK).await;
                }
                answer => return answer,
            }
        }
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.store().read_log(read).await
    }

    async fn read_log_after(&self, read: LogRead, seen: Witness) -> Result<Option<LogPage>> {
        self.store().read_log_after(read, seen).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.store().read_stream(read).await
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.store().list_streams(list).await
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.store().outcome(key).await
    }

    async fn head(&self) -> Result<Position> {
        self.store().head().await
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        let mut moved = self.now.subscribe();
        loop {
            let store = moved.borrow_and_update().store.clone();
            tokio::select! {
                head = store.wait(after) => return head,
                _ = moved.changed() => {}
            }
        }
    }
}
