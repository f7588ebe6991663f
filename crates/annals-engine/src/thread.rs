//! Threads and synchronisation primitives: those of the system or, in the model (`model.rs`), those of a
//! scheduler that tries different interleavings.
//!
//! Only primitives that order the steps of an append are used from here: who writes, who syncs, who
//! publishes. Locks that are never held during a wait are used directly.

#[cfg(not(all(test, feature = "shuttle")))]
mod system {
    pub use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};
    pub use std::sync::mpsc;
    pub use std::thread::{Builder, JoinHandle};
    pub use std::time::Instant;

    pub use parking_lot::{Condvar, Mutex, MutexGuard};
}

#[cfg(all(test, feature = "shuttle"))]
mod system {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Duration;

    use shuttle::rand::Rng as _;
    pub use shuttle::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};
    pub use shuttle::sync::mpsc;
    pub use shuttle::thread::{Builder, JoinHandle};

    /// A time of unknown distance to any other.
    pub struct Instant;

    impl Instant {
        pub fn now() -> Self {
            Self
        }

        /// Returns zero or a long time at random, so that code that depends on it is tried both ways.
        pub fn elapsed(&self) -> Duration {
            Duration::from_secs(shuttle::rand::thread_rng().gen_range(0..2))
        }
    }

    #[derive(Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    pub struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }

        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(MutexGuard(Some(guard))),
                Err(std::sync::TryLockError::Poisoned(poisoned)) => {
                    Some(MutexGuard(Some(poisoned.into_inner())))
                }
                Err(std::sync::TryLockError::WouldBlock) => None,
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("it is only away while it waits")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("it is only away while it waits")
        }
    }

    #[derive(Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.0.take().expect("it is only away while it waits");
            guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }
    }
}

pub use system::*;
