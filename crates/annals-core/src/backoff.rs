//! How long to wait before something that failed is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that double, up to a longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// The first wait and the longest one.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The longest wait.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// The wait before this attempt, of which the first is 1: between a half and the whole of what doubling
    /// gives, so that those who failed together do not come back together.
    pub fn before(&self, attempt: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let whole = doubled.min(self.longest);
        whole / 2 + whole.mul_f64(fraction() / 2.0)
    }
}

/// A number from 0 to 1 that differs from call to call. Good enough to spread waits; for nothing else.
fn fraction() -> f64 {
    let hash = RandomState::new().hash_one(());
    f64::from((hash >> 32) as u32) / f64::from(u32::MAX)
}
