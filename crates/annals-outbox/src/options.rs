//! The options of a publisher, and which are refused.

use std::time::Duration;

use annals_core::{Backoff, Invalid};

/// The options of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often it polls the table when it is not [woken](crate::PublisherWaker). 1 second by default.
    pub poll: Duration,
    /// How many messages it reads at once. 256 by default.
    pub batch: usize,
    /// How many aggregates it publishes at once. 16 by default.
    pub concurrency: usize,
    /// Time limit of the sink for one message. 5 seconds by default.
    pub timeout: Duration,
    /// Length of the lease: after a publisher has died, another takes over within this time. At least twice
    /// `timeout`. 15 seconds by default.
    pub lease: Duration,
    /// After how many refused attempts a message becomes a dead letter. 10 by default.
    pub attempts_max: u32,
    /// How long a refused message waits for its next attempt. From 1 second to 5 minutes by default.
    pub backoff: Backoff,
    /// How long messages are kept after they were published. 7 days by default.
    pub keep: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            batch: 256,
            concurrency: 16,
            timeout: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            attempts_max: 10,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            keep: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Options {
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let between = |field: &str, value: usize, most: usize| {
            let problem = || Invalid::new(field, format!("is {value}, and must be from 1 to {most}"));
            if (1..=most).contains(&value) { Ok(()) } else { Err(problem()) }
        };
        between("batch", self.batch, 10_000)?;
        between("concurrency", self.concurrency, 256)?;
        between("attempts_max", self.attempts_max as usize, u32::MAX as usize)?;
        for (field, time) in [("poll", self.poll), ("timeout", self.timeout)] {
            if time.is_zero() {
                return Err(Invalid::new(field, "is zero"));
            }
        }
        if self.lease < self.timeout * 2 {
            let problem =
                format!("is {:?}, and must be at least twice the timeout, {:?}", self.lease, self.timeout);
            return Err(Invalid::new("lease", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused() {
        assert_eq!(Options::default().validate(), Ok(()));
        let wrong = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert_eq!(wrong(|o| o.poll = Duration::ZERO), "poll is zero");
        assert_eq!(wrong(|o| o.batch = 0), "batch is 0, and must be from 1 to 10000");
        assert_eq!(wrong(|o| o.concurrency = 257), "concurrency is 257, and must be from 1 to 256");
        assert_eq!(wrong(|o| o.attempts_max = 0), "attempts_max is 0, and must be from 1 to 4294967295");
        assert_eq!(
            wrong(|o| o.lease = Duration::from_secs(9)),
            "lease is 9s, and must be at least twice the timeout, 5s"
        );
    }
}
