//! Subscriptions: the events after a position, first the stored ones, then live ones, without a seam.
//!
//! There is no cutover from "catching up" to "live": a subscription reads the page after the last one and, at
//! the end of the log, waits for the head to move. Because positions become visible in order and without gaps
//! (G4), no event is skipped or returned twice (G7).
//!
//! - B1  The checkpoint is a ladder of witnesses, which ends at the last event that was returned.
//! - B2  If the log lost events that were returned, the subscription steps back to the last event in common
//!       and reads from there: it returns the events that took the positions of lost ones, so positions are
//!       smaller than before.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{EventStore, Position, Query, RecordedEvent, Result, Witness};

use crate::history::{Found, Ladder, LogReader};

/// The events after a position of the log, in order, without an end.
///
/// ```
/// # use std::sync::Arc;
/// # use annals_consume::{Ladder, Subscription};
/// # use annals_core::{Append, EventStore, Expected, MemoryStore, NewEvent, Query, StreamId};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> annals_core::Result<()> {
/// # let store = Arc::new(MemoryStore::new());
/// # let event = NewEvent::new("account.opened", "{}")?;
/// # store.append(Append::to(StreamId::new("account-1")?, Expected::Any, [event])).await?;
/// // From the beginning, the first time.
/// let mut events = Subscription::new(store.clone(), Ladder::default(), Query::all());
/// let event = events.next().await?;
/// assert_eq!(event.event_type(), "account.opened");
/// // Store it together with the effect of the event, and load it after a restart.
/// let kept: Vec<u8> = events.checkpoint().to_bytes();
/// let events = Subscription::new(store, Ladder::from_bytes(&kept).unwrap(), Query::all());
/// # drop(events);
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    store: Arc<dyn EventStore>,
    reader: LogReader,
    buffered: VecDeque<RecordedEvent>,
    /// Ends at the last event that was returned.
    ladder: Ladder,
    losses: u64,
}

/// Most events of a page unless another limit is set.
const PAGE: usize = 1_000;

impl Subscription {
    /// Subscribes to the events after `after` that match the query. [`Ladder::default`] is the beginning of
    /// the log; a consumer resumes at its [`checkpoint`](Self::checkpoint).
    ///
    /// If `after` is a single [`Witness`], the rest of the ladder is read from the log. If the log has lost
    /// that event, the subscription starts at the beginning of the log; with a whole checkpoint it resumes at
    /// the last event in common.
    pub fn new(store: Arc<dyn EventStore>, after: impl Into<Ladder>, query: Query) -> Self {
        let ladder = after.into();
        let seen = ladder.newest().unwrap_or(Witness::origin(store.id()));
        let reader = LogReader::new(store.clone(), seen, query, PAGE);
        Self { store, reader, buffered: VecDeque::new(), ladder, losses: 0 }
    }

