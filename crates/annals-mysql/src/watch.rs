//! Waking those who wait: what this process writes is known at once, what others write by looking.

use std::time::Duration;

use annals_sql::Progress;
use sqlx::mysql::MySqlPool;
use tokio::task::JoinSet;

use crate::read;

/// A task that looks at the head while somebody waits, until this is dropped.
pub(crate) struct Watch(
    #[allow(dead_code, reason = "holds the task as long as the store lives")] JoinSet<()>,
);

impl Watch {
    pub(crate) fn start(pool: MySqlPool, poll: Duration, progress: Progress) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(poll).await;
                if progress.is_waited_for()
                    && let Ok(head) = read::head(&pool).await
                {
                    progress.passed(head);
                }
            }
        });
        Self(tasks)
    }
}
