//! The one loop of everything that consumes: reads ahead, applies, retries, and moves the checkpoint behind what is applied.
//!
//! ```text
//! Source::read ──> window ──> lanes: Effect::apply        each a task
//!                    │ applied
//!                    └──> Checkpoints::write              in batches
//! ```
//!
//! - R1  The checkpoint is written after everything that it covers was applied. After a crash between the two, items are applied
//!       again: those of [`Options::write_every`] or [`COUNT`], and those in the window behind one that is slow or fails.
//! - R2  Items of one key are applied in order, one after the other. One that fails is tried again after a wait; items of other
//!       keys do not wait for it, unless the order is total.
//! - R3  A session ends when the source has lost what was read, when the checkpoint or the rows are not as they were left, or when
//!       a stop is asked for. It writes the checkpoint of what was applied, and the next one resumes there.
//! - R4  A stop lets what is being applied finish, for [`Options::grace`], and then writes the checkpoint, within as much time again.
//!       Dropped, a runner ends at once, and nothing is written after that: for a lease that is lost. In both cases a call of
//!       the effect that blocks its thread ends later.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Backoff, Cause, caught, chain, panic_text};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::effect::{Applied, Effect, SoFar, Stopped};
use crate::source::{Checkpoints, Read, Resumed, Source, WriteError};
use crate::stop::Stop;
use crate::window::{Batch, Reached, Settled, Window};

/// A checkpoint is written at the latest when this many items were applied.
const COUNT: usize = 10_000;
/// How long it may take until what was cut off has ended.
const CUT_OFF: Duration = Duration::from_secs(1);
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

    /// Everything is applied up to here. `is_all` says that nothing is left of what was read, so that no item fails, and `is_end`
    /// that this was everything that the source had.
    fn reached(&self, reached: &Reached<S::Cursor>, is_all: bool, is_end: bool);

    /// Something failed, and is tried again: the item, or everything.
    fn failed(&self, error: String, item: Option<&S::Item>);

    /// What had failed works again: the item at this place, or all that failed whatever the item. A session says the latter when
    /// it first reads.
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
    /// The source has lost what was read.
    Lost,
    /// Others have moved the checkpoint.
    Elsewhere,
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

    /// Consumes from a checkpoint on. Returns why that ended, and whether anything was applied, or written if the checkpoint is
    /// no longer this consumer's.
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
            // What the other lanes have begun is not begun again.
            self.finish(&session, &mut lanes).await;
        }
        reader.abort_all();
        lanes.abort_all();
        if !matches!(end, End::Stopped) {
            // Nothing is applied any more when the next session begins.
            let ended = async {
                while reader.join_next().await.is_some() {}
                while lanes.join_next().await.is_some() {}
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

    /// Moves the checkpoint past what was applied, and writes it if that is due. Returns when it is. An error means that the
    /// consumer must resume.
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

    /// Writes the checkpoint. Returns when that is due again.
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

    /// Writes the checkpoint at the end of a session, if there is anything to write and that does not take too long.
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
                // Where the source has looked may be lost.
                _ => found.advance_past_applied(&mut checkpoint, &mut written),
            }
            let is_due = written.unwritten > 0 || (written.has_passed && matches!(end, End::Stopped));
            if is_due {
                // What is not written is applied again.
                let _ = self.write(session, &mut checkpoint, &mut written).await;
            }
        };
        if tokio::time::timeout(self.options.grace, work).await.is_err() {
            tracing::warn!(consumer = %self.name, "a checkpoint is not written in time at the end");
        }
    }

    /// Does this, after a stop only for as long as the grace. `None` if it did not end in time.
    async fn in_time<T>(&self, stop: &mut Stop, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = stop.asked() => {}
        }
        tokio::time::timeout(self.options.grace, work).await.ok()
    }

    /// Lets the lanes finish what they have begun.
    async fn finish(&self, session: &Session<S, E, O>, lanes: &mut JoinSet<()>) {
        session.close();
        let finish = async { while lanes.join_next().await.is_some() {} };
        if tokio::time::timeout(self.options.grace, finish).await.is_ok() {
            return;
        }
        tracing::warn!(consumer = %self.name, "what does not end in time is cut off, and applied again");
        lanes.abort_all();
        // What blocks its thread cannot be cut off.
        let ended = async { while lanes.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CUT_OFF, ended).await;
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
    /// Whether the checkpoint was ever written in this session.
    has_written: bool,
}

