//! How far the log is known to have come: what waiting ends by.

use annals_core::Position;
use tokio::sync::watch;

/// The newest head that anybody in this process has seen. A clone is the same.
#[derive(Clone, Debug)]
pub struct Progress(watch::Sender<Position>);

impl Progress {
    /// The log is known to have come to here.
    pub fn at(head: Position) -> Self {
        Self(watch::Sender::new(head))
    }

    /// The log has come to here, or further.
    pub fn passed(&self, head: Position) {
        self.0.send_if_modified(|known| {
            let further = head > *known;
            *known = head.max(*known);
            further
        });
    }

    /// The newest head that is known.
    pub fn head(&self) -> Position {
        *self.0.borrow()
    }

    /// Waits until the head is beyond this position, and returns it.
    pub async fn wait(&self, after: Position) -> Position {
        let mut head = self.0.subscribe();
        let head = head.wait_for(|head| *head > after).await;
        *head.expect("the sender lives as long as this")
    }

    /// Whether anybody waits.
    pub fn is_waited_for(&self) -> bool {
        self.0.receiver_count() > 0
    }
}
