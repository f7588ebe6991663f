//! The task of a subscriber: waits for the lease, and then delivers events from the checkpoint on
//! (`annals_consume::Runner`).
//!
//! The source is the log without the events of other shares ([`Undelivered`]), the effect calls the handlers
//! ([`Deliver`]).

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_consume::{
    Applied, Effect, Ladder, LogReader, Options, Read, Runner, SoFar, Source, Stopped, WriteError,
};
use annals_core::{Backoff, Cause, EventStore, Query, RecordedEvent, Seen, Witness};
use annals_state::{HeldLease, Lease};

use super::checkpoint::{CheckpointError, Checkpoints};
use super::division::Finished;
use super::group::Share;
use super::{Delivery, Handler};
use crate::HandlerError;
use crate::failure::{caught, caught_later};
use crate::follow::{Followed, follow};
use crate::handles::{Holders, inside};
use crate::progress::Progress;
use crate::reports::Reports;
use crate::repository::Delivered;
use crate::shared::Shared;
use crate::stop::Stop;
use crate::tasks::after_panic;

/// Most events of a page of the log.
const PAGE: usize = 1_000;
/// Events that are read ahead.
const WINDOW: usize = 4_000;
const WINDOW_BYTES: usize = 16 << 20;
/// Most events that a task handles before it returns to the runner.
const BATCH: usize = 256;
/// Interval at which the handled events of a batch are reported.
const BATCH_TIME: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub(super) struct SubscriberRunner {
    pub name: Arc<str>,
    pub handlers: Arc<[Box<dyn Handler>]>,
    /// The handlers that hold a handle.
    pub _holders: Arc<Holders>,
    pub shared: Arc<Shared>,
    pub progress: Arc<Progress>,
    pub checkpoints: Checkpoints,
    pub concurrency: usize,
    pub backoff: Backoff,
    pub query: Query,
    /// The share, if it handles only the streams of one.
    pub share: Option<Share>,
}

impl SubscriberRunner {
    /// Runs until the system stops.
    pub async fn run(self, mut stop: Stop) {
        loop {
            let work = async {
                self.take_turns(&mut stop).await;
                Ok(())
            };
            let Err(panic) = caught_later(work).await else { return };
            after_panic(&self.name, panic, &self.progress, &self.shared, &mut stop).await;
        }
    }

    async fn take_turns(&self, stop: &mut Stop) {
        while !stop.is_asked() {
            let Some(held) = stop.or(self.turn()).await else { return };
            let Some(mut held) = held else {
                self.deliver_held(stop, None).await;
                continue;
            };
            let lease = held.lease().clone();
            tokio::select! {
                () = self.deliver_held(stop, Some(&lease)) => {}
                // Running handlers are dropped.
                () = held.lost() => {
                    tracing::warn!(subscriber = %self.name, "the lease is lost; another process may have this subscriber");
                }
            }
        }
    }

    /// Waits for the lease, and tracks the progress of the lease holder meanwhile.
    async fn turn(&self) -> Option<HeldLease> {
        let mut followed = self.checkpoints.clone();
        let store = self.shared.store.clone();
        let held = tokio::select! {
            biased;
            held = self.checkpoints.hold() => held,
            () = follow(&self.name, store, &self.query, &self.progress, &mut followed) => None,
        };
        if held.is_some() {
            self.progress.takes_over();
        }
        held
    }

    /// Delivers events from the checkpoint on until the system stops. Only for the process that has the
    /// lease.
    pub(super) async fn deliver_held(&self, stop: &mut Stop, lease: Option<&Lease>) {
        let checkpoints = self.checkpoints.under(lease);
        let effect = Arc::new(Deliver { runner: self.clone(), stop: stop.clone() });
        let observer = Arc::new(Reports { known: self.progress.clone(), shared: self.shared.clone() });
        let options = Options {
            lanes: self.concurrency,
            batch_max: if self.concurrency == 1 { BATCH } else { 1 },
            // A subscriber that handles one event at a time handles them in the order of the log, even while
            // one fails.
            is_total: self.concurrency == 1,
            window_max: WINDOW,
            bytes_max: WINDOW_BYTES,
            backoff: self.backoff,
            ..Options::default()
        };
        let resume = Resume(Self { checkpoints, ..self.clone() });
        Runner::new(self.name.clone(), effect, resume, observer, options).run(stop).await;
    }
}

/// The events of a log that a subscriber, or a share of one, has to handle.
pub(super) struct Undelivered {
    reader: LogReader,
    store: Arc<dyn EventStore>,
    share: Option<Share>,
    /// The events that earlier divisions of the work had finished.
    finished: Finished,
    /// A page that was read, but could not be compared with the finished events yet.
    page: Option<Read<Self>>,
}

impl Undelivered {
    /// Drops the events of other shares, and those that an earlier division of the work had finished. The
    /// finished events are compared with the log after the page was read, so that events at the positions of
    /// lost ones are not dropped.
    async fn retain(&mut self, events: &mut Vec<RecordedEvent>) -> annals_core::Result<()> {
        if let Some(share) = self.share {
            events.retain(|event| share.has(event.stream()));
        }
        if events.iter().any(|event| self.finished.has(event.stream(), event.position())) {
            self.finished.step_back(&*self.store).await?;
            events.retain(|event| !self.finished.has(event.stream(), event.position()));
        }
        Ok(())
    }
}

impl Source for Undelivered {
    type Item = RecordedEvent;
    type Cursor = Witness;
    type Checkpoint = Ladder;

