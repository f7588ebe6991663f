//! The task of a subscriber: reads ahead, hands out, and moves the checkpoint behind what is finished.
//!
//! ```text
//! checkpoint ──┐
//!   finished   │ 41 done · 42 running · 43 waits (same stream as 42) · 44 done · 45 waits     window
//! ```
//!
//! The checkpoint is below the lowest position in the window that is not done; here it is 41.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use annals_core::{Backoff, Error, LogPage, LogRead, Position, Query, RecordedEvent, StreamId, Witness};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::checkpoint::Checkpoints;
use super::group::Share;
use super::{Handler, Handling};
use crate::Failure;
use crate::follow::{Followed, follow};
use crate::progress::Progress;
use crate::shared::Shared;
use crate::state::{Held, unavailable};
use crate::tasks::Stop;

/// Events that are read ahead for each stream that may be handled at once.
const WINDOW: usize = 64;
/// A checkpoint is written at the latest when this many positions without an event for the subscriber have
/// passed.
const PASSED_MAX: u64 = 10_000;
/// How long handlers may take to finish when the system stops.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) struct Delivery {
    pub name: Arc<str>,
    pub handlers: Arc<[Box<dyn Handler>]>,
    pub shared: Arc<Shared>,
    pub progress: Arc<Progress>,
    pub checkpoints: Checkpoints,
    pub concurrency: usize,
    pub backoff: Backoff,
    pub query: Query,
    /// If only the streams of a share are its concern.
    pub share: Option<Share>,
}

/// An event in the window.
struct Slot {
    position: Position,
    stream: StreamId,
    place: Place,
}

enum Place {
    Waiting(Box<RecordedEvent>),
    Running,
    Done(Witness),
}

/// What is read ahead and not yet behind the checkpoint.
struct Window {
    slots: VecDeque<Slot>,
    /// Everything up to here has been read.
    through: Position,
    /// The newest event that left the window.
    witness: Option<Witness>,
    /// Whether that was the end of the log when it was read.
    end: bool,
}

impl Delivery {
    /// Goes on until the system stops: after this position, or, if there may be other processes, after the checkpoint that
    /// they have left.
    pub async fn run(self, after: Position, mut stop: Stop) {
        while !stop.is_asked() {
            let Some(held) = stop.or(self.turn()).await else { break };
            let Some(mut held) = held else {
                self.deliver_from(after, stop.clone()).await;
                break;
            };
            tokio::select! {
                () = self.deliver_held(&mut stop) => {}
                // Handlers that are at work are dropped.
                () = held.lost() => {
                    tracing::warn!(subscriber = %self.name, "another process may go on with this subscriber");
                }
            }
        }
        self.progress.stopped();
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
        self.progress.takes_over();
        held
    }

    /// Goes on where whoever was active before has left off.
    pub(super) async fn deliver_held(&self, stop: &mut Stop) {
        match self.checkpoints.position().await {
            Ok(after) => self.deliver_from(after, stop.clone()).await,
            Err(error) => {
                let error = unavailable(error).chain();
                tracing::warn!(subscriber = %self.name, error, "the checkpoint cannot be read; it tries again");
                let attempts = self.progress.failed(error, None, self.shared.clock.now());
                stop.or(tokio::time::sleep(self.backoff.before(attempts))).await;
            }
        }
    }

    async fn deliver_from(&self, after: Position, stop: Stop) {
        let (pages, received) = mpsc::channel(1);
        let reading = self.read_ahead(after, pages);
        tokio::select! {
            () = reading => {}
            () = self.deliver(after, received, stop) => {}
        }
    }

