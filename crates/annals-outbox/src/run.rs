//! The task of a publisher: chooses messages, hands each aggregate's to a worker, and marks what was published.
//!
//! ```text
//! choose ──> queue: one entry for each aggregate ──> workers (at most `concurrency`) ──> sink
//!                                                       │ outcomes
//!               mark, all that have come in at once <───┘
//! ```
//!
//! - R1  An aggregate is active from when its messages are handed to a worker until what came of them is in the tables. No
//!       message of an active aggregate is chosen. So messages of one aggregate are published one after the other.
//! - R2  A message is marked after the sink has taken it, never before. A process that ends between the two leaves it to be
//!       published again.
//! - R3  A worker ends at the first message that is not taken. What is behind it is chosen again, in its turn.
//! - R4  Nothing here waits for a lock that a transaction of the service may hold, except to record a dead letter, which a
//!       task of its own does.
//!
//! - R5  The lease is given back when no call of the sink is under way. If one does not end, the lease expires.
//!
//! Next: `worker`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::Backoff;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::health::Health;
use crate::lease::{Kept, Lease};
use crate::message::{Aggregate, Message};
use crate::pending::Published;
use crate::sink::Sink;
use crate::worker::{End, Leaving, Outcome, Worker, is_stopped};
use crate::{Options, Outbox, Result};

/// How long what is under way may take after a stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long a publisher that ends may take to cancel its workers and give the lease back.
const END: Duration = Duration::from_secs(30);
/// Between attempts to reach a sink or a database that is away.
pub(crate) const AWAY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// How many processed messages are deleted at once, and how long nothing is looked for when there were fewer.
const CLEANED_AT_ONCE: usize = 1_000;
const CLEAN_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Run {
    outbox: Outbox,
    options: Options,
    wake: Arc<Notify>,
    stopped: watch::Receiver<bool>,
    health: watch::Sender<Health>,
    lease: Arc<Lease>,
    worker: Worker,
    workers: JoinSet<()>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// What was chosen and is with no worker yet.
    queue: VecDeque<(Aggregate, Vec<Message>)>,
    active: HashSet<Aggregate>,
    published: Vec<Published>,
    ended: Vec<(Aggregate, End)>,
    /// The term under which the queue was filled.
    term: u64,
    /// Whether there may be something to choose.
    look: bool,
    /// How often the sink was away since it last took something, and until when it is left alone.
    away: u32,
    paused: Option<Instant>,
    clean_at: Instant,
}

impl Run {
    pub(crate) fn new(
        outbox: Outbox,
        sink: Arc<dyn Sink>,
        options: Options,
        wake: Arc<Notify>,
        stopped: watch::Receiver<bool>,
        health: watch::Sender<Health>,
    ) -> Self {
        let lease = Arc::new(Lease::new(options.lease));
        let (sender, outcomes) = mpsc::unbounded_channel();
        let worker = Worker::new(sink, lease.clone(), options.timeout, stopped.clone(), sender);
        Self {
            outbox,
            options,
            wake,
            stopped,
            health,
            lease,
            worker,
            workers: JoinSet::new(),
            outcomes,
            queue: VecDeque::new(),
            active: HashSet::new(),
            published: Vec::new(),
            ended: Vec::new(),
            term: 0,
            look: true,
            away: 0,
            paused: None,
            clean_at: Instant::now(),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        let too_late = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = self.work() => {}
            () = too_late => tracing::warn!(
                "the outbox `{}` is left before all was marked: some messages will be published again", self.outbox.name
            ),
        }
        // Workers end before the lease does, so that no call of the sink is under way when another publisher begins.
        let ended = async {
            self.workers.shutdown().await;
            self.lease.release(&self.outbox).await.map_err(|error| error.to_string())
        };
        let released = tokio::time::timeout(END, ended).await;
        let released =
            released.unwrap_or_else(|_| Err("a call of the sink, or the database, does not end".to_owned()));
        if let Err(error) = released {
            tracing::warn!(error, "the lease of the outbox `{}` runs out by itself", self.outbox.name);
        }
    }

