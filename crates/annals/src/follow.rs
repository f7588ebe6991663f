//! Following what another process does, as long as it does it: how far it has come, for those who wait here.
//!
//! A checkpoint stands at an event that was taken. What comes behind it and is of no concern moves it rarely, so the log is
//! asked what comes next that is.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventStore, LogRead, Position, Query};

use crate::Failure;
use crate::progress::Progress;

/// How often the checkpoint is looked at while events are there that the other process must take, and while nobody here
/// waits for that.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_IDLY: Duration = Duration::from_millis(500);

/// What is followed.
pub(crate) trait Followed {
    /// Where the checkpoint stands.
    fn checkpoint(&self) -> impl Future<Output = Result<Position, Failure>> + Send;

    /// Everything up to the end of the log is done.
    fn caught_up(&mut self) -> impl Future<Output = ()> + Send;
}

/// Follows until it is dropped.
pub(crate) async fn follow(
    name: &str,
    store: Arc<dyn EventStore>,
    query: &Query,
    progress: &Progress,
    followed: &mut impl Followed,
) {
    progress.stands_by();
    loop {
        if let Err(failure) = look(&*store, query, progress, followed).await {
            tracing::debug!(name, %failure, "what another process does cannot be followed; it tries again");
            tokio::time::sleep(LOOK_IDLY).await;
        }
    }
}

/// Looks once, and waits until it is worth looking again.
async fn look(
    store: &dyn EventStore,
    query: &Query,
    progress: &Progress,
    followed: &mut impl Followed,
) -> Result<(), Failure> {
    let done = followed.checkpoint().await?;
    let page = store.read_log(LogRead::forward(done.next()).matching(query.clone()).limit(1)).await?;
    match page.events.first() {
        Some(next) => {
            progress.reached(next.position.previous());
            tokio::time::sleep(if progress.is_waited_for() { LOOK } else { LOOK_IDLY }).await;
        }
        None => {
            let through = page.next.previous();
            if page.end {
                followed.caught_up().await;
            }
            progress.reached(through);
            if page.end {
                store.wait(through).await?;
            }
        }
    }
    Ok(())
}
