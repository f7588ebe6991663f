//! The clock, and the log: recorded time never decreases (G4), so a clock that was ahead once holds it.
//!
//! - T1  An append whose time is too far ahead of the log is refused, before it holds the log's time for years.
//! - T2  A clock that is behind the log, or before 1970, is reported: when a store is opened, and while it is written to.
//! - T3  What is known of the time is that of the newest event, and when the store was last in use with a clock that could
//!       be right: so a log of old events, or one that rested, is written to. The headers of segments say nothing.
//! - T4  What was seen does not go back at once: a machine that starts with an old time forgets nothing. It is noted only if
//!       it is not too far ahead of what was known before. What a log saw whose events tell no time, because it has none, is
//!       replaced.
//! - T5  A time that is seen by a clock that is ahead is not believed for years. A store that is in use for a week, by a clock
//!       that is not behind the log but behind what was seen, takes the time of that clock instead.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_core::{Error, Timestamp};

use crate::Options;
use crate::disk::{Disk, LastUse};
use crate::thread::{Instant, Mutex};

/// A log whose newest event is older than this is not compared with the clock: machines without a clock begin in 1970 or 2000.
/// It is 2020-01-01.
const PLAUSIBLE: Timestamp = Timestamp::from_micros(1_577_836_800_000_000);
/// A clock may be behind by this without being reported: clocks are set back a little by those who keep them right.
const BEHIND_MIN: Duration = Duration::from_secs(1);
/// A clock that stays behind is reported again after this.
const AGAIN: Duration = Duration::from_secs(3600);

/// A clock that is behind what was seen by less contradicts nothing.
const DOUBT_MIN: Duration = Duration::from_secs(24 * 3600);
/// What was seen is given up when the clock has contradicted it for so long: one that starts with an old time is set within
/// hours.
const DOUBT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// When the store was seen in use, and what follows from that for now: as long as it is open, time passes.
pub struct Seen {
    disk: Arc<dyn Disk>,
    opened: Instant,
    /// Whether the log knew anything of the time when it was opened.
    knew: bool,
    /// The time that it was when the store was opened, as far as it is known, in microseconds.
    then: AtomicI64,
    /// Since when the clock contradicts that.
    doubted_since: Mutex<Option<Timestamp>>,
    /// What was seen, and given up since the store was opened.
    given_up: OnceLock<Timestamp>,
}

impl Seen {
    /// Looks at the clock for a store that is opened, with its newest recorded time, which is `Timestamp::MIN` if it has no
    /// event. Notes that the store is in use, if the clock can be right.
    pub fn at_open(disk: Arc<dyn Disk>, options: &Options, newest: Timestamp) -> Self {
        let now = options.clock.now();
        if now < Timestamp::from_micros(0) {
            tracing::warn!(%now, "the clock of this machine is before 1970; set it");
        }
        report(now, newest);
        let knew = newest >= PLAUSIBLE;
        let before = disk.last_use().filter(|_| knew);
        let then = before.map_or(newest, |before| before.at.max(newest));
        let seen = Self {
            disk,
            opened: Instant::now(),
            knew,
            then: AtomicI64::new(then.as_micros()),
            doubted_since: Mutex::new(before.and_then(|before| before.doubted_since)),
            given_up: OnceLock::new(),
        };
        if let Err(error) = seen.note(now, newest, options.clock_ahead_max) {
            tracing::warn!(error = &error as &dyn std::error::Error, "no append will be recorded");
        }
        seen
    }

    /// Refuses an append that would be recorded at this time, if that is too far ahead of what is known.
    pub fn check(
        &self,
        recorded_at: Timestamp,
        now: Timestamp,
        newest: Timestamp,
        most: Duration,
    ) -> Result<(), Error> {
        if !self.knew && (newest..self.then()).contains(&now) {
            // A time that cannot be is not noted; what is recorded is checked below.
            let _ = self.note(now, newest, most);
        }
        self.doubt(now, newest);
        if recorded_at.since(newest) <= most {
            return Ok(());
        }
        check(recorded_at, self.known(newest), most)
    }

