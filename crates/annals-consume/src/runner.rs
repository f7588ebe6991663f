//! The one loop of all consumers: reads ahead, applies, retries, and advances the checkpoint past applied
//! items.
//!
//! ```text
//! Source::read ──> window ──> lanes: Effect::apply        each a task
//!                    │ applied
//!                    └──> Checkpoints::write              in batches
//! ```
//!
//! - R1  The checkpoint is written after everything that it covers was applied. After a crash between the
//!       two, items are applied again: those since the last write ([`Options::write_every`], [`COUNT`]), and
//!       those in the window after one that is slow or fails.
//! - R2  Items of one key are applied in order, one after the other. One that fails is retried after a pause;
//!       items of other keys do not wait for it, unless the order is total.
//! - R3  A session ends when the source has lost items that were read, when another process has moved the
//!       checkpoint or the rows, or when a stop is requested. It writes the checkpoint of the applied items,
//!       and the next session resumes there.
//! - R4  After a stop, calls of the effect may finish within [`Options::grace`]; then the checkpoint is
//!       written, within the same time again. A runner that is dropped ends at once and writes nothing, as
//!       when its lease is lost. In both cases a call of the effect that blocks its thread ends later.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Backoff, Cause, caught, chain, panic_text};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::blocking::{Dropped, on_blocking_threads};
use crate::effect::{Applied, Effect, SoFar, Stopped};
use crate::source::{Checkpoints, Read, Resumed, Source, WriteError};
use crate::stop::Stop;
use crate::window::{Batch, Reached, Settled, Window};

/// A checkpoint is written at the latest when this many items were applied.
const COUNT: usize = 10_000;
/// Most calls whose items wait to be dropped by the runner.
const RELEASED_MAX: usize = 4;
/// How long a session waits for cancelled calls to end.
const CANCEL: Duration = Duration::from_secs(1);
/// A checkpoint that only moves past items that the source filtered out is written this long after the last
/// one.
const PASSED: Duration = Duration::from_secs(2);

/// The options of a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many calls of the effect run concurrently, on items of different keys.
    pub lanes: usize,
    /// Most items of one call of the effect. With several lanes, the later items of a call wait for a slow
    /// one.
    pub batch_max: usize,
    /// Whether calls of the effect block their thread. They are made on threads for blocking work then. A
    /// call that blocks a thread of the runtime also holds back the tasks that wait for this thread.
    pub is_blocking: bool,
    /// Whether an item is applied only after all earlier ones, whatever their keys. For one lane.
    pub is_total: bool,
    /// Most items that are read ahead.
    pub window_max: usize,
    /// Most bytes of the items that are read ahead; exceeded by at most one page.
    pub bytes_max: usize,
    /// The pause before a retry.
    pub backoff: Backoff,
    /// A checkpoint is written at the latest this long after an item was applied.
    pub write_every: Duration,
    /// Time limit of the calls of the effect that are in progress at a stop.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lanes: 1,
            batch_max: 1,
            is_blocking: false,
            is_total: false,
            window_max: 4_000,
            bytes_max: 16 << 20,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(30)),
            write_every: Duration::from_millis(100),
            grace: Duration::from_secs(10),
        }
    }
}

/// Receives the progress of a consumer, for its status. Called often: it must not block.
pub trait Observer<S: Source>: Send + Sync + 'static {
    /// The consumer resumes at this checkpoint. `notice` is a message for operators.
    fn resumed(&self, checkpoint: &S::Checkpoint, notice: Option<String>);

    /// Everything up to this place is applied. With `is_all`, so are all items that were read, and none
    /// fails; with `is_end`, that was everything that the source had.
    fn reached(&self, reached: &Reached<S::Cursor>, is_all: bool, is_end: bool);

    /// An item failed and is retried. `None` if no item can be applied or read.
    fn failed(&self, error: String, item: Option<&S::Item>);

    /// The item at this place no longer fails. `None`: items can be read and applied again; also reported at
    /// the first read of a session.
    fn recovered(&self, at: Option<S::Cursor>);
}

/// A consumer: items of a source, an effect on them, and a checkpoint.
pub struct Runner<S, E, K, O> {
    name: Arc<str>,
    effect: Arc<E>,
    checkpoints: K,
    observer: Arc<O>,
    options: Options,
    source: PhantomData<fn(S)>,
}

