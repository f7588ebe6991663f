//! What a workload gives: how much, how long, and what it was.

use std::fmt;
use std::time::Duration;

/// The figures of one round of a workload.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Events that were written or read.
    pub events: u64,
    /// Requests that were made.
    pub requests: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// How long each request took, shortest first.
    pub latencies: Vec<Duration>,
    /// Digest of the answers: the same for the same work.
    pub digest: u64,
}

impl Figures {
    /// Figures of requests that took so long each.
    pub fn new(events: u64, elapsed: Duration, mut latencies: Vec<Duration>, digest: u64) -> Self {
        latencies.sort_unstable();
        Self { events, requests: latencies.len() as u64, elapsed, latencies, digest }
    }

    /// Events in a second.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    /// Requests in a second.
    pub fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// The time within which that share of the requests (0 to 1) was answered.
    pub fn latency(&self, share: f64) -> Duration {
        let index = (self.latencies.len() as f64 * share).ceil() as usize;
        self.latencies.get(index.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// How one thing compares with another over several rounds of one run: the median, and the spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The smallest of the rounds.
    pub least: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest of the rounds.
    pub most: f64,
}

impl Ratio {
    /// The ratio over rounds that were measured side by side; nothing without a round.
    pub fn of(rounds: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        Self::spread(rounds.into_iter().map(|(one, other)| one / other))
    }

    /// The median and the spread of these numbers; nothing without a number.
    pub fn spread(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_unstable_by(f64::total_cmp);
        let (&least, &most) = (numbers.first()?, numbers.last()?);
        Some(Self { least, median: numbers[numbers.len() / 2], most })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_sorted_requests() {
        let latencies = (1..=100).rev().map(Duration::from_millis).collect();
        let figures = Figures::new(100, Duration::from_secs(2), latencies, 0);
        assert_eq!(figures.latency(0.5), Duration::from_millis(50));
        assert_eq!(figures.latency(0.99), Duration::from_millis(99));
        assert_eq!(figures.events_per_second(), 50.0);
    }

    #[test]
    fn a_ratio_has_a_median_and_a_spread() {
        let ratio = Ratio::of([(1.0, 1.0), (3.0, 1.0), (4.0, 2.0)]).unwrap();
        assert_eq!(ratio, Ratio { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(ratio.to_string(), "2.00 (1.00 to 3.00)");
    }
}
