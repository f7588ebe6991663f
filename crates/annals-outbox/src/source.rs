//! The pending messages of an outbox, as the source of a runner, and their marks, as its checkpoint.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_consume::{Checkpoints, Observer, Reached, Read, Resumed, Source, WriteError};
use annals_core::Cause;
use tokio::sync::{Notify, watch};

use crate::Outbox;
use crate::health::Health;
use crate::in_flight::InFlight;
use crate::lease::Lease;
use crate::message::{Aggregate, Message};
use crate::options::Options;

/// How many processed messages are deleted at once, and the pause after fewer were found.
const CLEANED_AT_ONCE: usize = 1_000;
const CLEAN_PAUSE: Duration = Duration::from_secs(60);
/// How often it is checked whether the lease was renewed, and whether cancelled calls have ended.
const CHECK: Duration = Duration::from_millis(20);

/// Hands out the messages of at most `concurrency` aggregates at once.
pub(crate) struct Pending {
    outbox: Outbox,
    options: Options,
    in_flight: Arc<InFlight>,
    wake: Arc<Notify>,
    /// Messages that were chosen and not handed out yet.
    queue: VecDeque<(Aggregate, Vec<Message>)>,
    /// Whether the table may have messages to choose.
    look: bool,
    clean_at: Instant,
}

impl Source for Pending {
    type Item = Message;
    /// Published messages are kept in [`InFlight`] until they are marked, so there is no cursor.
    type Cursor = ();
    type Checkpoint = ();
    const IS_ORDERED: bool = false;

    fn key(message: &Message) -> impl Hash + '_ {
        message.aggregate()
    }

    fn name(message: &Message) -> String {
        format!("the message {}", message.id)
    }

    fn cursor(_: &Message) {}

    fn bytes(message: &Message) -> usize {
        message.data.len() + size_of::<Message>()
    }

    fn advance((): &mut (), _: &[()]) {}

    async fn read(&mut self) -> Result<Read<Self>, Cause> {
        self.clean().await?;
        let mut items = Vec::new();
        if self.in_flight.paused().is_some() {
            self.queue.clear();
            self.look = true;
        } else {
            let active = self.in_flight.active();
            if active.len() < self.options.concurrency {
                if self.queue.is_empty() && self.look {
                    let (room, batch) = (self.options.concurrency, self.options.batch);
                    let wait_max = self.options.backoff.longest();
                    let chosen = self.outbox.choose(active.iter(), room, batch, wait_max).await?;
                    self.look = !chosen.is_empty();
                    self.queue = by_aggregate(chosen);
                }
                if let Some((aggregate, messages)) = self.queue.pop_front() {
                    self.in_flight.hand_out(aggregate, messages.len());
                    items = messages;
                }
            }
        }
        let is_end = items.is_empty();
        Ok(Read::Page { items, through: None, is_end })
    }

    /// Waits until an aggregate is no longer active, the publisher is woken, or it is time to poll.
    async fn wait(&mut self) -> Result<(), Cause> {
        let pause = self.in_flight.paused().map(|until| until.saturating_duration_since(Instant::now()));
        let time = pause.map_or(self.options.poll, |left| left.min(self.options.poll));
        tokio::select! {
            () = self.in_flight.left.notified() => {}
            () = self.wake.notified() => {}
            () = tokio::time::sleep(time) => {}
        }
        self.look = true;
        Ok(())
    }
}

impl Pending {
    async fn clean(&mut self) -> crate::Result<()> {
        if self.clean_at > Instant::now() {
            return Ok(());
        }
        let corrected = self.outbox.correct(self.options.keep).await?;
        if corrected > 0 {
            tracing::warn!(
                corrected,
                "messages of the outbox `{}` were marked by a clock that was ahead",
                self.outbox.name
            );
        }
        let cleaned = self.outbox.clean(self.options.keep, CLEANED_AT_ONCE).await?;
        let pause = if cleaned < CLEANED_AT_ONCE as u64 {
            CLEAN_PAUSE.min(self.options.keep)
        } else {
            Duration::ZERO
        };
        self.clean_at = Instant::now() + pause;
        Ok(())
    }
}

/// Messages of each aggregate, in their order; the aggregates in the order of their first messages.
fn by_aggregate(messages: Vec<Message>) -> VecDeque<(Aggregate, Vec<Message>)> {
    let mut places = HashMap::new();
    let mut grouped: VecDeque<(Aggregate, Vec<Message>)> = VecDeque::new();
    for message in messages {
        let aggregate = message.aggregate();
        let place = *places.entry(aggregate.clone()).or_insert_with(|| {
            grouped.push_back((aggregate, Vec::new()));
            grouped.len() - 1
        });
        grouped[place].1.push(message);
    }
    grouped
}

/// Marks published messages.
#[derive(Clone)]
pub(crate) struct Marks {
    pub outbox: Outbox,
    pub options: Options,
    pub lease: Arc<Lease>,
    pub term: u64,
    pub in_flight: Arc<InFlight>,
    pub wake: Arc<Notify>,
}

impl Marks {
    pub(crate) async fn mark(&self) -> crate::Result<()> {
        let published = self.in_flight.to_mark();
        if !published.is_empty() {
            self.outbox.mark(&published).await?;
            self.in_flight.marked(published.len());
        }
        Ok(())
    }
}

impl Checkpoints<Pending> for Marks {
    async fn resume(&self) -> Result<Resumed<Pending>, Cause> {
        // Messages that were chosen under one lease are not published under the next. A lease that is lost
        // drops this.
        while self.in_flight.has_calls() || !self.lease.allows(self.term, self.options.timeout) {
            tokio::time::sleep(CHECK).await;
        }
        self.mark().await?;
        self.in_flight.clear();
        let source = Pending {
            outbox: self.outbox.clone(),
            options: self.options,
            in_flight: self.in_flight.clone(),
            wake: self.wake.clone(),
            queue: VecDeque::new(),
            look: true,
            clean_at: Instant::now(),
        };
        Ok(Resumed { source, checkpoint: (), notice: None })
    }

    async fn write(&self, (): &mut ()) -> Result<(), WriteError> {
        self.mark().await.map_err(|error| WriteError::Unavailable(error.into()))
    }
}

/// The health of a publisher, as its runner changes it.
pub(crate) struct Reports(pub watch::Sender<Health>);

impl Observer<Pending> for Reports {
    fn resumed(&self, (): &(), _: Option<String>) {}

    fn reached(&self, _: &Reached<()>, _: bool, _: bool) {}

    fn failed(&self, error: String, _: Option<&Message>) {
        self.0.send_modify(|health| health.problem = Some(error));
    }

    fn recovered(&self, _: Option<()>) {
        self.0.send_if_modified(|health| health.problem.take().is_some());
    }
}
