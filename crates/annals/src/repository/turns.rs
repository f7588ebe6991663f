//! One command at a time for each aggregate: callers in one process queue instead of running into each other.
//!
//! This is about speed only. What keeps writers from undoing each other is the condition of the append, which
//! also holds against other processes.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::StreamId;
use parking_lot::Mutex;

type Queue = Arc<tokio::sync::Mutex<()>>;

/// The queues of the aggregates that somebody works on just now.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<StreamId, Queue>>>);

/// A place in the queue of an aggregate, and in time its head. Dropping it lets the next one on.
pub(crate) struct Turn {
    queues: Arc<Mutex<HashMap<StreamId, Queue>>>,
    stream: StreamId,
    queue: Queue,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until it is one's turn.
    pub async fn take(&self, stream: &StreamId) -> Turn {
        let queue = self.0.lock().entry(stream.clone()).or_default().clone();
        let mut turn = Turn { queues: self.0.clone(), stream: stream.clone(), queue, held: None };
        turn.held = Some(turn.queue.clone().lock_owned().await);
        turn
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        let mut queues = self.queues.lock();
        // Let go of while the map is locked: of two who leave at once, the second finds nobody else.
        drop(std::mem::take(&mut self.queue));
        // The map's alone: nobody else waits, and nobody can come while the map is locked.
        if queues.get(&self.stream).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_is_gone_when_nobody_is_in_it() {
        let turns = Turns::default();
        let stream = StreamId::new("account-1").unwrap();
        let first = turns.take(&stream).await;
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, turns.take(&stream)).await;
        assert!(given_up.is_err(), "the second has to wait");
        assert_eq!(turns.len(), 1);
        drop(first);
        assert_eq!(turns.len(), 0);
        drop(turns.take(&stream).await);
        assert_eq!(turns.len(), 0);
    }
}
