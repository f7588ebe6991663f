//! Handles on a system, and which of them only what runs in it holds.
//!
//! A handler that captured an `Annals` would keep the system alive, which keeps the handler. So such handles do not count:
//! the system stops when all handles that are left can only be those.
//!
//! - H1  `Annals` is aligned as hardly anything else is, so the alignment of a type says whether a value of it holds a
//!       handle ([`holds_handle`]), unless that is behind a pointer.
//! - H2  Each handler and projection of such a type holds at least one handle for as long as it runs. It counts as one
//!       holder, however many it holds, but only while there is a handle that it could hold: an `Option` may be `None`.
//! - H3  A handle that was used outside of handlers since it was made does count; a clone that went straight into a
//!       handler never was.
//! - H4  The system stops if there are no more handles than holders, and none of them counts. In doubt it runs on: of a
//!       handler that holds two, or one behind an `Arc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::stop::Stopper;

/// The alignment of `Annals`. Padding against false sharing takes 128, the widest registers 64.
pub(crate) const ALIGN: usize = 256;

tokio::task_local! {
    /// Set while a handler or a projection of a system runs.
    static INSIDE: ();
}

/// Whether every value of this type holds a handle.
pub(crate) const fn holds_handle<T>() -> bool {
    align_of::<T>() >= ALIGN
}

/// Runs a future as what a handler does.
pub(crate) async fn inside<T>(work: impl Future<Output = T>) -> T {
    INSIDE.scope((), work).await
}

/// Runs code as what a projection does.
pub(crate) fn inside_now<T>(work: impl FnOnce() -> T) -> T {
    INSIDE.sync_scope((), work)
}

/// How many handles a system has, and how many things that run in it hold one.
pub(crate) struct Handles {
    count: Arc<Mutex<Count>>,
    stop: Stopper,
}

#[derive(Default)]
struct Count {
    alive: usize,
    /// Those that were used outside of handlers.
    used: usize,
    holders: usize,
}

/// What makes a value a handle.
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
    /// Handles that stop the system by this.
    pub fn new(stop: Stopper) -> Self {
        Self { count: Arc::default(), stop }
    }

    /// The first handle.
    pub fn handle(&self) -> Handle {
        self.count.lock().alive += 1;
        Handle { count: self.count.clone(), stop: self.stop.clone(), used: AtomicBool::new(false) }
    }

    /// Up to this many hold one.
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
    /// Another one for the same system.
    pub fn another(&self) -> Self {
        self.uses();
        self.count.lock().alive += 1;
        Self { count: self.count.clone(), stop: self.stop.clone(), used: AtomicBool::new(false) }
    }

    /// It is used.
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
