//! Making durable: groups of appends are written and synced here, and nowhere else; then published and answered.
//!
//! A thread does it while the writer judges and stages the next group, so that neither waits for the other. An append
//! that comes alone is made durable by the writer itself: handing it over would only take time.
//!
//! - Y1  Groups become durable in the order in which they were handed over, all in one segment: before the next one
//!       begins, the writer waits for [`Syncer::settle`].
//! - Y2  An append is acknowledged after the sync of its frame, and published before it is acknowledged (G1).
//! - Y3  A run is sealed after the sync of its last frame.
//! - Y4  After a failed write or sync nothing more is written: the store is poisoned (G9).
//!
//! Next above: `commit`; next below: `disk`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use annals_core::{Append, Error, Position};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Fault;
use crate::log::Log;
use crate::outcome::{Outcome, Reply};
use crate::planted::Bug;
use crate::seal::{Sealable, Sealer};
use crate::segment::Segment;
use crate::thread::{self, AtomicU64, Condvar, Instant, JoinHandle, Mutex};

/// The writer waits when so much was handed over and is not durable yet.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// A disk that takes no longer than this is fast: nobody minds a thread that waits for it.
const QUICK_MICROS: u64 = 500;

/// Appends that are made durable together.
pub struct Group {
    /// The segment that they are written to.
    pub segment: Arc<Segment>,
    /// Where in it.
    pub start: u64,
    /// Their frames.
    pub frames: Vec<u8>,
    /// Position of the last event of all of them.
    pub head: Position,
    /// Their answers, and those to appends that were judged against them.
    pub answers: Vec<Answer>,
    /// A run of which they are the end: it is sealed when they are durable.
    pub ended: Option<Sealable>,
}

/// An answer that waits for the group to be durable.
pub struct Answer {
    /// Who waits for it.
    pub to: oneshot::Sender<Reply>,
    /// What became of the append.
    pub outcome: Outcome,
    /// The append.
    pub append: Append,
    /// Its share of the memory that waiting appends may take.
    pub _permit: OwnedSemaphorePermit,
}

/// Why a store takes no more appends, once it does not.
#[derive(Default)]
pub struct Poison(OnceLock<String>);

impl Poison {
    /// The error for an append after a failed write.
    pub fn error(&self) -> Option<Error> {
        self.0.get().map(|why| Error::Poisoned(why.clone().into()))
    }

    /// The store takes no more appends because of this.
    pub fn set(&self, why: &str) {
        tracing::error!(why, "the store takes no more appends until it is opened again");
        // The first reason stays.
        let _ = self.0.set(why.to_owned());
    }
}

/// Makes groups durable, one after the other.
pub struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    log: Arc<Log>,
    poison: Arc<Poison>,
    sealer: Sealer,
    state: Mutex<State>,
    changed: Condvar,
    /// How long the last write and sync took, in microseconds.
    took: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: Vec<Group>,
    waiting_bytes: usize,
    busy: bool,
    ended: bool,
}

