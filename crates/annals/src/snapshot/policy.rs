//! The policy that determines when a snapshot is taken.

use std::time::Duration;

/// When a snapshot is taken: after a number of events, after a time, or whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    events: Option<u64>,
    age: Option<Duration>,
}

/// Takes a snapshot after this many events since the last one; at least 1.
pub fn every(events: u64) -> Policy {
    Policy { events: Some(events.max(1)), age: None }
}

/// Takes a snapshot if there are new events and the last snapshot (or, without one, the first event) is older
/// than this.
pub fn older_than(age: Duration) -> Policy {
    Policy { events: None, age: Some(age) }
}

impl Policy {
    /// Takes a snapshot when one is due by either policy.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let shortest = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
        Self { events: least(self.events, other.events), age: shortest(self.age, other.age) }
    }

    pub(super) fn is_due(self, events: u64, age: Duration) -> bool {
        self.events.is_some_and(|limit| events >= limit) || self.age.is_some_and(|limit| age > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_by_count_or_by_age() {
        let hour = Duration::from_secs(3600);
        let policy = every(100).or(older_than(hour));
        assert!(!policy.is_due(99, hour));
        assert!(policy.is_due(100, Duration::ZERO));
        assert!(policy.is_due(1, hour + Duration::from_secs(1)));
        assert!(every(7).or(every(5)).is_due(5, Duration::ZERO));
    }
}