/// Why a session ended.
enum End {
    /// The effect has stopped with [`Stopped::Moved`].
    Moved,
    /// The source has lost items that were read.
    Lost,
    /// Another process has moved the checkpoint.
    Elsewhere,
    /// The source or a task of the runner panicked. Panics of the effect are caught.
    Panicked(String),
    Stopped,
}

impl<S, E, K, O> Runner<S, E, K, O>
where
    S: Source,
    E: Effect<S>,
    K: Checkpoints<S>,
    O: Observer<S>,
{
    /// Makes a consumer. The name is for messages.
    pub fn new(
        name: impl Into<Arc<str>>,
        effect: Arc<E>,
        checkpoints: K,
        observer: Arc<O>,
        options: Options,
    ) -> Self {
        Self { name: name.into(), effect, checkpoints, observer, options, source: PhantomData }
    }

    /// Consumes until a stop is requested. Only the lease holder may call it, and must drop it when the lease
    /// is lost.
    pub async fn run(&self, stop: &mut Stop) {
        // Failures since the last success.
        let mut failures = 0;
        while !stop.is_asked() {
            let Some(resumed) = stop.or(self.checkpoints.resume()).await else { return };
            let resumed = match resumed {
                Ok(resumed) => resumed,
                Err(cause) => {
                    let error = report(&self.name, &cause, "a consumer cannot resume");
                    self.observer.failed(error, None);
                    failures += 1;
                    stop.or(tokio::time::sleep(self.options.backoff.before(failures))).await;
                    continue;
                }
            };
            let (end, has_worked) = self.session(resumed, stop).await;
            failures = if has_worked { 0 } else { failures };
            match end {
                End::Stopped => return,
                End::Moved => {}
                End::Lost | End::Elsewhere => {
                    // The first time without a pause: it happens once when events are lost.
                    if failures > 0 {
                        stop.or(tokio::time::sleep(self.options.backoff.before(failures))).await;
                    }
                    failures += 1;
                }
                End::Panicked(error) => {
                    let error = format!("the task {error}");
                    tracing::error!(consumer = %self.name, error, "a task of a consumer panicked; the consumer resumes");
                    self.observer.failed(error, None);
                    failures += 1;
                    stop.or(tokio::time::sleep(self.options.backoff.before(failures))).await;
                }
            }
        }
    }

    /// Consumes from a checkpoint on. Returns why the session ended, and whether it made progress: it applied
    /// an item, or, if another process has moved the checkpoint, wrote one.
    async fn session(&self, resumed: Resumed<S>, stop: &mut Stop) -> (End, bool) {
        let Resumed { source, mut checkpoint, notice } = resumed;
        self.observer.resumed(&checkpoint, notice);
        let session = Arc::new(Session::new(self));
        let mut reader = JoinSet::new();
        reader.spawn(session.clone().read(source));
        let mut lanes = JoinSet::new();
        for _ in 0..self.options.lanes.max(1) {
            lanes.spawn(session.clone().apply());
        }
        let (mut written, mut pages, mut has_applied) = (Written::default(), 0, false);
        let end = loop {
            let found = session.collect(&mut pages);
            has_applied |= !found.applied.is_empty();
            let advance = self.advance(&session, &found, &mut checkpoint, &mut written);
            let due = match self.in_time(stop, advance).await {
                Some(Ok(due)) => due,
                Some(Err(end)) => break end,
                None => {
                    tracing::warn!(consumer = %self.name, "a checkpoint is not written in time after the stop");
                    return (End::Stopped, has_applied);
                }
            };
            let next = [due, found.wake].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.asked() => {
                    reader.abort_all();
                    self.finish(&session, &mut lanes).await;
                    break End::Stopped;
                }
                Some(ended) = reader.join_next() => break of(ended, End::Lost),
                Some(ended) = lanes.join_next() => break of(ended, End::Moved),
                () = session.moved.notified() => {}
                () = at(next) => {}
            }
        };
        if matches!(end, End::Moved) {
            // The other lanes finish the items that they have begun.
            self.finish(&session, &mut lanes).await;
        }
        reader.abort_all();
        lanes.abort_all();
        if !matches!(end, End::Stopped) {
            // No call of this session may overlap with the next one.
            let ended = async {
                while reader.join_next().await.is_some() {}
                while lanes.join_next().await.is_some() {}
                // The call of an aborted lane may still block its thread.
                let _ = session.running.subscribe().wait_for(|running| *running == 0).await;
            };
            if stop.or(ended).await.is_none() {
                return (End::Stopped, has_applied);
            }
        }
        if matches!(end, End::Elsewhere) {
            return (end, written.has_written);
        }
        let found = session.collect(&mut pages);
        has_applied |= !found.applied.is_empty();
        self.write_last(&session, &end, &found, checkpoint, written).await;
        (end, has_applied)
    }

    /// Advances the checkpoint past applied items, and writes it if that is due. Returns when it is due next.
    /// An error means that the consumer must resume.
    async fn advance(
        &self,
        session: &Session<S, E, O>,
        found: &Found<S>,
        checkpoint: &mut S::Checkpoint,
        written: &mut Written,
    ) -> Result<Option<Instant>, End> {
        found.advance(checkpoint, written);
        let is_all = matches!(found.reached, Reached::Through(_));
        let is_end = is_all && found.is_end;
        if found.is_new || !found.applied.is_empty() {
            if is_end && let Err(reason) = self.effect.caught_up().await {
                tracing::debug!(consumer = %self.name, reason, "the consumer resumes");
                return Err(End::Moved);
            }
            self.observer.reached(&found.reached, is_all, is_end);
        }
        let due = written.due(self.options.write_every);
        match due {
            Some(due) if due <= Instant::now() => self.write(session, checkpoint, written).await,
            due => Ok(due),
        }
    }

    /// Writes the checkpoint. Returns when it is due next.
    async fn write(
        &self,
        session: &Session<S, E, O>,
        checkpoint: &mut S::Checkpoint,
        written: &mut Written,
    ) -> Result<Option<Instant>, End> {
        let now = Instant::now();
        match self.checkpoints.write(checkpoint).await {
            Ok(()) => {
                session.works(Part::Checkpoint);
                *written = Written { at: Some(now), has_written: true, ..Written::default() };
            }
            Err(WriteError::Unavailable(cause)) => {
                let error = report(&self.name, &cause, "a checkpoint cannot be written");
                let failures = session.fails(Part::Checkpoint, error);
                written.at = Some(now + self.options.backoff.before(failures));
            }
            Err(WriteError::Moved(cause)) => {
                let error = chain(&*cause);
                tracing::warn!(consumer = %self.name, error, "a checkpoint was moved by others; the consumer resumes there");
                return Err(End::Elsewhere);
            }
        }
        Ok(written.due(self.options.write_every))
    }

    /// Writes the checkpoint at the end of a session, if it has moved, within [`Options::grace`].
    async fn write_last(
        &self,
        session: &Session<S, E, O>,
        end: &End,
        found: &Found<S>,
        mut checkpoint: S::Checkpoint,
        mut written: Written,
    ) {
        let work = async {
            match end {
                End::Stopped => {
                    found.advance(&mut checkpoint, &mut written);
                    let is_all = matches!(found.reached, Reached::Through(_));
                    self.observer.reached(&found.reached, is_all, false);
                }
                // The log may have lost the place up to which the source was read.
                _ => found.advance_past_applied(&mut checkpoint, &mut written),
            }
            let is_due = written.unwritten > 0 || (written.has_passed && matches!(end, End::Stopped));
            if is_due {
                // If this fails, items are applied again.
                let _ = self.write(session, &mut checkpoint, &mut written).await;
            }
        };
        if tokio::time::timeout(self.options.grace, work).await.is_err() {
            tracing::warn!(consumer = %self.name, "a checkpoint is not written in time at the end");
        }
    }

    /// Runs a future, after a stop for at most [`Options::grace`]. `None` if it did not end in time.
    async fn in_time<T>(&self, stop: &mut Stop, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = stop.asked() => {}
        }
        tokio::time::timeout(self.options.grace, work).await.ok()
    }

    /// Lets the lanes finish the items that they have begun, and cancels them after [`Options::grace`].
    async fn finish(&self, session: &Session<S, E, O>, lanes: &mut JoinSet<()>) {
        session.close();
        let finish = async { while lanes.join_next().await.is_some() {} };
        if tokio::time::timeout(self.options.grace, finish).await.is_ok() {
            return;
        }
        tracing::warn!(consumer = %self.name, "calls that do not end in time are cancelled, and their items applied again");
        lanes.abort_all();
        // A call that blocks its thread cannot be cancelled.
        let ended = async { while lanes.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CANCEL, ended).await;
    }
}

