//! Messages that a publisher has read and whose results are not in the tables yet.
//!
//! - F1  An aggregate is active from when its messages are handed out until their results are in the tables.
//!       No message of an active aggregate is chosen. So messages of one aggregate are published one after
//!       the other.
//! - F2  Published messages that are not marked yet are kept here also when the lease is lost or the database
//!       cannot be reached: they are marked before anything else is published.
//! - F3  Calls of the sink are counted, also cancelled ones that have not ended because they block their
//!       threads. Until they have ended nothing else is published, and the lease is not released.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::message::Aggregate;
use crate::pending::Published;

/// Shared by the parts of one publisher.
#[derive(Default)]
pub(crate) struct InFlight {
    inner: Mutex<Inner>,
    /// An aggregate is no longer active.
    pub(crate) left: Notify,
    calls: AtomicUsize,
}

/// A call of the sink in progress.
pub(crate) struct Call<'a>(&'a AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Inner {
    active: HashMap<Aggregate, Handed>,
    published: Vec<(Aggregate, Published)>,
    /// No message is handed out before this time.
    paused: Option<Instant>,
}

/// Messages of one aggregate.
#[derive(Clone, Copy)]
struct Handed {
    /// How many were handed out and not given back.
    out: usize,
    marked: usize,
}

impl InFlight {
    /// Counts a call of the sink until the returned guard is dropped.
    pub(crate) fn call(&self) -> Call<'_> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Call(&self.calls)
    }

    pub(crate) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn active(&self) -> Vec<Aggregate> {
        self.inner.lock().active.keys().cloned().collect()
    }

    pub(crate) fn hand_out(&self, aggregate: Aggregate, messages: usize) {
        self.inner.lock().active.insert(aggregate, Handed { out: messages, marked: 0 });
    }

    /// Gives back the messages of an aggregate that were handed out and not published.
    pub(crate) fn give_back(&self, aggregate: &Aggregate) {
        let mut inner = self.inner.lock();
        let unmarked = inner.published.iter().filter(|(found, _)| found == aggregate).count();
        if let Some(handed) = inner.active.get_mut(aggregate) {
            handed.out = handed.marked + unmarked;
        }
        self.deactivate(&mut inner, aggregate);
    }

    /// Records that the sink has taken a message.
    pub(crate) fn published(&self, aggregate: Aggregate, message: Published) {
        self.inner.lock().published.push((aggregate, message));
    }

    /// Returns the published messages that are not marked.
    pub(crate) fn to_mark(&self) -> Vec<Published> {
        self.inner.lock().published.iter().map(|(_, published)| *published).collect()
    }

    /// Records that the first `count` of [`to_mark`](Self::to_mark) were marked.
    pub(crate) fn marked(&self, count: usize) {
        let mut inner = self.inner.lock();
        let marked: Vec<_> = inner.published.drain(..count).collect();
        for (aggregate, _) in marked {
            if let Some(handed) = inner.active.get_mut(&aggregate) {
                handed.marked += 1;
            }
            self.deactivate(&mut inner, &aggregate);
        }
    }

    /// Ends an aggregate's activity when all its messages that were handed out are marked or given back.
    fn deactivate(&self, inner: &mut Inner, aggregate: &Aggregate) {
        if inner.active.get(aggregate).is_some_and(|handed| handed.marked >= handed.out) {
            inner.active.remove(aggregate);
            self.left.notify_one();
        }
    }

    /// Forgets the messages that were handed out, after all calls have ended. Published ones stay until they
    /// are marked.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.active.clear();
        inner.paused = None;
    }

    /// Pauses until this time, unless a pause is in effect. Returns whether this began one.
    pub(crate) fn pause(&self, until: Instant) -> bool {
        let mut inner = self.inner.lock();
        let is_new = inner.paused.is_none_or(|paused| paused <= Instant::now());
        if is_new {
            inner.paused = Some(until);
        }
        is_new
    }

    /// Ends the pause.
    pub(crate) fn unpause(&self) {
        self.inner.lock().paused = None;
    }

    /// Returns the end of the pause, if one is in effect.
    pub(crate) fn paused(&self) -> Option<Instant> {
        self.inner.lock().paused.filter(|paused| *paused > Instant::now())
    }
}