    async fn read_ahead(&self, after: Position, pages: mpsc::Sender<LogPage>) {
        let mut read = LogRead::forward(after.next()).matching(self.query.clone());
        read.limit = WINDOW * self.concurrency;
        loop {
            let error = match self.shared.store.read_log(read.clone()).await {
                Ok(page) if page.next > read.from => {
                    read.from = page.next;
                    if pages.send(page).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(page) => {
                    // Nothing new; but it is worth knowing that this is the end.
                    if pages.send(page).await.is_err() {
                        return;
                    }
                    match self.shared.store.wait(read.from.previous()).await {
                        Ok(_) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(subscriber = %self.name, error = error.chain(), "the log cannot be read; it tries again");
            let attempts = self.progress.failed(error.chain(), None, self.shared.clock.now());
            tokio::time::sleep(self.backoff.before(attempts)).await;
        }
    }

    async fn deliver(&self, after: Position, mut pages: mpsc::Receiver<LogPage>, mut stop: Stop) {
        let mut window = Window { slots: VecDeque::new(), through: after, witness: None, end: false };
        let mut running: JoinSet<Option<Witness>> = JoinSet::new();
        let mut written = after;
        loop {
            self.start(&mut window, &mut running, &stop);
            tokio::select! {
                Some(page) = pages.recv(), if window.slots.len() < WINDOW * self.concurrency => window.push(page, self.share),
                Some(done) = running.join_next() => window.done(done),
                () = stop.asked() => break,
            }
            self.advance(&mut window, &mut written).await;
        }
        let finish = async {
            while let Some(done) = running.join_next().await {
                window.done(done);
            }
        };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::warn!(subscriber = %self.name, "handlers that did not end in time are cut off and told again");
        }
        self.advance(&mut window, &mut written).await;
    }

    /// Starts handlers for the oldest events whose streams are free.
    fn start(&self, window: &mut Window, running: &mut JoinSet<Option<Witness>>, stop: &Stop) {
        let mut taken = HashSet::new();
        for slot in &mut window.slots {
            if running.len() >= self.concurrency {
                return;
            }
            match &mut slot.place {
                Place::Done(_) => {}
                Place::Running => {
                    taken.insert(slot.stream.clone());
                }
                waiting @ Place::Waiting(_) => {
                    // Whatever waits before others of its stream goes first.
                    if taken.insert(slot.stream.clone())
                        && let Place::Waiting(event) = std::mem::replace(waiting, Place::Running)
                    {
                        running.spawn(self.handle(*event, stop.clone()));
                    }
                }
            }
        }
    }

    /// Tells the handlers of an event until they succeed. Nothing, if the system stops before.
    fn handle(
        &self,
        event: RecordedEvent,
        mut stop: Stop,
    ) -> impl Future<Output = Option<Witness>> + Send + 'static {
        let (name, handlers, shared) = (self.name.clone(), self.handlers.clone(), self.shared.clone());
        let (progress, backoff) = (self.progress.clone(), self.backoff);
        async move {
            let witness = Witness::of(&event);
            for attempt in 1.. {
                let Err(failure) = tell(&handlers, &event, &shared, &name, attempt).await else {
                    progress.worked_at(event.position);
                    return Some(witness);
                };
                let error = failure.to_string();
                tracing::warn!(subscriber = %name, position = %event.position, attempt, error, "an event failed");
                progress.failed(error, Some(event.position), shared.clock.now());
                tokio::select! {
                    () = tokio::time::sleep(backoff.before(attempt)) => {}
                    () = stop.asked() => return None,
                }
            }
            None
        }
    }

    /// Moves the checkpoint up to what is finished.
    async fn advance(&self, window: &mut Window, written: &mut Position) {
        let position = window.finished();
        if let Err(error) = self.write_checkpoint(window.witness, position, written).await {
            tracing::warn!(subscriber = %self.name, %error, "a checkpoint could not be written");
        }
        self.progress.reached(position);
        if window.slots.is_empty() {
            self.progress.worked();
            if window.end {
                self.progress.caught_up();
            }
        }
    }
}

impl Followed for Checkpoints {
    async fn checkpoint(&self) -> Result<Position, Failure> {
        Ok(self.position().await?)
    }

    async fn caught_up(&mut self) {}
}

impl Delivery {
    /// Moves the checkpoint to the newest event that is handled and, far behind it, to one that is of no concern.
    async fn write_checkpoint(
        &self,
        handled: Option<Witness>,
        finished: Position,
        written: &mut Position,
    ) -> Result<(), Error> {
        let far = finished.get() - written.get() >= PASSED_MAX;
        let at = if far { Witness::at(&*self.shared.store, finished).await? } else { handled };
        if let Some(at) = at.filter(|at| at.position > *written) {
            self.checkpoints.write(at).await.map_err(unavailable)?;
            *written = at.position;
        }
        Ok(())
    }
}

impl Window {
    fn push(&mut self, page: LogPage, share: Option<Share>) {
        let is_meant = |event: &RecordedEvent| share.is_none_or(|share| share.has(&event.stream));
        self.slots.extend(page.events.into_iter().filter(is_meant).map(|event| Slot {
            position: event.position,
            stream: event.stream.clone(),
            place: Place::Waiting(Box::new(event)),
        }));
        self.through = self.through.max(page.next.previous());
        self.end = page.end;
    }

    fn done(&mut self, done: Result<Option<Witness>, tokio::task::JoinError>) {
        // Panics of handlers are failures and do not come here.
        let Ok(Some(witness)) = done else { return };
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.position == witness.position) {
            slot.place = Place::Done(witness);
        }
    }

    /// Lets go of what is finished from the oldest on, and says up to where that is.
    fn finished(&mut self) -> Position {
        while let Some(Slot { place: Place::Done(witness), .. }) = self.slots.front() {
            self.witness = Some(*witness);
            self.slots.pop_front();
        }
        self.slots.front().map_or(self.through, |slot| slot.position.previous())
    }
}

/// Tells every handler that takes the event. One that fails does not keep the others from being told.
async fn tell(
    handlers: &[Box<dyn Handler>],
    event: &RecordedEvent,
    shared: &Arc<Shared>,
    subscriber: &Arc<str>,
    attempt: u32,
) -> Result<(), Failure> {
    let commanded = Arc::default();
    let mut failures = Vec::new();
    for handler in handlers.iter().filter(|handler| handler.types().contains(&event.event_type.as_str())) {
        let handling = Handling {
            shared: shared.clone(),
            subscriber: subscriber.clone(),
            stream: event.stream.clone(),
            position: event.position,
            event_id: event.id,
            metadata: event.metadata.clone(),
            attempt,
            commanded: Arc::clone(&commanded),
        };
        // The closure may panic before there is a future.
        let told = crate::failure::caught_later(async { handler.handle(event.clone(), handling).await });
        if let Err(failure) = told.await {
            failures.push(failure.to_string());
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("; "))) }
}