impl Written {
    /// When the checkpoint is to be written, if it has moved.
    fn due(&self, every: Duration) -> Option<Instant> {
        let after = match (self.unwritten, self.has_passed) {
            (0, false) => return None,
            (0, true) => PASSED,
            (..COUNT, _) => every,
            (COUNT.., _) => Duration::ZERO,
        };
        // The first one may wait as long as any: nothing was written before.
        Some(self.at.map_or_else(Instant::now, |at| at + after))
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
    /// How often each part has failed since it worked.
    failures: [u32; 3],
    is_closed: bool,
}

/// What may fail whatever the item.
#[derive(Clone, Copy)]
enum Part {
    Source,
    Effect,
    Checkpoint,
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

impl<S: Source, E: Effect<S>, O: Observer<S>> Session<S, E, O> {
    fn new<K>(runner: &Runner<S, E, K, O>) -> Self {
        let shared = Shared {
            window: Window::new(runner.options.is_total),
            pages: 0,
            paused: None,
            // Whatever failed before, it works when the source can be read.
            failures: [1, 0, 0],
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
        }
    }

    /// Reports a failure. Returns how many there were since it worked.
    fn fails(&self, part: Part, error: String) -> u32 {
        let mut shared = self.shared.lock();
        shared.failures[part as usize] += 1;
        self.observer.failed(error, None);
        shared.failures[part as usize]
    }

    /// Reports that nothing fails any more, if this was the last part that did.
    fn works(&self, part: Part) {
        let mut shared = self.shared.lock();
        if std::mem::take(&mut shared.failures[part as usize]) > 0 && shared.failures == [0; 3] {
            self.observer.recovered(None);
        }
    }

    /// Reads ahead until the source has lost what was read.
    async fn read(self: Arc<Self>, mut source: S) {
        loop {
            self.has_room().await;
            let error = match source.read().await {
                Ok(Read::Lost) => {
                    tracing::warn!(consumer = %self.name, "the source has lost what was read; the consumer steps back");
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

    /// Applies items until there are none and the session is closed, or the consumer has to resume.
    async fn apply(self: Arc<Self>) {
        while let Some(batch) = self.next_batch().await {
            let attempt = batch.attempt;
            let (batch, mut items) = batch.into_parts();
            let most = items.len();
            // What is out, and how many items were settled of it.
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
            let rest = items.split_off(count);
            let end = match (stopped, rest.first()) {
                (None, _) | (_, None) => Settled::Applied,
                (Some(stopped), Some(item)) => {
                    let attempt = if count == 0 { attempt } else { 1 };
                    match self.stopped(stopped, item, attempt) {
                        Some(end) => end,
                        None => {
                            let end = Settled::GivenBack;
                            self.settle(|window| window.settle(batch, count - settled, rest, &end));
                            return;
                        }
                    }
                }
            };
            if let Some(item) = items.first() {
                if attempt > 1 {
                    self.observer.recovered(Some(S::cursor(item)));
                }
                self.works(Part::Effect);
            }
            self.settle(|window| window.settle(batch, count - settled, rest, &end));
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
        let has_more = {
            let mut shared = self.shared.lock();
            settle(&mut shared.window);
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

/// Writes to the log what fails and is tried again, and returns its text. What does not pass by itself is an error there: somebody
/// has to change something first, and then the consumer resumes by itself.
fn report(consumer: &str, cause: &Cause, what: &str) -> String {
    let (error, of_store) = (chain(&**cause), cause.downcast_ref::<annals_core::Error>());
    match of_store {
        Some(of_store) if !of_store.is_transient() => {
            tracing::error!(consumer, error, "{what} until somebody changes something; it is tried again");
        }
        _ => tracing::warn!(consumer, error, "{what}; it is tried again"),
    }
    error
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