impl Syncer {
    /// Starts the thread.
    pub fn start(log: Arc<Log>, poison: Arc<Poison>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            sealer: Sealer::start(log.clone())?,
            log,
            poison,
            state: Mutex::default(),
            changed: Condvar::new(),
            took: AtomicU64::new(u64::MAX),
        });
        let thread = thread::Builder::new().name("annals-sync".into());
        let thread = thread.spawn({
            let shared = shared.clone();
            move || {
                shared.log.planted.take_along();
                shared.run();
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands a group over to the thread. Waits if much is waiting already.
    pub fn hand_over(&self, group: Group) {
        let mut state = self.shared.state.lock();
        while state.waiting_bytes > WAITING_BYTES_MAX {
            self.shared.changed.wait(&mut state);
        }
        state.waiting_bytes += group.frames.len();
        state.waiting.push(group);
        if !self.shared.log.planted.is(Bug::ForgetsToWake) {
            self.shared.changed.notify_all();
        }
    }

    /// Whether a write and a sync take so little that a caller can wait for them.
    pub fn is_quick(&self) -> bool {
        self.shared.took.load(Ordering::Relaxed) <= QUICK_MICROS
    }

    /// Makes a group durable now, on this thread, after those that were handed over.
    pub fn make_durable(&self, group: Group) {
        self.settle();
        self.shared.make_durable(vec![group]);
    }

    /// Seals a run, whether it is durable or not: only a bug does that.
    pub fn seal_at_once(&self, run: Sealable) {
        self.shared.sealer.seal(run);
    }

    /// Waits until all that was handed over is durable, or has failed.
    pub fn settle(&self) {
        let mut state = self.shared.state.lock();
        let awaits_busy = !self.shared.log.planted.is(Bug::DoesNotAwaitTheBusy);
        while awaits_busy && state.busy || !state.waiting.is_empty() {
            self.shared.changed.wait(&mut state);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that syncs has panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let groups = {
                let mut state = self.state.lock();
                state.busy = false;
                self.changed.notify_all();
                while state.waiting.is_empty() {
                    if state.ended {
                        return;
                    }
                    self.changed.wait(&mut state);
                }
                state.busy = true;
                state.waiting_bytes = 0;
                std::mem::take(&mut state.waiting)
            };
            if catch_unwind(AssertUnwindSafe(|| self.make_durable(groups))).is_err() {
                self.poison.set("an invariant was found broken while appends were made durable");
            }
        }
    }

    /// Writes, syncs, publishes, answers.
    fn make_durable(&self, groups: Vec<Group>) {
        let answered = match self.poison.error() {
            Some(poisoned) => Err((poisoned.chain(), false)),
            None => self.write(&groups).map_err(|fault| {
                let forgiven = matches!(fault, Fault::Io { action, .. } if self.log.planted.forgives(action));
                let why = Error::Unavailable(Box::new(fault)).chain();
                if !forgiven {
                    self.poison.set(&why);
                }
                (why, true)
            }),
        };
        let late = groups.last().map(|group| group.head);
        let late = late.filter(|_| answered.is_ok() && self.log.planted.is(Bug::PublishesAfterTheAnswers));
        let (answers, ended): (Vec<_>, Vec<_>) =
            groups.into_iter().map(|group| (group.answers, group.ended)).unzip();
        for Answer { to, outcome, append, _permit } in answers.into_iter().flatten() {
            // Nobody listens any more if the caller has gone.
            drop(to.send(match &answered {
                Ok(()) => Ok((outcome, append)),
                Err((why, true)) if matches!(outcome, Outcome::Written(..)) => {
                    Err(Error::Indeterminate(why.clone().into()))
                }
                Err((why, _)) => Err(Error::Poisoned(why.clone().into())),
            }));
        }
        if let Some(head) = late {
            self.log.publish(head);
        }
        if answered.is_ok() {
            ended.into_iter().flatten().for_each(|run| self.sealer.seal(run));
        }
    }

    fn write(&self, groups: &[Group]) -> Result<(), Fault> {
        let began = Instant::now();
        let planted = self.log.planted;
        let mut written: Option<&Group> = None;
        if planted.is(Bug::AcknowledgesBeforeTheSync)
            && let Some(Group { segment, .. }) = groups.first()
        {
            segment.file.sync().map_err(Fault::io("sync", &segment.name))?;
        }
        for group in groups.iter().filter(|group| !group.frames.is_empty()) {
            let segment = &group.segment;
            segment.file.write_at(&group.frames, group.start).map_err(Fault::io("write", &segment.name))?;
            written = Some(group);
        }
        if let Some(Group { segment, head, .. }) = written {
            if planted.is(Bug::PublishesBeforeTheSync) {
                self.log.publish(*head);
            }
            if !planted.is(Bug::AcknowledgesBeforeTheSync) {
                segment.file.sync().map_err(Fault::io("sync", &segment.name))?;
            }
            if !planted.is(Bug::PublishesAfterTheAnswers) {
                self.log.publish(*head);
            }
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.took.store(took, Ordering::Relaxed);
        }
        Ok(())
    }
}
