//! The task of a subscriber: reads ahead, hands out, and moves the checkpoint behind what is finished.
//!
//! ```text
//! checkpoint ──┐
//!   finished   │ 41 done · 42 running · 43 waits (same stream as 42) · 44 done · 45 waits     window
//! ```
//!
//! The checkpoint is below the lowest position in the window that is not done; here it is 41. When nothing is under way it
//! follows what was read, also over events that are not meant, at the latest after [`PASSED_AFTER`] and when the system
//! stops.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use annals_consume::{Found, Ladder, LogReader};
use annals_core::{Backoff, Error, Position, Query, RecordedEvent, Seen, StreamId, Witness};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::checkpoint::{CheckpointError, Checkpoints, Resumed};
use super::division::Finished;
use super::group::Share;
use super::{Handler, Handling};
use crate::Failure;
use crate::failure::{caught, caught_later};
use crate::follow::{Followed, follow};
use crate::handles::{Holders, inside};
use crate::progress::Progress;
use crate::repository::Delivered;
use crate::shared::Shared;
use crate::state::Held;
use crate::stop::Stop;
use crate::tasks::after_panic;

/// Events that are read ahead for each stream that may be handled at once.
const WINDOW: usize = 64;
/// A checkpoint is written at the latest when this many positions without an event for the subscriber have
/// passed, or this much time while nothing is under way.
const PASSED_MAX: u64 = 10_000;
const PASSED_AFTER: Duration = Duration::from_secs(2);
/// How long handlers may take to finish when the system stops.
const GRACE: Duration = Duration::from_secs(10);

pub(super) struct Delivery {
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
    /// If it handles only the streams of a share.
    pub share: Option<Share>,
}

/// An event in the window.
struct Slot {
    position: Position,
    stream: StreamId,
    place: Place,
}

enum Place {
    Waiting(Arc<RecordedEvent>, Duration),
    /// In this task.
    Running(Arc<RecordedEvent>, Id),
    Done(Witness),
}

/// What was read ahead and is not yet behind the checkpoint.
struct Window {
    slots: VecDeque<Slot>,
    /// Everything up to here has been read.
    through: Witness,
    /// Ends at the newest event that left the window.
    ladder: Ladder,
    /// Whether `through` was the end of the log when it was read.
    end: bool,
}

/// A page of the log, as it is handed to the window.
struct Page {
    events: Vec<RecordedEvent>,
    through: Witness,
    end: bool,
}

/// The checkpoint as it was written last.
struct Written {
    position: Position,
    at: Instant,
}

type Running = JoinSet<Option<Witness>>;

