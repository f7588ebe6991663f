//! Wakes waiting readers: appends of this process are reported at once, those of other processes are found by
//! polling.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_sql::{Poll, Progress};
use tokio::task::JoinSet;

use crate::read::Reader;

/// A task that polls the head while a reader waits, until this is dropped.
pub(crate) struct Watch(
    #[allow(dead_code, reason = "holds the task as long as the store lives")] JoinSet<()>,
);

impl Watch {
    pub(crate) fn start(reader: Arc<Reader>, poll: Duration, progress: Progress) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut answered = Instant::now();
            let mut poll = Poll::every(poll);
            loop {
                tokio::time::sleep(poll.pause()).await;
                if !progress.is_waited_for() {
                    answered = Instant::now();
                    continue;
                }
                match reader.head().await {
                    Ok(head) => {
                        answered = Instant::now();
                        poll.found(head);
                        progress.passed(head);
                    }
                    // Without an error, a reader would wait for a server that is gone.
                    Err(error) if answered.elapsed() >= reader.silence => progress.fail(error),
                    Err(error) => tracing::debug!(error = error.chain(), "the head could not be read"),
                }
            }
        });
        Self(tasks)
    }
}
