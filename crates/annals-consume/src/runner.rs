//! The one loop of everything that consumes: reads ahead, applies, retries, and moves the checkpoint behind what is applied.
//!
//! ```text
//! Source::read ──> window ──> lanes: Effect::apply        each a task
//!                    │ applied
//!                    └──> Checkpoints::write              in batches
//! ```
//!
//! - R1  The checkpoint is written after everything that it covers was applied. After a crash between the two, items are applied
//!       again: at most those of [`Options::write_every`] or [`COUNT`].
//! - R2  Items of one key are applied in order, one after the other. One that fails is tried again after a wait; items of other
//!       keys do not wait for it, unless the order is total.
//! - R3  A session ends when the source has lost what was read, when the checkpoint or the rows are not as they were left, or when
//!       a stop is asked for. The next one resumes at the checkpoint.
//! - R4  A stop lets what is being applied finish, for [`Options::grace`], and then writes the checkpoint. Dropped, a runner ends at once,
//!       and nothing is written after that: for a lease that is lost.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Backoff, chain};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::caught::{caught, panic_text};
use crate::effect::{Applied, Effect, Stopped};
use crate::source::{Checkpoints, Read, Resumed, Source, WriteError};
use crate::stop::Stop;
use crate::window::{Batch, Reached, Settled, Window};

/// A checkpoint is written at the latest when this many items were applied.
const COUNT: usize = 10_000;
/// A checkpoint that only moves past what the source left out is written this long after the one before.
const PASSED: Duration = Duration::from_secs(2);

/// How a consumer works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many items are applied at once, each of another key.
    pub lanes: usize,
    /// Most items that a lane applies in one call of the effect. With several lanes, those behind a slow item wait for it.
    pub batch_max: usize,
    /// Whether an item is applied only after all earlier ones, whatever their keys. For one lane.
    pub is_total: bool,
    /// How many items are read ahead, and how many bytes of them.
    pub window_max: usize,
    /// The bytes of `window_max`.
    pub bytes_max: usize,
    /// How long to wait before what failed is tried again.
    pub backoff: Backoff,
    /// A checkpoint is written at the latest this long after an item was applied.
    pub write_every: Duration,
    /// How long what is being applied may take to finish after a stop.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lanes: 1,
            batch_max: 1,
            is_total: false,
            window_max: 4_000,
            bytes_max: 16 << 20,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(30)),
            write_every: Duration::from_millis(100),
            grace: Duration::from_secs(10),
        }
    }
}

