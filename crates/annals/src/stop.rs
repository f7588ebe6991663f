//! How what runs in the background is asked to stop, and how it sees that.

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
        Stop(self.0.subscribe())
    }
}

/// What a task looks at to know when to stop.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl From<watch::Receiver<bool>> for Stop {
    fn from(asked: watch::Receiver<bool>) -> Self {
        Self(asked)
    }
}

impl Stop {
    /// Waits until a stop is asked for.
    pub async fn asked(&mut self) {
        // An error means that the last handle is gone, which asks for the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether a stop is asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Does this unless a stop is asked for, also half way: only for what may be dropped anywhere.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked() => None,
            done = work => Some(done),
        }
    }
}