    /// Notes that the store was in use until now, if the clock can be right.
    pub fn at_close(&self, options: &Options, newest: Timestamp) {
        let now = options.clock.now();
        // What contradicts it is noted where it can be reported.
        if now > self.then() || !self.knew {
            // One that cannot be right was reported when it was read first.
            let _ = self.note(now, newest, options.clock_ahead_max);
        }
    }

    /// What is known of the time now.
    fn known(&self, newest: Timestamp) -> Timestamp {
        self.then().plus(self.opened.elapsed()).max(newest)
    }

    fn then(&self) -> Timestamp {
        Timestamp::from_micros(self.then.load(Ordering::Relaxed))
    }

    /// Notes this time, if it is after what was seen, or if that was seen by a log that knew nothing of the time (T4).
    ///
    /// # Errors
    /// If it is too far ahead of what is known.
    fn note(&self, now: Timestamp, newest: Timestamp, most: Duration) -> Result<(), Error> {
        check(now, if self.knew { self.known(newest) } else { newest }, most)?;
        if now > self.then() || !self.knew && now >= newest {
            self.set(now);
        } else {
            self.doubt(now, newest);
        }
        Ok(())
    }

    /// Notes that this is the time.
    fn set(&self, now: Timestamp) {
        let elapsed = i64::try_from(self.opened.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.then.store(now.as_micros().saturating_sub(elapsed), Ordering::Relaxed);
        *self.doubted_since.lock() = None;
        self.write(LastUse::at(now));
    }

    fn write(&self, last: LastUse) {
        if self.disk.is_writable() {
            self.disk.note_use(last);
        }
    }

    /// Gives up what was seen if the clock has contradicted it for long enough (T5).
    fn doubt(&self, now: Timestamp, newest: Timestamp) {
        let seen = self.then();
        if !self.knew || now < newest || seen.since(now) < DOUBT_MIN {
            return;
        }
        let mut doubted_since = self.doubted_since.lock();
        match *doubted_since {
            Some(since) if now >= since && now.since(since) < DOUBT_MAX => {}
            Some(since) if now >= since => {
                drop(doubted_since);
                tracing::warn!(
                    %now, %seen,
                    "the store was last in use in the future, by a clock that was ahead: from now on that is not believed"
                );
                // The first one is the furthest.
                let _ = self.given_up.set(seen);
                self.set(now);
            }
            _ => {
                *doubted_since = Some(now);
                drop(doubted_since);
                tracing::warn!(
                    %now, %seen,
                    "the clock of this machine is behind the last use of the store: set it; if it is right for a week, the last \
                     use is corrected"
                );
                self.write(LastUse { at: seen, doubted_since: Some(now) });
            }
        }
    }

    /// When the store was last in use by a clock that was ahead, if that was given up since it was opened.
    pub fn given_up(&self) -> Option<Timestamp> {
        self.given_up.get().copied()
    }
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
    reported: Option<std::time::Instant>,
}

impl ClockWatch {
    /// Looks at the clock for an append, with the recorded time of the one before.
    pub fn look(&mut self, now: Timestamp, recorded_at: Timestamp) {
        if now >= recorded_at {
            self.reported = None;
        } else if self.reported.is_none_or(|at| at.elapsed() >= AGAIN) && report(now, recorded_at) {
            self.reported = Some(std::time::Instant::now());
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
         time never goes back, so it would stay there. Set the clock. If it is right, because the store was not in use for as \
         long, open it once with a `clock_ahead_max` of more than {} days (for `annals`: ANNALS_CLOCK_AHEAD_MAX_DAYS)",
        days(ahead),
        days(ahead)
    );
    // A machine that gets its time from others may be set right by itself.
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
