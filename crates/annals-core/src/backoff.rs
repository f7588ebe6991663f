//! Delays between the attempts of an operation that failed.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Delays that double, up to a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// The first delay and the longest one.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The longest delay.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// The delay before this attempt, counted from 1: a random part between half and all of the doubled
    /// delay, so that clients that failed together do not retry together.
    pub fn before(&self, attempt: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let whole = doubled.min(self.longest);
        whole / 2 + whole.mul_f64(fraction() / 2.0)
    }
}

/// A number from 0 to 1 that differs from call to call. Random enough to spread delays, and for nothing else.
fn fraction() -> f64 {
    let hash = RandomState::new().hash_one(());
    f64::from((hash >> 32) as u32) / f64::from(u32::MAX)
}