/// When the checkpoint was written last, and what has happened since.
#[derive(Default)]
struct Written {
    at: Option<Instant>,
    /// How many items were applied since.
    unwritten: usize,
    /// Whether the source was read further since.
    has_passed: bool,
    /// Whether the checkpoint was ever written in this session.
    has_written: bool,
}

impl Written {
    /// When the checkpoint is due to be written; `None` if it has not moved.
    fn due(&self, every: Duration) -> Option<Instant> {
        let after = match (self.unwritten, self.has_passed) {
            (0, false) => return None,
            (0, true) => PASSED,
            (..COUNT, _) => every,
            (COUNT.., _) => Duration::ZERO,
        };
        // The first one is due at once.
        Some(self.at.map_or_else(Instant::now, |at| at + after))
    }
}

/// The state that reader, lanes and runner share.
struct Session<S: Source, E, O> {
    name: Arc<str>,
    effect: Arc<E>,
    observer: Arc<O>,
    options: Options,
    shared: Mutex<Shared<S>>,
    /// Wakes a lane when items may be applied. That lane wakes the next one if there are more.
    work: Notify,
    /// Wakes the reader when the window may have room.
    room: Notify,
    /// Wakes the runner when items were applied or read.
    moved: Notify,
    /// Lanes that run on threads for blocking work.
    running: watch::Sender<usize>,
}

