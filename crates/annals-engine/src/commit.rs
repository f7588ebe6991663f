//! Group commit: an append waits only for the disk.
//!
//! Appends are queued. One caller at a time has the *staging slot*: it drains the queue and stages the
//! appends on its own thread, where they are in the processor's cache. Staged appends form a group. The
//! *leader* takes the group, and writes and syncs it while others stage the next. There is no timer. The
//! background thread becomes the leader when it is called, and stages the rest of the queue, including
//! appends that need a new segment. If an append is the only one, its caller becomes the leader and executes
//! it: two context switches take longer than a fast disk.
//!
//! - C1  There is one leader at a time, so groups become durable in the order in which they were staged.
//! - C2  Every caller that queues or stages calls the thread, unless the thread was called already or the
//!       caller is the leader; a leader that steps down calls it if anything is queued or staged. So no
//!       append waits forever.
//! - C3  The thread closes the log, as the leader, when nothing is queued or staged; from then on appends are
//!       refused.
//!
//! Next below: `writer` (the staged appends and the end of the log), then `sync`. Between them `staging` and
//! `stage` (decision and frames); beside them `outcome`, `clock`, `noted` (how far the log is durable), and
//! in the background `seal` (indexes of finished runs).

pub mod clock;
pub mod heads;
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
use crate::thread::{Condvar, Mutex, MutexGuard};
use outcome::Answered;
use sync::{Group, Syncer};
use writer::{Request, Writer};

/// How many times a caller drains the queue before it leaves the rest to the thread.
const ROUNDS: usize = 8;

/// The queue of appends, and the state that the callers and the thread share.
pub struct Commit {
    log: Arc<Log>,
    syncer: Arc<Syncer>,
    slot: Mutex<StagingSlot>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The writer, which is `None` once the log is closed, and whether there is a leader.
struct StagingSlot {
    writer: Option<Writer>,
    leader: Leader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    Absent,
    /// The thread was called and will become the leader.
    Called,
    Active,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    /// Whether the thread was called and has not yet run.
    due: bool,
    closing: bool,
}

impl StagingSlot {
    /// Returns a buffer to the writer, for a later group.
    fn take_back(&mut self, buffer: Vec<u8>) {
        if let Some(writer) = &mut self.writer {
            writer.take_back(buffer);
        }
    }
}

impl Commit {
    /// A queue for this writer.
    pub fn new(writer: Writer) -> Self {
        Self {
            log: writer.staging.log.clone(),
            syncer: writer.syncer.clone(),
            slot: Mutex::new(StagingSlot { writer: Some(writer), leader: Leader::Absent }),
            queue: Mutex::default(),
            wake: Condvar::default(),
        }
    }

    /// Queues an append, and stages the queue unless another thread has the staging slot.
    ///
    /// # Errors
    /// `Closed` if the log is closed or closing.
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
        // The holder of the slot may have drained the queue before this append was in it.
        self.call(&mut self.queue.lock());
        Ok(())
    }

    /// Stages queued appends as long as there is room for them.
    fn stage_queued(&self, slot: &mut StagingSlot) {
        let Some(writer) = &mut slot.writer else { return };
        for _ in 0..ROUNDS {
            let mut queue = self.queue.lock();
            // Without room for the first append, leave the queue in place: else each new caller would move
            // all of it.
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

    /// Executes an append if there is no leader, and the disk is quick or the append needs no write; returns
    /// it otherwise.
    pub fn execute(&self, request: Request) -> Option<Request> {
        let Some(mut slot) = self.slot.try_lock() else { return Some(request) };
        let StagingSlot { writer: Some(writer), leader } = &mut *slot else { return Some(request) };
        if *leader != Leader::Absent {
            return Some(request);
        }
        // An append that needs a new run, segment or space is left to the thread: that may take long on any
        // disk.
        if !self.syncer.is_quick() || !writer.has_room(&request.encoded) {
            let verdict = self.guarded(|| writer.verdict(&request.append)).flatten();
            drop(slot);
            let Some(verdict) = verdict else { return Some(request) };
            let Request { append, encoded, answer, .. } = request;
            // The send fails if the caller is gone.
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

    /// Ends the leadership; anything queued or staged is left to the thread.
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

    /// Makes the thread close the log after everything queued is committed. Does not wait for it.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closing = true;
        self.call(&mut queue);
    }

    fn call(&self, queue: &mut Queue) {
        queue.due = true;
        self.wake.notify_one();
    }

    /// The loop of the thread: waits to be called, then commits everything queued, until the log is closed.
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

    /// Becomes the leader, and makes appends durable until none is queued or staged; `None` if there is
    /// another leader.
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
            // Appends after a full group are staged when that group is being written.
            self.queue.lock().requests.splice(0..0, queued);
            let Some(group) = group.flatten() else { return Some(slot) };
            drop(slot);
            let buffer = self.make_durable(Some(group));
            slot = self.slot.lock();
            slot.take_back(buffer);
        }
    }

    fn make_durable(&self, group: Option<Group>) -> Vec<u8> {
        group.and_then(|group| self.guarded(|| self.syncer.make_durable(group))).unwrap_or_default()
    }

    /// Runs `work`; if it panics (a broken invariant), poisons the store and returns `None`.
    fn guarded<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(work));
        if done.is_err() {
            self.syncer.poison.set("an invariant was found broken, and the writer stopped");
        }
        done.ok()
    }
}