impl Delivery {
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
                self.deliver_held(stop).await;
                continue;
            };
            tokio::select! {
                () = async {
                    while !stop.is_asked() {
                        self.deliver_held(stop).await;
                    }
                } => {}
                // Handlers that are at work are dropped.
                () = held.lost() => {
                    tracing::warn!(subscriber = %self.name, "the lease is lost; another process may have this subscriber");
                }
            }
        }
    }

    /// Waits until it is the turn of this process, and follows what is done meanwhile.
    async fn turn(&self) -> Option<Held> {
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

    /// Resumes at the checkpoint, and delivers until the system stops or something is wrong with it.
    pub(super) async fn deliver_held(&self, stop: &mut Stop) {
        let Some(resumed) = stop.or(self.checkpoints.resume(&*self.shared.store)).await else { return };
        match resumed {
            Ok(resumed) => {
                self.progress.resumes_at(resumed.at.position);
                if resumed.notice.is_some() {
                    self.progress.notes(resumed.notice.clone());
                }
                self.deliver_from(resumed, stop.clone()).await;
            }
            Err(error) => self.wait_after(error, stop).await,
        }
    }

    async fn wait_after(&self, error: CheckpointError, stop: &mut Stop) {
        let error = Failure::from(error).into_text();
        tracing::warn!(subscriber = %self.name, error, "a checkpoint cannot be used; it is tried again");
        let attempts = self.progress.failed(error, None, self.shared.now());
        stop.or(tokio::time::sleep(self.backoff.before(attempts))).await;
    }

    async fn deliver_from(&self, resumed: Resumed, stop: Stop) {
        let (pages, received) = mpsc::channel(1);
        let limit = WINDOW * self.concurrency;
        let reader = LogReader::new(self.shared.store.clone(), resumed.at, self.query.clone(), limit);
        let window =
            Window { slots: VecDeque::new(), through: resumed.at, ladder: resumed.ladder, end: false };
        tokio::select! {
            () = self.read_ahead(reader, resumed.finished, pages) => {}
            () = self.deliver(window, received, stop) => {}
        }
    }

    /// Reads until the log has lost what was read.
    async fn read_ahead(&self, mut reader: LogReader, mut finished: Finished, pages: mpsc::Sender<Page>) {
        loop {
            let before = reader.seen().position;
            let error = match reader.next().await {
                Ok(Found::Lost) => {
                    tracing::warn!(subscriber = %self.name, position = %before, "the log has lost events that were read");
                    return;
                }
                Ok(Found::Page { mut events, through, end }) => {
                    self.keep_unfinished(&mut finished, &mut events).await;
                    // Also without anything new it is worth knowing that this is the end.
                    if pages.send(Page { events, through, end }).await.is_err() {
                        return;
                    }
                    if through.position > before {
                        continue;
                    }
                    match reader.wait().await {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.wait_after_read(error).await;
        }
    }

    /// Drops the events of other shares, and those that another division of the work had finished. What that had finished is
    /// compared with the log after the page was read, so lost events hide none that took their positions.
    async fn keep_unfinished(&self, finished: &mut Finished, events: &mut Vec<RecordedEvent>) {
        if let Some(share) = self.share {
            events.retain(|event| share.has(&event.stream));
        }
        while events.iter().any(|event| finished.has(&event.stream, event.position)) {
            match finished.step_back(&*self.shared.store).await {
                Ok(()) => break,
                Err(error) => self.wait_after_read(error).await,
            }
        }
        events.retain(|event| !finished.has(&event.stream, event.position));
    }

    async fn wait_after_read(&self, error: Error) {
        let error = Failure::from(error).into_text();
        tracing::warn!(subscriber = %self.name, error, "the log cannot be read; it is tried again");
        let attempts = self.progress.failed(error, None, self.shared.now());
        tokio::time::sleep(self.backoff.before(attempts)).await;
    }

    async fn deliver(&self, mut window: Window, mut pages: mpsc::Receiver<Page>, mut stop: Stop) {
        let mut running = Running::new();
        let mut written = Written { position: window.through.position, at: Instant::now() };
        loop {
            self.start(&mut window, &mut running, &stop);
            tokio::select! {
                Some(page) = pages.recv(), if window.slots.len() < WINDOW * self.concurrency => window.push(page),
                Some(done) = running.join_next() => self.done(&mut window, done),
                () = tokio::time::sleep_until(written.at + PASSED_AFTER), if window.is_ahead_of(&written) => {}
                () = stop.asked() => break,
            }
            if self.advance(&mut window, &mut written, false).await.is_err() {
                return;
            }
        }
        let finish = async {
            while let Some(done) = running.join_next().await {
                self.done(&mut window, done);
            }
        };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::warn!(subscriber = %self.name, "handlers that did not end in time are cut off; their events come again");
        }
        let _ = self.advance(&mut window, &mut written, true).await;
    }

    /// Starts handlers for the oldest events whose streams are free.
    fn start(&self, window: &mut Window, running: &mut Running, stop: &Stop) {
        let mut taken = HashSet::new();
        for slot in &mut window.slots {
            if running.len() >= self.concurrency {
                return;
            }
            match &mut slot.place {
                Place::Done(_) => {}
                Place::Running(..) => {
                    taken.insert(slot.stream.clone());
                }
                Place::Waiting(event, pause) => {
                    // What waits before others of its stream goes first.
                    if taken.insert(slot.stream.clone()) {
                        let event = event.clone();
                        let task = running.spawn(self.handle(event.clone(), *pause, stop.clone()));
                        slot.place = Place::Running(event, task.id());
                    }
                }
            }
        }
    }

    /// Retries the handlers of an event until none fails. A refusal is no failure. `None` if the system stops before.
    fn handle(
        &self,
        event: Arc<RecordedEvent>,
        pause: Duration,
        mut stop: Stop,
    ) -> impl Future<Output = Option<Witness>> + Send + 'static {
        let (name, handlers, shared) = (self.name.clone(), self.handlers.clone(), self.shared.clone());
        let (progress, backoff) = (self.progress.clone(), self.backoff);
        async move {
            let witness = Witness::of(&event);
            // A sleep of no time waits for the next tick of the timer.
            if !pause.is_zero() {
                stop.or(tokio::time::sleep(pause)).await?;
            }
            for attempt in 1.. {
                let error = match handle_once(&handlers, &event, &shared, &name, attempt).await {
                    Ok(refusals) => {
                        for refusal in &refusals {
                            tracing::info!(subscriber = %name, position = %event.position, refusal, "a command was refused; the event is done");
                        }
                        if !refusals.is_empty() {
                            progress.refused();
                        }
                        progress.worked_at(event.position);
                        return Some(witness);
                    }
                    Err(error) => error,
                };
                tracing::warn!(subscriber = %name, position = %event.position, attempt, error, "an event failed");
                progress.failed(error, Some(event.position), shared.now());
                stop.or(tokio::time::sleep(backoff.before(attempt))).await?;
            }
            None
        }
    }

    /// A handler's task has ended.
    fn done(&self, window: &mut Window, done: Result<Option<Witness>, JoinError>) {
        match done {
            Ok(Some(witness)) => window.done(witness),
            // The system stops; the event comes again.
            Ok(None) => {}
            // A panic of a handler is a failure and does not come here; whatever else ends a task badly must not hold the
            // stream up for good.
            Err(error) => {
                let Some(slot) = window.running(error.id()) else { return };
                let error = Failure::from(error).into_text();
                tracing::error!(subscriber = %self.name, position = %slot.position, error, "a task of a handler panicked");
                let attempts = self.progress.failed(error, Some(slot.position), self.shared.now());
                if let Place::Running(event, _) = &slot.place {
                    slot.place = Place::Waiting(event.clone(), self.backoff.before(attempts));
                }
            }
        }
    }

    /// Moves the checkpoint up to what is finished. An error means that there is no checkpoint to move any more.
    async fn advance(&self, window: &mut Window, written: &mut Written, stopping: bool) -> Result<(), ()> {
        let finished = window.finished();
        match self.write_checkpoint(window, finished, written, stopping).await {
            Ok(true) => self.progress.worked_at(finished),
            Ok(false) => {}
            Err(error) => {
                let gone = matches!(error, CheckpointError::Gone(_));
                let error = Failure::from(error).into_text();
                tracing::warn!(subscriber = %self.name, error, "a checkpoint could not be written; it is tried again");
                self.progress.failed(error, None, self.shared.now());
                written.at = Instant::now();
                if gone {
                    return Err(());
                }
                self.progress.reached(finished);
                return Ok(());
            }
        }
        self.progress.reached(finished);
        if window.slots.is_empty() {
            self.progress.worked();
            if window.end {
                self.progress.caught_up();
            }
        }
        Ok(())
    }

    /// Moves the checkpoint to the newest event that is handled, and from time to time over events that are not meant.
    /// Returns whether it was written.
    async fn write_checkpoint(
        &self,
        window: &mut Window,
        finished: Position,
        written: &mut Written,
        stopping: bool,
    ) -> Result<bool, CheckpointError> {
        let far = finished.get().saturating_sub(written.position.get()) >= PASSED_MAX;
        if far || stopping || written.at.elapsed() >= PASSED_AFTER {
            if let Some(through) = window.through_of(finished) {
                window.ladder.push(through);
            } else if let store = &*self.shared.store
                && let Some(passed) = Witness::at(store, finished).await?
                // Else it is of another history than what the window has.
                && window.through.holds(store).await?
                && window.ladder.newest().is_none_or(|newest| newest.position < passed.position)
            {
                window.ladder.push(passed);
            }
        }
        let Some(newest) = window.ladder.newest().filter(|newest| newest.position > written.position) else {
            return Ok(false);
        };
        self.checkpoints.write(&window.ladder).await?;
        *written = Written { position: newest.position, at: Instant::now() };
        Ok(true)
    }
}

impl Followed for Checkpoints {
    async fn checkpoint(&self) -> Result<Seen, Failure> {
        Ok(self.seen().await?)
    }

    async fn caught_up(&mut self) {}

    async fn waits_for(&mut self) -> Option<String> {
        Checkpoints::waits_for(self).await
    }
}

impl Window {
    fn push(&mut self, page: Page) {
        self.slots.extend(page.events.into_iter().map(|event| Slot {
            position: event.position,
            stream: event.stream.clone(),
            place: Place::Waiting(Arc::new(event), Duration::ZERO),
        }));
        self.through = page.through;
        self.end = page.end;
    }

    fn done(&mut self, witness: Witness) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.position == witness.position) {
            slot.place = Place::Done(witness);
        }
    }

    /// The slot whose event this task handles.
    fn running(&mut self, task: Id) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| matches!(&slot.place, Place::Running(_, id) if *id == task))
    }

    /// Drops what is finished from the oldest on, and returns up to where that is.
    fn finished(&mut self) -> Position {
        while let Some(Slot { place: Place::Done(witness), .. }) = self.slots.front() {
            self.ladder.push(*witness);
            self.slots.pop_front();
        }
        self.slots.front().map_or(self.through.position, |slot| slot.position.previous())
    }

    /// The witness of what is finished, if that is all that was read.
    fn through_of(&self, finished: Position) -> Option<Witness> {
        Some(self.through).filter(|through| through.position == finished)
    }

    /// Whether the checkpoint could be moved.
    fn is_ahead_of(&self, written: &Written) -> bool {
        let finished = self.slots.front().map_or(self.through.position, |slot| slot.position.previous());
        finished > written.position
    }
}