struct Shared<S: Source> {
    window: Window<S>,
    /// How many pages were read.
    pages: u64,
    /// No item is applied before this time.
    paused: Option<Instant>,
    /// Failures of each [`Part`] since its last success.
    failures: [u32; 3],
    /// Items of calls that have ended.
    released: Vec<Arc<Vec<S::Item>>>,
    is_closed: bool,
}

/// Parts of a consumer that may fail for all items.
#[derive(Clone, Copy)]
enum Part {
    Source,
    Effect,
    Checkpoint,
}

/// What has happened since the last call of [`Session::collect`].
struct Found<S: Source> {
    applied: Vec<S::Cursor>,
    reached: Reached<S::Cursor>,
    is_end: bool,
    /// Whether a page was read.
    is_new: bool,
    /// The time of the next retry.
    wake: Option<Instant>,
}

impl<S: Source> Found<S> {
    fn advance_past_applied(&self, checkpoint: &mut S::Checkpoint, written: &mut Written) {
        S::advance(checkpoint, &self.applied);
        written.unwritten += self.applied.len();
    }

    fn advance(&self, checkpoint: &mut S::Checkpoint, written: &mut Written) {
        self.advance_past_applied(checkpoint, written);
        if let Reached::Through(Some(through)) = &self.reached
            && S::IS_ORDERED
        {
            S::advance(checkpoint, std::slice::from_ref(through));
            written.has_passed = true;
        }
    }
}

/// Counts a lane as running on threads for blocking work until it is dropped.
struct Running<S: Source, E: Effect<S>, O: Observer<S>>(Arc<Session<S, E, O>>);

impl<S: Source, E: Effect<S>, O: Observer<S>> Running<S, E, O> {
    fn new(session: Arc<Session<S, E, O>>) -> Self {
        session.running.send_modify(|running| *running += 1);
        Self(session)
    }
}

impl<S: Source, E: Effect<S>, O: Observer<S>> Drop for Running<S, E, O> {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl<S: Source, E: Effect<S>, O: Observer<S>> Session<S, E, O> {
    fn new<K>(runner: &Runner<S, E, K, O>) -> Self {
        let shared = Shared {
            window: Window::new(runner.options.is_total),
            pages: 0,
            paused: None,
            // The first read of the source reports a recovery.
            failures: [1, 0, 0],
            released: Vec::new(),
            is_closed: false,
        };
        Self {
            name: runner.name.clone(),
            effect: runner.effect.clone(),
            observer: runner.observer.clone(),
            options: runner.options,
            shared: Mutex::new(shared),
            work: Notify::new(),
            room: Notify::new(),
            moved: Notify::new(),
            running: watch::Sender::default(),
        }
    }

    /// Reports a failure. Returns the number of failures since the last success.
    fn fails(&self, part: Part, error: String) -> u32 {
        let mut shared = self.shared.lock();
        shared.failures[part as usize] += 1;
        self.observer.failed(error, None);
        shared.failures[part as usize]
    }

    /// Records a success of a part. Reports a recovery if this was the last part that failed.
    fn works(&self, part: Part) {
        let mut shared = self.shared.lock();
        if std::mem::take(&mut shared.failures[part as usize]) > 0 && shared.failures == [0; 3] {
            self.observer.recovered(None);
        }
    }

