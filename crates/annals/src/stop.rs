//! How what runs in the background is asked to stop, and how it sees that.

pub(crate) use annals_consume::Stop;
use tokio::sync::watch;

/// Asks everything in the background to stop. A clone asks the same.
#[derive(Clone)]
pub(crate) struct Stopper(watch::Sender<bool>);

impl Stopper {
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Asks, for good.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    /// Whether a stop was asked for.
    pub fn has_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// What a task looks at.
    pub fn stop(&self) -> Stop {
        self.0.subscribe().into()
    }
}