/// Is notified of what a consumer does, for its status. Called often: it must not block.
pub trait Observer<S: Source>: Send + Sync + 'static {
    /// It resumes here, with what an operator should know about it.
    fn resumed(&self, checkpoint: &S::Checkpoint, notice: Option<String>);

    /// Everything is applied up to here. `is_all` says that nothing is left of what was read, and `is_end` that this was
    /// everything that the source had.
    fn reached(&self, reached: &Reached<S::Cursor>, is_all: bool, is_end: bool);

    /// Something failed, and is tried again: the item, or everything.
    fn failed(&self, error: String, item: Option<&S::Item>);

    /// What had failed works again: the item at this place, or everything.
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
    /// The effect has asked to resume.
    Moved,
    /// The source or the checkpoint was not as it was left.
    Lost,
    /// The source, or a task of the runner. What an effect does is caught.
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
    /// A consumer with this name, which stands in messages.
    pub fn new(
        name: impl Into<Arc<str>>,
        effect: Arc<E>,
        checkpoints: K,
        observer: Arc<O>,
        options: Options,
    ) -> Self {
        Self { name: name.into(), effect, checkpoints, observer, options, source: PhantomData }
    }

    /// Consumes until a stop is asked for. Only for the process that has the lease; dropped when that is lost.
    pub async fn run(&self, stop: &mut Stop) {
        // How often it failed, without anything that worked in between.
        let mut failures = 0;
        while !stop.is_asked() {
            let Some(resumed) = stop.or(self.checkpoints.resume()).await else { return };
            let resumed = match resumed {
                Ok(resumed) => resumed,
                Err(cause) => {
                    let error = chain(&*cause);
                    tracing::warn!(consumer = %self.name, error, "a consumer cannot resume; it is tried again");
                    self.observer.failed(error, None);
                    failures += 1;
                    stop.or(tokio::time::sleep(self.options.backoff.before(failures))).await;
                    continue;
                }
            };
            let (end, has_applied) = self.session(resumed, failures > 0, stop).await;
            failures = if has_applied { 0 } else { failures };
            match end {
                End::Stopped => return,
                End::Moved => {}
                End::Lost => {
                    // Once is what happens when events are lost.
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

    /// Consumes from a checkpoint on. Returns why that ended, and whether anything was applied.
    async fn session(&self, resumed: Resumed<S>, has_failed: bool, stop: &mut Stop) -> (End, bool) {
        let Resumed { source, mut checkpoint, notice } = resumed;
        self.observer.resumed(&checkpoint, notice);
        let session = Arc::new(Session {
            name: self.name.clone(),
            effect: self.effect.clone(),
            observer: self.observer.clone(),
            options: self.options,
            shared: Mutex::new(Shared {
                window: Window::new(self.options.is_total),
                pages: 0,
                paused: None,
                away: 0,
                is_closed: false,
            }),
            work: Notify::new(),
            room: Notify::new(),
            moved: Notify::new(),
        });
        let mut reader = JoinSet::new();
        reader.spawn(session.clone().read(source, has_failed));
        let mut lanes = JoinSet::new();
        for _ in 0..self.options.lanes.max(1) {
            lanes.spawn(session.clone().apply());
        }
        let (mut written, mut pages, mut has_applied) = (Written::default(), 0, false);
        let end = loop {
            let found = session.collect(&mut pages);
            has_applied |= !found.applied.is_empty();
            let due = match self.advance(&found, &mut checkpoint, &mut written, false).await {
                Ok(due) => due,
                Err(end) => break end,
            };
            let next = [due, found.wake].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.asked() => {
                    reader.abort_all();
                    self.finish(&session, lanes, checkpoint, written, pages).await;
                    return (End::Stopped, has_applied);
                }
                // The source has lost what was read, or a lane has to resume.
                Some(ended) = reader.join_next() => break of(ended, End::Lost),
                Some(ended) = lanes.join_next() => break of(ended, End::Moved),
                () = session.moved.notified() => {}
                () = at(next) => {}
            }
        };
        // Nothing is applied any more when the next session begins.
        reader.shutdown().await;
        lanes.shutdown().await;
        (end, has_applied)
    }

    /// Moves the checkpoint past what was applied, and writes it if that is due. Returns when it is. An error means that the
    /// consumer must resume.
    async fn advance(
        &self,
        found: &Found<S>,
        checkpoint: &mut S::Checkpoint,
        written: &mut Written,
        is_last: bool,
    ) -> Result<Option<Instant>, End> {
        S::advance(checkpoint, &found.applied);
        written.unwritten += found.applied.len();
        if let Reached::Through(Some(through)) = &found.reached
            && S::IS_ORDERED
        {
            S::advance(checkpoint, std::slice::from_ref(through));
            written.has_passed = true;
        }
        let is_all = matches!(found.reached, Reached::Through(_));
        let is_end = is_all && found.is_end;
        if found.is_new || !found.applied.is_empty() {
            if is_end && let Err(reason) = self.effect.caught_up().await {
                tracing::debug!(consumer = %self.name, reason, "the consumer resumes");
                return Err(End::Moved);
            }
            self.observer.reached(&found.reached, is_all, is_end);
        }
        let now = Instant::now();
        let due = written.due(now, self.options.write_every);
        if !(due.is_some_and(|due| due <= now) || (is_last && due.is_some())) {
            return Ok(due);
        }
        match self.checkpoints.write(checkpoint).await {
            Ok(()) => {
                if written.failed > 0 {
                    self.observer.recovered(None);
                }
                *written = Written { at: Some(now), ..Written::default() };
            }
            Err(WriteError::Unavailable(cause)) => {
                let error = chain(&*cause);
                tracing::warn!(consumer = %self.name, error, "a checkpoint cannot be written; it is tried again");
                self.observer.failed(error, None);
                written.failed += 1;
                written.at = Some(now + self.options.backoff.before(written.failed));
            }
            Err(WriteError::Moved(cause)) => {
                let error = chain(&*cause);
                tracing::warn!(consumer = %self.name, error, "a checkpoint was moved by others; the consumer resumes there");
                return Err(End::Lost);
            }
        }
        Ok(written.due(now, self.options.write_every))
    }

    /// Lets the lanes finish, and writes the checkpoint.
    async fn finish(
        &self,
        session: &Session<S, E, O>,
        mut lanes: JoinSet<()>,
        mut checkpoint: S::Checkpoint,
        mut written: Written,
        mut pages: u64,
    ) {
        session.close();
        let finish = async { while lanes.join_next().await.is_some() {} };
        if tokio::time::timeout(self.options.grace, finish).await.is_err() {
            tracing::warn!(consumer = %self.name, "what did not end in time after the stop is cut off, and applied again next time");
            lanes.shutdown().await;
        }
        let found = session.collect(&mut pages);
        let _ = self.advance(&found, &mut checkpoint, &mut written, true).await;
    }
}

/// When the checkpoint was written last, and what it does not cover yet.
#[derive(Default)]
struct Written {
    at: Option<Instant>,
    /// How many items were applied since.
    unwritten: usize,
    /// Whether the source has looked further since.
    has_passed: bool,
    /// How often it could not be written since.
    failed: u32,
}

impl Written {
    /// When the checkpoint is to be written, if it has moved.
    fn due(&self, now: Instant, every: Duration) -> Option<Instant> {
        let after = match (self.unwritten, self.has_passed) {
            (0, false) => return None,
            (0, true) => PASSED,
            (..COUNT, _) => every,
            (COUNT.., _) => Duration::ZERO,
        };
        // The first one may wait as long as any: nothing was written before.
        Some(self.at.map_or(now, |at| at + after))
    }
}

/// What reader, lanes and runner share.
struct Session<S: Source, E, O> {
    name: Arc<str>,
    effect: Arc<E>,
    observer: Arc<O>,
    options: Options,
    shared: Mutex<Shared<S>>,
    /// A lane may find something to apply. The one that takes it wakes the next if there is more.
    work: Notify,
    /// There may be room in the window.
    room: Notify,
    /// Something was applied or read.
    moved: Notify,
}

struct Shared<S: Source> {
    window: Window<S>,
    /// How many pages were read.
    pages: u64,
    /// Nothing is applied before this.
    paused: Option<Instant>,
    /// How often nothing could be applied since something was.
    away: u32,
    is_closed: bool,
}

/// What has happened since the runner looked last.
struct Found<S: Source> {
    applied: Vec<S::Cursor>,
    reached: Reached<S::Cursor>,
    is_end: bool,
    /// Whether something was read.
    is_new: bool,
    /// When something that failed is due again.
    wake: Option<Instant>,
}

impl<S: Source, E: Effect<S>, O: Observer<S>> Session<S, E, O> {
    /// Reads ahead until the source has lost what was read.
    async fn read(self: Arc<Self>, mut source: S, has_failed: bool) {
        let mut failures = u32::from(has_failed);
        loop {
            self.has_room().await;
            let error = match source.read().await {
                Ok(Read::Lost) => {
                    tracing::warn!(consumer = %self.name, "the source has lost what was read; the consumer steps back");
                    return;
                }
                Ok(Read::Page { items, through, is_end }) => {
                    if std::mem::take(&mut failures) > 0 {
                        self.observer.recovered(None);
                    }
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
            let error = chain(&*error);
            tracing::warn!(consumer = %self.name, error, "the source cannot be read; it is tried again");
            self.observer.failed(error, None);
            failures += 1;
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

    /// Applies items until there are none and the session is closed, or the consumer has to resume.
    async fn apply(self: Arc<Self>) {
        while let Some(batch) = self.next_batch().await {
            let attempt = batch.attempt;
            let (batch, mut items) = batch.into_parts();
            let applied = caught(self.effect.apply(&items, attempt)).await;
            let Applied { count, stopped } =
                applied.unwrap_or_else(|panic| Applied::stopped(0, Stopped::Failed(panic)));
            // An effect that stops at no item has applied all of them.
            let rest = items.split_off(count.min(items.len()));
            let end = match (stopped, rest.first()) {
                (None, _) | (_, None) => Settled::Applied,
                (Some(stopped), Some(item)) => {
                    let attempt = if count == 0 { attempt } else { 1 };
                    match self.stopped(stopped, item, attempt) {
                        Some(end) => end,
                        None => return,
                    }
                }
            };
            if let Some(item) = items.first() {
                if attempt > 1 {
                    self.observer.recovered(Some(S::cursor(item)));
                }
                if std::mem::take(&mut self.shared.lock().away) > 0 {
                    self.observer.recovered(None);
                }
            }
            self.settle(batch, count, rest, &end);
        }
    }

    /// What becomes of an item at which the effect stopped. `None` if the consumer has to resume.
    fn stopped(&self, stopped: Stopped, item: &S::Item, attempt: u32) -> Option<Settled> {
        let name = S::name(item);
        match stopped {
            Stopped::Failed(error) => {
                tracing::warn!(consumer = %self.name, attempt, error, "{name} failed; it is tried again");
                self.observer.failed(error, Some(item));
                Some(Settled::Failed(Instant::now() + self.options.backoff.before(attempt)))
            }
            Stopped::Unavailable(error) => {
                tracing::warn!(consumer = %self.name, error, "nothing can be applied now; it is tried again");
                self.observer.failed(error, None);
                let mut shared = self.shared.lock();
                shared.away += 1;
                shared.paused = Some(Instant::now() + self.options.backoff.before(shared.away));
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

    fn settle(&self, batch: Batch<()>, count: usize, rest: Vec<S::Item>, end: &Settled) {
        let has_more = {
            let mut shared = self.shared.lock();
            shared.window.settle(batch, count, rest, end);
            shared.window.has_more()
        };
        if has_more {
            self.work.notify_one();
        }
        self.moved.notify_one();
        self.room.notify_one();
    }

    /// Waits for items that may be applied. `None` if there will be none.
    async fn next_batch(&self) -> Option<Batch<S::Item>> {
        loop {
            let work = self.work.notified();
            {
                let mut shared = self.shared.lock();
                if shared.is_closed {
                    // The other lanes are to see it too.
                    self.work.notify_one();
                    return None;
                }
                if shared.paused.is_none()
                    && let Some(batch) = shared.window.take(self.options.batch_max.max(1))
                {
                    if shared.window.has_more() {
                        self.work.notify_one();
                    }
                    return Some(batch);
                }
            }
            work.await;
        }
    }

    fn close(&self) {
        self.shared.lock().is_closed = true;
        self.work.notify_one();
    }

    /// What has happened since this was called last. Wakes lanes for what is due again.
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
        Found {
            applied: shared.window.drain_applied(),
            reached: shared.window.reached(),
            is_end: shared.window.is_end(),
            is_new,
            wake,
        }
    }
}

/// Why a session ends with one of its tasks, which ends by itself for this reason.
fn of(ended: Result<(), JoinError>, end: End) -> End {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(()) => end,
        Err(Ok(panic)) => End::Panicked(panic_text(panic)),
        Err(Err(cancelled)) => End::Panicked(cancelled.to_string()),
    }
}

/// Waits until then, if ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