    fn key(event: &RecordedEvent) -> impl std::hash::Hash + '_ {
        LogReader::key(event)
    }

    fn name(event: &RecordedEvent) -> String {
        LogReader::name(event)
    }

    fn cursor(event: &RecordedEvent) -> Witness {
        LogReader::cursor(event)
    }

    fn bytes(event: &RecordedEvent) -> usize {
        LogReader::bytes(event)
    }

    fn advance(ladder: &mut Ladder, applied: &[Witness]) {
        LogReader::advance(ladder, applied);
    }

    async fn read(&mut self) -> Result<Read<Self>, Cause> {
        let page = match self.page.take() {
            Some(page) => page,
            None => match self.reader.read().await? {
                Read::Lost => Read::Lost,
                Read::Page { items, through, is_end } => Read::Page { items, through, is_end },
            },
        };
        let Read::Page { mut items, through, is_end } = page else { return Ok(Read::Lost) };
        let retained = self.retain(&mut items).await;
        let page = Read::Page { items, through, is_end };
        if let Err(error) = retained {
            self.page = Some(page);
            return Err(error.into());
        }
        Ok(page)
    }

    async fn wait(&mut self) -> Result<(), Cause> {
        Source::wait(&mut self.reader).await
    }
}

/// The checkpoint of a subscriber, as its runner sees it.
struct Resume(SubscriberRunner);

impl annals_consume::Checkpoints<Undelivered> for Resume {
    async fn resume(&self) -> Result<annals_consume::Resumed<Undelivered>, Cause> {
        let SubscriberRunner { shared, query, share, checkpoints, .. } = &self.0;
        let resumed = checkpoints.resume(&*shared.store).await.map_err(|error| match error {
            // The runner distinguishes transient errors by their kind.
            CheckpointError::Failed(error) => Cause::from(error),
            error => error.into(),
        })?;
        let store = shared.store.clone();
        let reader = LogReader::new(store.clone(), resumed.at, query.clone(), PAGE);
        let source = Undelivered { reader, store, share: *share, finished: resumed.finished, page: None };
        Ok(annals_consume::Resumed { source, checkpoint: resumed.ladder, notice: resumed.notice })
    }

    async fn write(&self, ladder: &mut Ladder) -> Result<(), WriteError> {
        match self.0.checkpoints.write(ladder).await {
            Ok(()) => Ok(()),
            Err(error @ (CheckpointError::Gone(_) | CheckpointError::LeaseLost(_))) => {
                Err(WriteError::Moved(error.into()))
            }
            Err(CheckpointError::Failed(error)) => Err(WriteError::Unavailable(error.into())),
            Err(error) => Err(WriteError::Unavailable(error.into())),
        }
    }
}

/// Calls the handlers of events.
struct Deliver {
    runner: SubscriberRunner,
    stop: Stop,
}

impl Effect<Undelivered> for Deliver {
    async fn apply(&self, events: &Arc<Vec<RecordedEvent>>, attempt: u32, so_far: &SoFar<'_>) -> Applied {
        let mut reported = Instant::now();
        for (index, event) in events.iter().enumerate() {
            if index > 0 && self.stop.is_asked() {
                return Applied::stopped(index, Stopped::Interrupted);
            }
            if reported.elapsed() >= BATCH_TIME {
                so_far.applied(index);
                reported = Instant::now();
            }
            let attempt = if index == 0 { attempt } else { 1 };
            let mut handling = pin!(self.runner.handle_once(event, attempt));
            // A handler may wait for long, so the events before it are reported first.
            let handled = std::future::poll_fn(|context| {
                let polled = handling.as_mut().poll(context);
                if polled.is_pending() {
                    so_far.applied(index);
                }
                polled
            });
            match handled.await {
                Ok(refusals) => self.runner.report(event, &refusals),
                Err(error) => return Applied::stopped(index, Stopped::Failed(error)),
            }
        }
        Applied::all(events.len())
    }
}

impl SubscriberRunner {
    /// Calls every handler of the event, even if one fails or ends in a refusal. Returns the refusals.
    async fn handle_once(&self, event: &RecordedEvent, attempt: u32) -> Result<Vec<String>, String> {
        let delivered = Arc::new(Delivered {
            subscriber: self.name.clone(),
            log: self.shared.store.id(),
            stream: event.stream_id(),
            position: event.position(),
            event_id: event.id(),
            part: 0,
            first: None,
            metadata: event.metadata(),
            commanded: Default::default(),
        });
        let (mut refusals, mut failures) = (Vec::new(), Vec::new());
        let event_type = event.event_type();
        for handler in self.handlers.iter().filter(|handler| handler.takes(event_type)) {
            let handling = Delivery { shared: self.shared.clone(), delivered: delivered.clone(), attempt };
            // The closure may panic before there is a future.
            let work = inside(async { handler.handle(event, handling).await });
            match caught_later(work).await {
                Ok(refused) => refusals.extend(refused.into_iter().map(HandlerError::into_text)),
                Err(failure) => {
                    // The error and its sources are the user's code, which may panic.
                    let is_refusal = caught(|| Ok(failure.is_refusal())).unwrap_or(false);
                    let into = if is_refusal { &mut refusals } else { &mut failures };
                    into.push(failure.into_text());
                }
            }
        }
        if failures.is_empty() { Ok(refusals) } else { Err(failures.join("; ")) }
    }

    /// Logs and counts refusals. A refusal is not a failure: the event is done.
    fn report(&self, event: &RecordedEvent, refusals: &[String]) {
        for refusal in refusals {
            tracing::info!(subscriber = %self.name, position = %event.position(), refusal, "a command was refused; the event is done");
        }
        if !refusals.is_empty() {
            self.progress.refused();
        }
    }
}

impl Followed for Checkpoints {
    async fn checkpoint(&self) -> Result<Seen, HandlerError> {
        Ok(self.seen().await?)
    }

    async fn caught_up(&mut self) {}

    async fn waits_for(&mut self) -> Option<String> {
        Checkpoints::waits_for(self).await
    }
}