    /// Reads ahead until the source has lost items that were read.
    async fn read(self: Arc<Self>, mut source: S) {
        loop {
            self.has_room().await;
            let error = match source.read().await {
                Ok(Read::Lost) => {
                    tracing::warn!(consumer = %self.name, "the source has lost items that were read; the consumer steps back");
                    return;
                }
                Ok(Read::Page { items, through, is_end }) => {
                    self.works(Part::Source);
                    self.push(items, through, is_end);
                    if !is_end {
                        continue;
                    }
                    match source.wait().await {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let error = report(&self.name, &error, "the source cannot be read");
            let failures = self.fails(Part::Source, error);
            tokio::time::sleep(self.options.backoff.before(failures)).await;
        }
    }

    async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            {
                let shared = self.shared.lock();
                let window = &shared.window;
                if window.len() < self.options.window_max && window.bytes() < self.options.bytes_max {
                    return;
                }
            }
            room.await;
        }
    }

    fn push(&self, items: Vec<S::Item>, through: Option<S::Cursor>, is_end: bool) {
        let has_items = !items.is_empty();
        {
            let mut shared = self.shared.lock();
            shared.pages += 1;
            shared.window.push(items, through, is_end);
        }
        if has_items {
            self.work.notify_one();
        } else {
            self.moved.notify_one();
        }
    }

    /// Applies items until the session is closed or the consumer must resume.
    async fn apply(self: Arc<Self>) {
        while let Some(batch) = self.next_batch().await {
            let may_resume = match self.options.is_blocking {
                true => self.clone().apply_blocking(batch).await,
                false => self.apply_batch(batch).await,
            };
            if !may_resume {
                return;
            }
        }
    }

    /// Applies a batch and those that are ready after it, on threads for blocking work. Returns false if the
    /// consumer must resume.
    async fn apply_blocking(self: Arc<Self>, batch: Batch<S::Item>) -> bool {
        // A lane that is aborted makes no other call.
        let aborted = Dropped::default();
        let is_aborted = aborted.watch();
        let running = Running::new(self.clone());
        let work = async move {
            let _running = running;
            let mut next = Some(batch);
            while let Some(batch) = next {
                if is_aborted() || !self.apply_batch(batch).await {
                    return false;
                }
                next = self.take_batch();
            }
            true
        };
        let may_resume = on_blocking_threads(work).await;
        drop(aborted);
        may_resume.unwrap_or(false)
    }

    /// Applies a batch. Returns false if the consumer must resume.
    async fn apply_batch(&self, batch: Batch<S::Item>) -> bool {
        let attempt = batch.attempt;
        let (batch, items) = batch.into_parts();
        let items = Arc::new(items);
        let most = items.len();
        // The batch in progress, and how many of its items were settled.
        let out = Mutex::new((batch, 0));
        let so_far = |count: usize| {
            let (batch, settled) = &mut *out.lock();
            if let Some(more) = count.min(most).checked_sub(*settled).filter(|more| *more > 0) {
                *settled += more;
                self.settle(|window| window.settle_part(batch, more));
            }
        };
        let applied = caught(self.effect.apply(&items, attempt, &SoFar(&so_far))).await;
        let (batch, settled) = out.into_inner();
        let Applied { count, stopped } =
            applied.unwrap_or_else(|panic| Applied::stopped(settled, Stopped::Failed(panic)));
        let count = count.clamp(settled, most);
        // An effect that stops at no item has applied all of them.
        let end = match (stopped, items.get(count)) {
            (None, _) | (_, None) => Settled::Applied,
            (Some(stopped), Some(item)) => {
                let attempt = if count == 0 { attempt } else { 1 };
                match self.stopped(stopped, item, attempt) {
                    Some(end) => end,
                    None => {
                        let (end, rest) = (Settled::GivenBack, items[count..].to_vec());
                        self.settle(|window| window.settle(batch, count - settled, rest, &end));
                        return false;
                    }
                }
            }
        };
        if let Some(item) = items[..count].first() {
            if attempt > 1 {
                self.observer.recovered(Some(S::cursor(item)));
            }
            self.works(Part::Effect);
        }
        // In a failure the effect may still have the items on another thread.
        let rest = items[count..].to_vec();
        self.settle(|window| window.settle(batch, count - settled, rest, &end));
        self.release(items);
        true
    }

    /// Leaves items to the runner to drop, so that the lane can take the next ones.
    fn release(&self, items: Arc<Vec<S::Item>>) {
        let mut shared = self.shared.lock();
        if shared.released.len() < RELEASED_MAX {
            shared.released.push(items);
        }
    }

    /// Reports why the effect stopped at an item. Returns how the batch ended; `None` if the consumer must
    /// resume.
    fn stopped(&self, stopped: Stopped, item: &S::Item, attempt: u32) -> Option<Settled> {
        let name = S::name(item);
        match stopped {
            Stopped::Failed(error) => {
                tracing::warn!(consumer = %self.name, attempt, error, "{name} failed; it is retried");
                self.observer.failed(error, Some(item));
                Some(Settled::Failed(Instant::now() + self.options.backoff.before(attempt)))
            }
            Stopped::Unavailable(error) => {
                tracing::warn!(consumer = %self.name, error, "no item can be applied now; they are retried");
                let failures = self.fails(Part::Effect, error);
                self.shared.lock().paused = Some(Instant::now() + self.options.backoff.before(failures));
                Some(Settled::GivenBack)
            }
            Stopped::Interrupted => Some(Settled::GivenBack),
            Stopped::Released => Some(Settled::Released),
            Stopped::Moved(reason) => {
                tracing::debug!(consumer = %self.name, reason, "{name} is not applied; the consumer resumes");
                None
            }
        }
    }

    fn settle(&self, settle: impl FnOnce(&mut Window<S>)) {
        let (has_more, is_half_empty) = {
            let mut shared = self.shared.lock();
            let window = &mut shared.window;
            settle(window);
            let is_half_empty =
                2 * window.len() <= self.options.window_max && 2 * window.bytes() <= self.options.bytes_max;
            (window.has_more(), is_half_empty)
        };
        if has_more {
            self.work.notify_one();
        }
        self.moved.notify_one();
        // The source is read in several pages at once, unless there is nothing else to do.
        if is_half_empty || !has_more {
            self.room.notify_one();
        }
    }

    /// Waits for items that may be applied. `None` if the session is closed.
    async fn next_batch(&self) -> Option<Batch<S::Item>> {
        loop {
            let work = self.work.notified();
            if let Some(batch) = self.take_batch() {
                return Some(batch);
            }
            if self.shared.lock().is_closed {
                // Wakes the next lane, which must end too.
                self.work.notify_one();
                return None;
            }
            work.await;
        }
    }

    /// Takes items that may be applied now. `None` if there are none, or if the session is closed.
    fn take_batch(&self) -> Option<Batch<S::Item>> {
        let mut shared = self.shared.lock();
        if shared.is_closed || shared.paused.is_some() {
            return None;
        }
        let batch = shared.window.take(self.options.batch_max.max(1));
        if !shared.window.has_more() {
            // What is left waits for something else. There may be room for more.
            self.room.notify_one();
        } else if batch.is_some() {
            self.work.notify_one();
        }
        batch
    }

    fn close(&self) {
        self.shared.lock().is_closed = true;
        self.work.notify_one();
    }

    /// Returns what has happened since the last call. Wakes a lane for retries that are due.
    fn collect(&self, pages: &mut u64) -> Found<S> {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if shared.paused.is_some_and(|until| until <= now) {
            shared.paused = None;
        }
        let next = shared.window.wake(now);
        let wake = [next, shared.paused].into_iter().flatten().min();
        if shared.paused.is_none() && shared.window.has_more() {
            self.work.notify_one();
        }
        let is_new = std::mem::replace(pages, shared.pages) != shared.pages;
        let released = std::mem::take(&mut shared.released);
        let found = Found {
            applied: shared.window.drain_applied(),
            reached: shared.window.reached(),
            is_end: shared.window.is_end(),
            is_new,
            wake,
        };
        drop(shared);
        drop(released);
        found
    }
}

/// Logs a failure that is retried, and returns its text: as a warning if it may pass by itself, and as an
/// error if an operator must change something first.
fn report(consumer: &str, cause: &Cause, what: &str) -> String {
    let (error, of_store) = (chain(&**cause), cause.downcast_ref::<annals_core::Error>());
    match of_store {
        Some(of_store) if !of_store.is_transient() => {
            tracing::error!(consumer, error, "{what} until an operator changes something; it is retried");
        }
        _ => tracing::warn!(consumer, error, "{what}; it is retried"),
    }
    error
}

/// Why a session ends when one of its tasks has ended: `end` if it returned.
fn of(ended: Result<(), JoinError>, end: End) -> End {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(()) => end,
        Err(Ok(panic)) => End::Panicked(panic_text(panic)),
        Err(Err(cancelled)) => End::Panicked(cancelled.to_string()),
    }
}

/// Waits until this time; forever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
