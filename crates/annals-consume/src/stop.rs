//! How a task is asked to stop.

use tokio::sync::watch;

/// What a task looks at to know when to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl From<watch::Receiver<bool>> for Stop {
    /// A stop is asked for by sending `true`, or by dropping the sender.
    fn from(asked: watch::Receiver<bool>) -> Self {
        Self(asked)
    }
}

impl Stop {
    /// Waits until a stop is asked for.
    pub async fn asked(&mut self) {
        // An error means that nobody is left who could ask, which asks for the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether a stop is asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Does this unless a stop is asked for, also half way: only for what may be dropped anywhere. `None` if it was not done.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked() => None,
            done = work => Some(done),
        }
    }
}