    /// Works until it is stopped and nothing is under way; goes on when the database was away.
    async fn work(&mut self) {
        let mut failed = 0;
        while let Err(error) = self.go_on(&mut failed).await {
            failed += 1;
            let error = error.to_string();
            tracing::warn!(error, failed, "the outbox `{}` cannot be read or written", self.outbox.name);
            self.health.send_modify(|health| health.problem = Some(error));
            if is_stopped(&self.stopped) && failed > 1 {
                tracing::warn!(
                    "the outbox `{}` is left: some messages will be published again",
                    self.outbox.name
                );
                return;
            }
            let mut stopped = self.stopped.clone();
            tokio::select! {
                () = tokio::time::sleep(AWAY.before(failed)) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            self.look = true;
        }
    }

    /// Works until it is stopped and nothing is under way, or the database fails.
    async fn go_on(&mut self, failed: &mut u32) -> Result<()> {
        loop {
            self.settle().await?;
            if is_stopped(&self.stopped) {
                if self.active.is_empty() {
                    return Ok(());
                }
            } else {
                let mut stopped = self.stopped.clone();
                tokio::select! {
                    biased;
                    // All that is dropped here is a question, or changes the tables in one statement.
                    _ = stopped.wait_for(|stopped| *stopped) => continue,
                    done = self.hand_out() => done?,
                }
                if std::mem::take(failed) > 0 {
                    self.health.send_modify(|health| health.problem = None);
                }
            }
            self.wait().await;
        }
    }

    /// Gives messages to workers, if this publisher has the lease and the sink is there.
    async fn hand_out(&mut self) -> Result<()> {
        let (term, waits_for) = match self.lease.keep(&self.outbox).await? {
            Kept::Held(term) => (Some(term), None),
            Kept::Waits { other, long } => (None, long.then(|| other.to_string())),
        };
        self.health.send_if_modified(|health| {
            let active = std::mem::replace(&mut health.active, term.is_some()) != term.is_some();
            let waits_for = std::mem::replace(&mut health.waits_for, waits_for.clone()) != waits_for;
            active || waits_for
        });
        if term != Some(self.term) {
            self.queue.clear();
            self.look = true;
        }
        let Some(term) = term else { return Ok(()) };
        self.term = term;
        self.clean().await?;
        if self.paused.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        loop {
            while self.active.len() < self.options.concurrency
                && let Some((aggregate, messages)) = self.queue.pop_front()
            {
                self.active.insert(aggregate.clone());
                self.workers.spawn(self.worker.clone().publish(aggregate, messages, term));
            }
            if self.active.len() == self.options.concurrency || !self.look {
                return Ok(());
            }
            let (room, batch) = (self.options.concurrency, self.options.batch);
            let wait_max = self.options.backoff.longest();
            let chosen = self.outbox.choose(self.active.iter(), room, batch, wait_max).await?;
            self.look = !chosen.is_empty();
            self.queue = by_aggregate(chosen);
        }
    }

    async fn clean(&mut self) -> Result<()> {
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

    /// Brings what has come of messages into the tables, and lets aggregates go whose workers have ended.
    async fn settle(&mut self) -> Result<()> {
        if !self.published.is_empty() {
            self.outbox.mark(&self.published).await?;
            self.published.clear();
        }
        while let Some((aggregate, end)) = self.ended.pop() {
            let done = match end {
                End::Done => Ok(()),
                End::Unavailable(error) => {
                    self.pause(error);
                    Ok(())
                }
                End::Refused(message, error) => {
                    // The aggregate stays active until this is recorded.
                    self.record(aggregate, message, error);
                    continue;
                }
                End::Recorded(recorded) => recorded,
            };
            self.active.remove(&aggregate);
            self.look = true;
            done?;
        }
        Ok(())
    }

    /// Records a refusal in a task of its own: a dead letter waits for transactions that write for its aggregate.
    fn record(&mut self, aggregate: Aggregate, message: Box<Message>, error: String) {
        self.health.send_modify(|health| health.refused += 1);
        let again = message.attempt < self.options.attempts_max && !message.nameless;
        let again = again.then(|| self.options.backoff.before(message.attempt));
        let (id, attempt, name) = (message.id, message.attempt, aggregate.to_string());
        match again {
            Some(wait) => tracing::warn!(%id, attempt, error, ?wait, "a message of {name} is refused"),
            None => {
                tracing::error!(%id, attempt, error, "a message of {name} is a dead letter; {name} waits for it")
            }
        }
        let (outbox, outcomes) = (self.outbox.clone(), self.worker.outcomes.clone());
        self.workers.spawn(async move {
            let leaving = Leaving::new(aggregate, outcomes);
            let recorded = outbox.record(&message, &error, again).await;
            leaving.end(End::Recorded(recorded));
        });
    }

    /// Leaves the sink alone for a while.
    fn pause(&mut self, error: String) {
        // Several workers may find out at once.
        if self.paused.is_none_or(|until| until <= Instant::now()) {
            self.away += 1;
            let wait = AWAY.before(self.away);
            tracing::warn!(error, ?wait, "the sink of the outbox `{}` is away", self.outbox.name);
            self.paused = Some(Instant::now() + wait);
        }
        self.queue.clear();
        self.health.send_modify(|health| health.problem = Some(error));
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let left = self.paused.map(|until| until.saturating_duration_since(Instant::now()));
        let time =
            left.filter(|left| !left.is_zero()).map_or(self.options.poll, |left| left.min(self.options.poll));
        let stopped_before = is_stopped(&self.stopped);
        let mut came = Vec::new();
        tokio::select! {
            _ = self.outcomes.recv_many(&mut came, CLEANED_AT_ONCE) => {}
            () = self.wake.notified() => self.look = true,
            () = tokio::time::sleep(time) => self.look = true,
            _ = self.stopped.changed(), if !stopped_before => {}
        }
        while self.workers.try_join_next().is_some() {}
        for outcome in came {
            match outcome {
                Outcome::Published(published) => {
                    (self.away, self.paused) = (0, None);
                    self.published.push(published);
                }
                Outcome::Ended(aggregate, end) => self.ended.push((aggregate, end)),
            }
        }
        if !self.published.is_empty() {
            let count = self.published.len() as u64;
            self.health.send_modify(|health| {
                health.published += count;
                health.problem = None;
            });
        }
    }
}

/// Messages of each aggregate, in their order; the aggregates in the order of their first messages.
fn by_aggregate(messages: Vec<Message>) -> VecDeque<(Aggregate, Vec<Message>)> {
    let mut places = std::collections::HashMap::new();
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
