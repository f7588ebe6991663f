//! One command at a time for each aggregate: callers in one process queue instead of conflicting.
//!
//! This improves only speed. Correctness depends on the condition of the append, which also covers other
//! processes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use annals_core::StreamId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The waiting callers of each locked aggregate, in order of arrival.
type Queues = Mutex<HashMap<StreamId, VecDeque<oneshot::Sender<StreamLock>>>>;

/// A lock for each aggregate.
#[derive(Clone, Default)]
pub(crate) struct StreamLocks(Arc<Queues>);

/// The lock of an aggregate. Dropping it passes it to the next caller.
pub(crate) struct StreamLock(Option<(Arc<Queues>, StreamId)>);

impl StreamLocks {
    /// Acquires the lock of this aggregate, and waits until it is free.
    pub async fn acquire(&self, stream: &StreamId) -> StreamLock {
        let lock = || StreamLock(Some((self.0.clone(), stream.clone())));
        let waiting = match self.0.lock().entry(stream.clone()) {
            Entry::Vacant(nobody) => {
                nobody.insert(VecDeque::new());
                return lock();
            }
            Entry::Occupied(mut others) => {
                let (next, waiting) = oneshot::channel();
                let others = others.get_mut();
                // Cancelled waiters are removed before the queue grows, so that they do not accumulate.
                if others.len() == others.capacity() {
                    others.retain(|other: &oneshot::Sender<StreamLock>| !other.is_closed());
                }
                others.push_back(next);
                waiting
            }
        };
        waiting.await.expect("a lock is handed on as long as somebody waits")
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for StreamLock {
    fn drop(&mut self) {
        let Some((queues, stream)) = self.0.take() else { return };
        let mut lock = StreamLock(Some((queues.clone(), stream.clone())));
        let mut queues = queues.lock();
        while let Some(next) = queues.get_mut(&stream).and_then(VecDeque::pop_front) {
            // A cancelled waiter returns the lock, or drops it, which passes it on as well.
            match next.send(lock) {
                Ok(()) => return,
                Err(back) => lock = back,
            }
        }
        queues.remove(&stream);
        lock.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_empty_queue_is_removed() {
        let locks = StreamLocks::default();
        let stream = StreamId::new("account-1").unwrap();
        let first = locks.acquire(&stream).await;
        let given_up = tokio::time::timeout(Duration::ZERO, locks.acquire(&stream)).await;
        assert!(given_up.is_err(), "the second has to wait");
        assert_eq!(locks.len(), 1);
        drop(first);
        assert_eq!(locks.len(), 0);
        drop(locks.acquire(&stream).await);
        assert_eq!(locks.len(), 0);
    }

    /// A caller that cancels and retries leaves no entry in the queue, however long another caller holds the
    /// lock.
    #[tokio::test]
    async fn abandoned_waiters_do_not_accumulate() {
        let locks = StreamLocks::default();
        let stream = StreamId::new("account-1").unwrap();
        let _first = locks.acquire(&stream).await;
        for _ in 0..1_000 {
            let given_up = tokio::time::timeout(Duration::ZERO, locks.acquire(&stream)).await;
            assert!(given_up.is_err(), "somebody works");
        }
        let waiting = locks.0.lock()[&stream].len();
        assert!(waiting < 100, "{waiting} are remembered, and nobody waits");
    }

    /// Callers arrive and cancel at any time, including the moment in which they would get the lock.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time_and_no_waiter_is_forgotten() {
        let locks = StreamLocks::default();
        let stream = StreamId::new("account-1").unwrap();
        let working = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let callers: Vec<_> = (0..8_u64)
            .map(|caller| {
                let (locks, stream, working) = (locks.clone(), stream.clone(), working.clone());
                tokio::spawn(async move {
                    for round in 0..500 {
                        let patience = Duration::from_micros((caller * 37 + round * 11) % 60);
                        let lock = if caller % 2 == 0 {
                            Some(locks.acquire(&stream).await)
                        } else {
                            tokio::time::timeout(patience, locks.acquire(&stream)).await.ok()
                        };
                        let Some(_lock) = lock else { continue };
                        assert_eq!(working.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        working.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(locks.len(), 0);
    }
}