/// Calls every handler that takes the event. One that fails, or ends in a refusal, does not keep the others from being called.
/// Returns the refusals.
async fn handle_once(
    handlers: &[Box<dyn Handler>],
    event: &RecordedEvent,
    shared: &Arc<Shared>,
    subscriber: &Arc<str>,
    attempt: u32,
) -> Result<Vec<String>, String> {
    let delivered = Arc::new(Delivered {
        subscriber: subscriber.clone(),
        log: shared.store.id(),
        stream: event.stream.clone(),
        position: event.position,
        event_id: event.id,
        metadata: event.metadata.clone(),
        commanded: Default::default(),
    });
    let (mut refusals, mut failures) = (Vec::new(), Vec::new());
    for handler in handlers.iter().filter(|handler| handler.types().contains(&event.event_type.as_str())) {
        let handling = Handling { shared: shared.clone(), delivered: delivered.clone(), attempt };
        // The closure may panic before there is a future.
        let work = inside(async { handler.handle(event.clone(), handling).await });
        if let Err(failure) = caught_later(work).await {
            // The error is a user's, and what it has behind it too.
            let is_refusal = caught(|| Ok(failure.is_refusal())).unwrap_or(false);
            let into = if is_refusal { &mut refusals } else { &mut failures };
            into.push(failure.into_text());
        }
    }
    if failures.is_empty() { Ok(refusals) } else { Err(failures.join("; ")) }
}
