//! The clock, and the log: recorded time never decreases (G4), so a clock that was ahead once holds it.
//!
//! - T1  An append whose time is too far ahead of the log is refused, before it holds the log's time for years.
//! - T2  A clock that is behind the log, or before 1970, is reported: when a store is opened, and while it is written to.

use std::time::{Duration, Instant};

use annals_core::{Error, Timestamp};

/// A log whose newest event is older than this tells nothing of the clock: machines without a clock begin in 1970 or 2000.
/// It is 2020-01-01.
const PLAUSIBLE: Timestamp = Timestamp::from_micros(1_577_836_800_000_000);
/// A clock may be behind by this without being reported: clocks are set back a little by those who keep them right.
const BEHIND_MIN: Duration = Duration::from_secs(1);
/// A clock that stays behind is reported again after this.
const AGAIN: Duration = Duration::from_secs(3600);

/// Looks at the clock of a log that is opened, with its newest recorded time.
pub fn look(now: Timestamp, recorded_at: Timestamp) {
    if now < Timestamp::from_micros(0) {
        tracing::warn!(%now, "the clock of this machine is before 1970; set it");
    }
    report(now, recorded_at);
}

/// Reports a clock that is behind; returns whether it is.
fn report(now: Timestamp, recorded_at: Timestamp) -> bool {
    let behind = recorded_at.since(now);
    if behind >= BEHIND_MIN {
        tracing::warn!(
            %now,
            newest_event = %recorded_at,
            behind_seconds = behind.as_secs(),
            "the clock of this machine is behind the log: until it has caught up, every event is recorded at the time of \
             the newest one; set the clock, or look for what set it ahead"
        );
    }
    behind >= BEHIND_MIN
}

/// Watches the clock while a log is written to.
#[derive(Default)]
pub struct ClockWatch {
    reported: Option<Instant>,
}

impl ClockWatch {
    /// Looks at the clock for an append, with the recorded time of the one before.
    pub fn look(&mut self, now: Timestamp, recorded_at: Timestamp) {
        if now >= recorded_at {
            self.reported = None;
        } else if self.reported.is_none_or(|at| at.elapsed() >= AGAIN) && report(now, recorded_at) {
            self.reported = Some(Instant::now());
        }
    }
}

/// Refuses a recorded time that is further ahead of what the log knows of time than `most`.
pub fn check(recorded_at: Timestamp, known: Timestamp, most: Duration) -> Result<(), Error> {
    let ahead = recorded_at.since(known);
    if known < PLAUSIBLE || ahead <= most {
        return Ok(());
    }
    let days = |span: Duration| span.as_secs() / (24 * 60 * 60);
    let problem = format!(
        "the clock of this machine says {recorded_at}, {} days after anything that this log knows of ({known}): recorded \
         time never goes back, so it would stay there. Set the clock; if it is right, open the store with a \
         `clock_ahead_max` of more than {} days (for `annals`: ANNALS_CLOCK_AHEAD_MAX_DAYS)",
        days(ahead),
        days(most)
    );
    Err(Error::Unavailable(problem.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_years_ahead_is_refused_unless_nothing_is_known() {
        let day = |number: u64| Duration::from_secs(number * 24 * 60 * 60);
        let known = PLAUSIBLE.plus(day(2_000));
        assert!(check(known.plus(day(366)), known, day(366)).is_ok());
        assert!(check(known.plus(day(367)), known, day(366)).is_err());
        assert!(check(known.plus(day(367)), known, Duration::MAX).is_ok());
        // Back is held, not refused.
        assert!(check(PLAUSIBLE, known, day(366)).is_ok());
        assert!(check(known, Timestamp::MIN, day(366)).is_ok());
        assert!(check(known, Timestamp::from_micros(0), day(366)).is_ok());
    }
}
