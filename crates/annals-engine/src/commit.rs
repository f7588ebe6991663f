//! Group commit: an append waits for no more than the disk.
//!
//! An append is put into the queue. One caller at a time has the *staging slot*: it drains the queue and stages it, where the
//! callers are and in their processor's cache. What is staged is a group. The *leader* takes it, and writes and syncs it while
//! others stage the next. There is no timer. The background thread becomes the leader when it is called, and stages
//! what is left in the queue, which may be what needs a new segment first. An append that comes alone is executed by
//! its caller, who becomes the leader for it: two changes of threads take longer than a fast disk.
//!
//! - C1  There is one leader at a time, so groups become durable in the order in which they were staged.
//! - C2  Every caller that queues or stages calls the thread, unless it was called already or the caller is the
//!       leader; a caller that steps down calls it if anything waits. So nothing waits for ever.
//! - C3  The log is closed by the thread, as the leader, when nothing waits; from then on appends are refused.
//!
//! Next below: `writer` (what is staged, and where), then `sync`. Between them `staging` and `stage` (decision and frames);
//! beside them `outcome`, `clock`, `noted` (how far the log is durable), and in the background `seal` (indexes of finished runs).

pub mod clock;
pub mod noted;
pub mod outcome;
pub mod seal;
pub mod stage;
pub mod staging;
pub mod sync;
pub mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_core::Error;

use crate::read::view::Log;
use crate::thread::{self, Condvar, Mutex, MutexGuard};
use outcome::Answered;
use sync::{Group, Syncer};
use writer::{Request, Writer};

/// How often a caller looks for what others have queued while it staged, before it leaves the rest to the thread.
const ROUNDS: usize = 8;

/// Where appends come in, for callers and for the thread.
pub struct Commit {
    log: Arc<Log>,
    syncer: Arc<Syncer>,
    slot: Mutex<StagingSlot>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The writer, which is gone when the log is closed, and whether there is a leader.
struct StagingSlot {
    writer: Option<Writer>,
    leader: Leader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    Absent,
    /// The thread was called, and will be the leader.
    Called,
    Active,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    /// Whether there may be something to do for the thread.
    due: bool,
    closing: bool,
}

impl StagingSlot {
    /// Keeps a buffer for the next group.
    fn take_back(&mut self, buffer: Vec<u8>) {
        if let Some(writer) = &mut self.writer {
            writer.take_back(buffer);
        }
    }
}

impl Commit {
    /// Takes appends in for this writer.
    pub fn new(writer: Writer) -> Self {
        Self {
            log: writer.staging.log.clone(),
            syncer: writer.syncer.clone(),
            slot: Mutex::new(StagingSlot { writer: Some(writer), leader: Leader::Absent }),
            queue: Mutex::default(),
            wake: Condvar::default(),
        }
    }

    /// Queues an append, and stages what is queued, if nobody else does.
    ///
    /// # Errors
    /// `Closed` if the log is closed, or about to be.
    pub fn submit(&self, request: Request) -> Result<(), Error> {
        {
            let mut queue = self.queue.lock();
            if queue.closing {
                return Err(Error::Closed);
            }
            queue.requests.push(request);
        }
        if let Some(mut slot) = self.slot.try_lock() {
            self.stage_queued(&mut slot);
            if slot.leader != Leader::Absent {
                return Ok(());
            }
            slot.leader = Leader::Called;
        }
        // The caller that has the slot may have looked at the queue before this append was in it.
        self.call(&mut self.queue.lock());
        Ok(())
    }

    /// Stages what is queued as long as there is room for it.
    fn stage_queued(&self, slot: &mut StagingSlot) {
        let Some(writer) = &mut slot.writer else { return };
        for _ in 0..ROUNDS {
            let mut queue = self.queue.lock();
            // What has no room stays where it is, or a crowd would be moved by everyone who joins it.
            if !queue.requests.first().is_some_and(|first| writer.has_room(&first.encoded)) {
                return;
            }
            let mut queued = std::mem::take(&mut queue.requests).into_iter();
            drop(queue);
            while let Some(request) = queued.next() {
                if writer.has_room(&request.encoded) {
                    self.guarded(|| writer.stage(request));
                    continue;
                }
                let rest = std::iter::once(request).chain(queued);
                self.queue.lock().requests.splice(0..0, rest);
                return;
            }
        }
    }