    /// Subscribes to the events after the current head, also if the log loses events later. If it loses the
    /// event at the head and more than 15 before it, some older events may be returned: at most about as many
    /// as were lost.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn from_now(store: Arc<dyn EventStore>, query: Query) -> Result<Self> {
        let ladder = Ladder::from_now(&*store).await?;
        Ok(Self::new(store, ladder, query))
    }

    /// Limits a page to this many events.
    #[must_use]
    pub fn page_limit(mut self, limit: usize) -> Self {
        self.reader.limit(limit);
        self
    }

    /// Returns the next event. Waits until there is one.
    ///
    /// # Errors
    /// Those of the store's reads. The call may be repeated, and resumes where it was.
    pub async fn next(&mut self) -> Result<RecordedEvent> {
        loop {
            if let Some(event) = self.buffered.pop_front() {
                self.ladder.push(Witness::of(&event));
                return Ok(event);
            }
            self.ladder.push(self.reader.seen());
            self.buffered = self.fetch().await?.into();
        }
    }

    /// Returns the events of the next page, which is at least one position long and may have no event that
    /// matches the query. Waits at the end of the log until it grows.
    ///
    /// # Errors
    /// Those of the store's reads. The call may be repeated, and resumes where it was.
    pub async fn next_page(&mut self) -> Result<Vec<RecordedEvent>> {
        if self.buffered.is_empty() {
            self.buffered = self.fetch().await?.into();
        }
        let events = Vec::from(std::mem::take(&mut self.buffered));
        for event in &events {
            self.ladder.push(Witness::of(event));
        }
        self.ladder.push(self.reader.seen());
        Ok(events)
    }

    /// The witnesses of the events that were returned. All matching events up to the newest one were.
    pub fn checkpoint(&self) -> &Ladder {
        &self.ladder
    }

    /// How often the subscription stepped back because the log had lost events that were returned. A consumer
    /// that keeps events compares this before and after a call.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    async fn fetch(&mut self) -> Result<Vec<RecordedEvent>> {
        self.complete().await?;
        loop {
            let before = self.reader.seen().position;
            match self.reader.next().await? {
                Found::Page { events, through, .. } if through.position > before => return Ok(events),
                Found::Page { .. } => self.reader.wait().await?,
                Found::Lost => self.step_back().await?,
            }
        }
    }

    /// Reads the rest of the ladder of a checkpoint that was a single witness.
    async fn complete(&mut self) -> Result<()> {
        if let Some(newest) = self.ladder.only()
            && newest.position > Position::FIRST
            && newest.holds(&*self.store).await?
        {
            self.ladder = Ladder::below(&*self.store, newest).await?;
        }
        Ok(())
    }

    async fn step_back(&mut self) -> Result<()> {
        let common = self.ladder.last_in_common(&*self.store).await?;
        let common = common.unwrap_or(Witness::origin(self.store.id()));
        self.ladder.step_back(common);
        self.reader.resume(common);
        self.losses += 1;
        Ok(())
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reader, ladder, losses, .. } = self;
        f.debug_struct("Subscription")
            .field("reader", reader)
            .field("checkpoint", ladder)
            .field("losses", losses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use annals_core::{Append, Expected, NewEvent, StreamId};
    use annals_testkit::failover::Failover;

    use super::*;

    fn done(types: &[&str]) -> Vec<Append> {
        let append = |event_type: &&str| {
            let event = NewEvent::new(format!("thing.{event_type}"), "{}").unwrap();
            Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event])
        };
        types.iter().map(append).collect()
    }

    async fn store(types: &[&str]) -> Arc<Failover> {
        let store = Failover::new();
        for append in done(types) {
            store.append(append).await.unwrap();
        }
        store
    }

    async fn take(events: &mut Subscription, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
            taken.push(next.unwrap_or_else(|_| panic!("after {taken:?}")).unwrap().event_type().to_string());
        }
        taken
    }

    const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

    #[tokio::test]
    async fn what_takes_the_positions_of_lost_events_is_handed_out() {
        for (up_to, then) in [(7, &["x"][..]), (7, &["x", "y", "z", "z"]), (9, &["x", "y"]), (0, &["x", "y"])]
        {
            let store = store(&TEN).await;
            let mut events = Subscription::new(store.clone(), Ladder::default(), Query::all());
            take(&mut events, 10).await;
            let kept = events.checkpoint().to_bytes();
            store.lose(Position::new(up_to), done(then)).await;
            let wanted: Vec<String> = then.iter().map(|kind| format!("thing.{kind}")).collect();
            assert_eq!(take(&mut events, then.len()).await, wanted, "{up_to} while it reads");
            assert_eq!(events.losses(), 1);
            // As a consumer that was away.
            let kept = Ladder::from_bytes(&kept).unwrap();
            let mut events = Subscription::new(store.clone(), kept, Query::all());
            assert_eq!(take(&mut events, then.len()).await, wanted, "{up_to} after a restart");
            assert_eq!(
                events.checkpoint().newest(),
                Witness::at(&*store, store.head().await.unwrap()).await.unwrap()
            );
        }
    }

    #[tokio::test]
    async fn a_witness_alone_is_completed_from_the_log() {
        let store = store(&TEN).await;
        let mut events = Subscription::from_now(store.clone(), Query::all()).await.unwrap();
        store.append(done(&["k"]).remove(0)).await.unwrap();
        assert_eq!(take(&mut events, 1).await, ["thing.k"]);
        store.lose(Position::new(8), done(&["x", "y", "z"])).await;
        assert_eq!(take(&mut events, 3).await, ["thing.x", "thing.y", "thing.z"]);
    }

    #[tokio::test]
    async fn one_from_now_hands_out_nothing_older_after_a_loss_before_its_first_read() {
        let store = store(&TEN).await;
        let mut events = Subscription::from_now(store.clone(), Query::all()).await.unwrap();
        store.lose(Position::new(8), done(&["x", "y", "z"])).await;
        assert_eq!(take(&mut events, 3).await, ["thing.x", "thing.y", "thing.z"]);
    }

    #[tokio::test]
    async fn one_from_now_hands_out_nothing_older_however_much_is_lost() {
        for restarts in [false, true] {
            let store = store(&TEN).await;
            let mut events = Subscription::from_now(store.clone(), Query::all()).await.unwrap();
            for _ in 0..100 {
                store.append(done(&["k"]).remove(0)).await.unwrap();
            }
            take(&mut events, 100).await;
            if restarts {
                let kept = Ladder::from_bytes(&events.checkpoint().to_bytes()).unwrap();
                events = Subscription::new(store.clone(), kept, Query::all());
            }
            store.lose(Position::new(12), done(&["x", "y"])).await;
            assert_eq!(
                take(&mut events, 4).await,
                ["thing.k", "thing.k", "thing.x", "thing.y"],
                "{restarts}"
            );
            store.lose(Position::new(10), done(&["z"])).await;
            assert_eq!(take(&mut events, 1).await, ["thing.z"]);
        }
    }

    #[tokio::test]
    async fn an_end_that_is_gone_is_not_asked_for_without_a_pause() {
        let store = store(&TEN).await;
        let mut events = Subscription::new(store.clone(), Ladder::default(), Query::all());
        take(&mut events, 10).await;
        store.believed.store(10, Ordering::SeqCst);
        store.lose(Position::new(7), []).await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
        assert!(waiting.is_err(), "there is nothing new");
        let reads = store.log_reads.load(Ordering::SeqCst);
        assert!(reads < 300, "{reads} reads while nothing happens");
        store.append(done(&["x"]).remove(0)).await.unwrap();
        assert_eq!(take(&mut events, 1).await, ["thing.x"]);
    }
}
