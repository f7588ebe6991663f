//! Tracks the progress of the lease holder, another process, for callers that wait for it in this one.
//!
//! A checkpoint is at a handled event. Later events that do not match the query move it rarely, so the log is
//! read for the next matching event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_consume::{Waits, reached};
use annals_core::{EventStore, LogRead, Query, Seen, Witness};

use crate::HandlerError;
use crate::progress::Progress;

/// Interval at which the checkpoint is read while the other process has events to handle.
const LOOK: Duration = Duration::from_millis(20);
/// The same interval while no caller in this process waits for the progress.
const LOOK_IDLY: Duration = Duration::from_millis(500);
/// Interval at which the holder of the lease is looked up.
const ASK: Duration = Duration::from_secs(2);

/// A consumer that another process runs.
pub(crate) trait Followed {
    /// The checkpoint.
    fn checkpoint(&self) -> impl Future<Output = Result<Seen, HandlerError>> + Send;

    /// Called when everything up to the end of the log is handled.
    fn caught_up(&mut self) -> impl Future<Output = ()> + Send;

    /// Why this process waits.
    fn waits_for(&mut self) -> impl Future<Output = Option<String>> + Send;
}

/// Tracks the progress until the future is dropped.
pub(crate) async fn follow(
    name: &str,
    store: Arc<dyn EventStore>,
    query: &Query,
    progress: &Progress,
    followed: &mut impl Followed,
) {
    progress.stands_by();
    let mut asked: Option<Instant> = None;
    let mut waits = Waits::default();
    loop {
        if asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            progress.notes(followed.waits_for().await);
            asked = Some(Instant::now());
        }
        if let Err(failure) = look(&*store, query, progress, followed, &mut waits).await {
            let error = failure.into_text();
            tracing::debug!(name, error, "cannot track the progress of the other process; retrying");
            progress.notes(Some(format!("cannot track the progress of the other process: {error}")));
            tokio::time::sleep(LOOK_IDLY).await;
        }
    }
}

/// Updates the progress once, and waits until it may have changed. The other process may step back.
async fn look(
    store: &dyn EventStore,
    query: &Query,
    progress: &Progress,
    followed: &mut impl Followed,
    waits: &mut Waits,
) -> Result<(), HandlerError> {
    let done = followed.checkpoint().await?;
    let read = LogRead::forward(done.position.next()).matching(query.clone()).limit(1);
    let page = store.read_log(read).await?;
    let next = page.events.first().map(|event| event.position());
    let end = next.unwrap_or(page.next).previous();
    let through = match done.witness() {
        Some(checkpoint) => reached(store, query, checkpoint, end).await?,
        None if done.position > page.head => None,
        None => Witness::at(store, end).await?,
    };
    let Some(through) = through else {
        // Until the other process has noticed a loss of events, its checkpoint may be beyond the end of the
        // log.
        progress.resumes_at(done.position.min(page.head));
        tokio::time::sleep(LOOK_IDLY).await;
        return Ok(());
    };
    if next.is_none() && page.end {
        followed.caught_up().await;
    }
    progress.resumes_at(through);
    if next.is_some() {
        tokio::time::sleep(if progress.is_waited_for() { LOOK } else { LOOK_IDLY }).await;
    } else if page.end {
        waits.more(store, through.position).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use annals_core::{Append, Expected, NewEvent, Position, StreamId};
    use annals_testkit::failover::{Failover, Pages};

    use super::*;

    struct At(Witness);

    impl Followed for At {
        async fn checkpoint(&self) -> Result<Seen, HandlerError> {
            Ok(self.0.into())
        }
        async fn caught_up(&mut self) {}
        async fn waits_for(&mut self) -> Option<String> {
            None
        }
    }

    fn append(stream: &str, event_type: &str) -> Append {
        let event = NewEvent::new(event_type, "{}").unwrap();
        Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event])
    }

    /// The log loses its newest events between the read of a page without a matching event and the read of
    /// its end. One of the events that replace them matches, and the other process has not handled it.
    #[tokio::test]
    async fn an_event_that_took_the_place_of_a_lost_one_is_not_taken_for_done() {
        let store = Failover::new();
        for (stream, event_type) in [("meant-1", "meant"), ("other-1", "other"), ("other-1", "other")] {
            store.append(append(stream, event_type)).await.unwrap();
        }
        let first =
            store.read_log(LogRead::forward(Position::FIRST).limit(1)).await.unwrap().events.remove(0);
        let (query, progress) =
            (Query::types([first.event_type().try_into().unwrap()]), Progress::from(Position::ZERO));
        let (mut followed, mut waits) = (At(Witness::of(&first)), Waits::default());
        let then = ["meant", "other", "other"].map(|event_type| append("late-1", event_type));
        store.lose_after(Pages::OfLog, 1, Position::FIRST, then).await;
        look(&*store, &query, &progress, &mut followed, &mut waits).await.unwrap();
        assert!(progress.standing().position <= Position::FIRST, "{:?}", progress.standing());
        // The other process takes the event.
        let second =
            store.read_log(LogRead::forward(Position::new(2)).limit(1)).await.unwrap().events.remove(0);
        followed.0 = Witness::of(&second);
        let settled = async {
            look(&*store, &query, &progress, &mut followed, &mut waits).await.unwrap();
        };
        let mut watch = progress.watch();
        tokio::select! {
            () = settled => {}
            _ = watch.wait_for(|standing| standing.position == Position::new(4)) => {}
        }
        assert_eq!(progress.standing().position, Position::new(4));
    }
}
