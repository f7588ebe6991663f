//! Work that blocks its thread, on threads for blocking work.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

/// Runs work on a thread for blocking work. If it panics, so does the call. `None` if the runtime shuts down
/// before the work begins.
pub async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// Runs a future on threads for blocking work. It has a thread while it runs and none while it waits, so
/// those that wait for each other never use up the threads of a runtime.
///
/// The future is dropped if the runtime shuts down; `None` then.
pub(crate) async fn on_blocking_threads<F>(future: F) -> Option<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut future = Box::pin(future);
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(woken.clone());
    loop {
        let waker = waker.clone();
        let poll = move || {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            (future, polled)
        };
        let (back, polled) = on_blocking_thread(poll).await?;
        match polled {
            Poll::Ready(output) => return Some(output),
            Poll::Pending => future = back,
        }
        // Also if it was woken while it still ran.
        woken.0.notified().await;
    }
}

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Set when this is dropped.
#[derive(Default)]
pub(crate) struct Dropped(Arc<AtomicBool>);

impl Dropped {
    /// Returns whether it was dropped, when it is called.
    pub fn watch(&self) -> impl Fn() -> bool + Send + use<> {
        let dropped = self.0.clone();
        move || dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Mutex;

    use super::*;

    /// One thread for blocking work.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap()
    }

    #[test]
    fn those_that_wait_for_each_other_share_one_thread() {
        runtime().block_on(async {
            let lock = Arc::new(Mutex::new(0));
            let mut held = lock.clone().lock_owned().await;
            let waits = on_blocking_threads({
                let lock = lock.clone();
                async move {
                    let mut number = lock.lock().await;
                    *number += spawn_blocking(|| 1).await.unwrap();
                    *number
                }
            });
            let works = async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                *held += spawn_blocking(|| 10).await.unwrap();
                drop(held);
            };
            let both = async { tokio::join!(waits, works) };
            let (number, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends");
            assert_eq!(number, Some(11));
        });
    }

    #[test]
    fn a_panic_is_handed_on_and_a_drop_is_seen() {
        runtime().block_on(async {
            let panics = tokio::spawn(on_blocking_threads(async { panic!("broken") }));
            let panic = panics.await.unwrap_err().into_panic();
            assert_eq!(*panic.downcast::<&str>().unwrap(), "broken");
            let dropped = Dropped::default();
            let is_dropped = dropped.watch();
            assert!(!is_dropped());
            drop(dropped);
            assert!(is_dropped());
        });
    }
}
