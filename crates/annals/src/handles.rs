//! Handles on a system, and the detection of those that are held only by the system's own handlers.
//!
//! A handler that captured an `Annals` would keep the system alive, which keeps the handler. So such handles
//! do not count: the system stops when all remaining handles can only be held by handlers.
//!
//! - H1  `Annals` has an alignment that is very rare, so the alignment of a type shows whether a value of it
//!       holds a handle ([`holds_handle`]), unless the handle is behind a pointer.
//! - H2  Each handler and projection of such a type holds at least one handle for as long as it runs. It
//!       counts as one holder, even if it holds several, but only if there is a handle that it could hold: an
//!       `Option` may be `None`.
//! - H3  A handle that was used outside of handlers since it was created counts; a clone that was moved
//!       directly into a handler was never used outside.
//! - H4  The system stops if there are no more handles than holders, and none of them was used outside. In
//!       doubt it keeps running: if a handler holds two, or one in an `Arc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::stop::Stopper;

/// The alignment of `Annals`. Padding against false sharing uses 128, the widest registers 64.
pub(crate) const ALIGN: usize = 256;

tokio::task_local! {
    /// Set while a handler or a projection of a system runs.
    static INSIDE: ();
}

/// Whether every value of this type holds a handle.
pub(crate) const fn holds_handle<T>() -> bool {
    align_of::<T>() >= ALIGN
}

/// Runs a future as part of a handler.
pub(crate) async fn inside<T>(work: impl Future<Output = T>) -> T {
    INSIDE.scope((), work).await
}

/// Runs code as part of a projection.
pub(crate) fn inside_now<T>(work: impl FnOnce() -> T) -> T {
    INSIDE.sync_scope((), work)
}

/// Counts the handles of a system, and the handlers and projections that hold one.
pub(crate) struct Handles {
    count: Arc<Mutex<Count>>,
    stop: Stopper,
}

#[derive(Default)]
struct Count {
    alive: usize,
    /// Handles that were used outside of handlers.
    used: usize,
    holders: usize,
}

/// The counted part of an `Annals`.
pub(crate) struct Handle {
    count: Arc<Mutex<Count>>,
    stop: Stopper,
    used: AtomicBool,
}

/// Handlers or projections that hold a handle, for as long as they run.
pub(crate) struct Holders {
    count: Arc<Mutex<Count>>,
    number: usize,
}

impl Handles {
    /// Counts handles; the last one stops the system with `stop`.
    pub fn new(stop: Stopper) -> Self {
        Self { count: Arc::default(), stop }
    }

    /// The first handle.
    pub fn handle(&self) -> Handle {
        self.count.lock().alive += 1;
        Handle { count: self.count.clone(), stop: self.stop.clone(), used: AtomicBool::new(false) }
    }

    /// Registers up to this many holders, at most as many as there are unused handles.
    pub fn holders(&self, number: usize) -> Holders {
        let mut count = self.count.lock();
        let unused = count.alive.saturating_sub(count.used).saturating_sub(count.holders);
        let number = number.min(unused);
        count.holders += number;
        drop(count);
        Holders { count: self.count.clone(), number }
    }
}

impl Handle {
    /// Another handle on the same system.
    pub fn another(&self) -> Self {
        self.uses();
        self.count.lock().alive += 1;
        Self { count: self.count.clone(), stop: self.stop.clone(), used: AtomicBool::new(false) }
    }

    /// Marks the handle as used, unless the caller is a handler or a projection.
    pub fn uses(&self) {
        if !self.used.load(Ordering::Relaxed) && INSIDE.try_with(|()| ()).is_err() {
            let mut count = self.count.lock();
            count.used += usize::from(!self.used.swap(true, Ordering::Relaxed));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let stop = {
            let mut count = self.count.lock();
            count.alive -= 1;
            count.used -= usize::from(*self.used.get_mut());
            count.used == 0 && count.alive <= count.holders
        };
        if stop {
            self.stop.ask();
        }
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.count.lock().holders -= self.number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Annals;

    #[tokio::test]
    async fn the_alignment_of_a_type_says_whether_it_holds_a_handle() {
        struct Services {
            _name: String,
            _annals: Annals,
        }
        fn holds<T>(_: &T) -> bool {
            holds_handle::<T>()
        }
        let annals = Annals::open("memory:").await.unwrap();
        let own = annals.clone();
        let services = Services { _name: String::new(), _annals: annals.clone() };
        let held = move || (&own, &services).1._name.len();
        assert!(holds(&held));
        let shared = Arc::new(annals);
        assert!(!holds(&move || shared.store().id()), "behind a pointer it cannot be seen");
        assert!(!holds_handle::<[u128; 100]>());
    }
}