    /// Executes an append if there is no leader and the disk is quick; returns it otherwise.
    pub fn execute(&self, request: Request) -> Option<Request> {
        let Some(mut slot) = self.slot.try_lock() else { return Some(request) };
        let StagingSlot { writer: Some(writer), leader } = &mut *slot else { return Some(request) };
        if *leader != Leader::Absent {
            return Some(request);
        }
        // What needs a new run, segment or space is for the thread: that may take long on any disk.
        if !self.syncer.is_quick() || !writer.has_room(&request.encoded) {
            let verdict = self.guarded(|| writer.verdict(&request.append)).flatten();
            drop(slot);
            let Some(verdict) = verdict else { return Some(request) };
            let Request { append, encoded, answer, .. } = request;
            // Nobody listens any more if the caller has gone.
            drop(answer.send(verdict.map(|outcome| Answered { outcome, append, _encoded: encoded })));
            return None;
        }
        *leader = Leader::Active;
        let group = self.guarded(|| {
            writer.stage(request);
            writer.group()
        });
        drop(slot);
        let buffer = self.make_durable(group.flatten());
        let mut slot = self.slot.lock();
        slot.take_back(buffer);
        self.step_down(slot);
        None
    }

    /// Ends the leadership; what waits is for the thread.
    fn step_down(&self, mut slot: MutexGuard<'_, StagingSlot>) {
        let mut queue = self.queue.lock();
        let is_staged = slot.writer.as_ref().is_some_and(Writer::has_staged);
        if is_staged || !queue.requests.is_empty() || queue.closing {
            slot.leader = Leader::Called;
            self.call(&mut queue);
        } else {
            slot.leader = Leader::Absent;
        }
    }

    /// Closes the log when nothing waits any more.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closing = true;
        self.call(&mut queue);
    }

    fn call(&self, queue: &mut Queue) {
        queue.due = true;
        self.wake.notify_one();
    }

    /// What the thread does: all that waits, as often as it is called, until the log is closed.
    pub fn run(&self) {
        loop {
            let closing = {
                let mut queue = self.queue.lock();
                while !queue.due {
                    self.wake.wait(&mut queue);
                }
                queue.due = false;
                queue.closing
            };
            let Some(mut slot) = self.lead() else { continue };
            if closing {
                let writer = slot.writer.take();
                drop(slot);
                self.guarded(|| writer.map(Writer::close));
                self.syncer.finish();
                self.log.progress.send_modify(|progress| progress.closed = true);
                return;
            }
            self.step_down(slot);
        }
    }

    /// Becomes the leader, and makes the queued appends durable until none waits; `None` if there is another leader.
    fn lead(&self) -> Option<MutexGuard<'_, StagingSlot>> {
        let mut slot = self.slot.lock();
        if slot.leader == Leader::Active {
            return None;
        }
        slot.leader = Leader::Active;
        loop {
            let mut queued = std::mem::take(&mut self.queue.lock().requests).into_iter();
            let writer = slot.writer.as_mut().expect("the writer is there until the log is closed");
            let group = self.guarded(|| {
                while !writer.has_whole_group()
                    && let Some(request) = queued.next()
                {
                    writer.stage(request);
                }
                writer.group()
            });
            // What comes behind a whole group is staged when that one is under way.
            self.queue.lock().requests.splice(0..0, queued);
            let Some(group) = group.flatten() else { return Some(slot) };
            drop(slot);
            let buffer = self.make_durable(Some(group));
            // Those who were answered come again: what they bring is one group rather than two.
            thread::yield_now();
            slot = self.slot.lock();
            slot.take_back(buffer);
        }
    }

    fn make_durable(&self, group: Option<Group>) -> Vec<u8> {
        group.and_then(|group| self.guarded(|| self.syncer.make_durable(group))).unwrap_or_default()
    }

    /// Does what may find an invariant broken; if it does, the store is poisoned.
    fn guarded<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(work));
        if done.is_err() {
            self.syncer.poison.set("an invariant was found broken, and the writer stopped");
        }
        done.ok()
    }
}
