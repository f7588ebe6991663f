//! The signal that stops background tasks.

pub(crate) use annals_consume::Stop;
use tokio::sync::watch;

/// Sends the stop signal to all background tasks. Clones share one signal.
#[derive(Clone)]
pub(crate) struct Stopper(watch::Sender<bool>);

impl Stopper {
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Sends the signal; it cannot be revoked.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    /// Whether the signal was sent.
    pub fn has_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// The receiver for a task.
    pub fn stop(&self) -> Stop {
        self.0.subscribe().into()
    }
}
