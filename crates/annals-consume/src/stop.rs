//! Stop requests for tasks.

use tokio::sync::watch;

/// A receiver of a stop request.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl From<watch::Receiver<bool>> for Stop {
    /// Sending `true` or dropping the sender requests a stop.
    fn from(asked: watch::Receiver<bool>) -> Self {
        Self(asked)
    }
}

impl Stop {
    /// Waits until a stop is requested.
    pub async fn asked(&mut self) {
        // An error means that the sender was dropped.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether a stop is requested.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Runs a future until it completes or a stop is requested, which drops it and returns `None`. Only for
    /// futures that may be dropped at any await.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked() => None,
            done = work => Some(done),
        }
    }
}
