//! Checks of the clock. Recorded time never decreases (G4), so an append under a clock that is ahead would
//! hold the log's time in the future.
//!
//! - T1  An append whose time is too far ahead of the known time is refused, because it would hold the log's
//!       time for years.
//! - T2  A clock that is behind the log, or before 1970, is reported: when a store is opened, and while it is
//!       written to.
//! - T3  The known time is that of the newest event or of the last use of the store with a plausible clock,
//!       whichever is later: so a log of old events, or one that was not used for long, can be written. The
//!       headers of segments are not used.
//! - T4  The last use does not go back at once: a machine that boots with an old time does not reset it. A
//!       time is noted only if it is not too far ahead of the known time. If the log has no event with a
//!       plausible time, an earlier time replaces the last use.
//! - T5  A last use that was noted by a clock that was ahead is corrected. If a store has been in use for a
//!       week, with a clock that is behind the last use but not behind the log, the time of that clock
//!       replaces the last use.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_core::{Error, Timestamp};

use crate::Options;
use crate::disk::{Disk, LastUse};
use crate::thread::{Instant, Mutex};

/// The earliest plausible time, 2020-01-01. If the newest event is older, its time is not compared with the
/// clock: machines without a battery-backed clock boot in 1970 or 2000.
const PLAUSIBLE: Timestamp = Timestamp::from_micros(1_577_836_800_000_000);
/// A clock that is behind by less than this is not reported: time synchronisation sets clocks back a little.
const BEHIND_MIN: Duration = Duration::from_secs(1);
/// The time after which a clock that stays behind is reported again.
const AGAIN: Duration = Duration::from_secs(3600);

/// A clock contradicts the last use if it is behind it by at least this.
const DOUBT_MIN: Duration = Duration::from_secs(24 * 3600);
/// The last use is corrected when the clock has contradicted it for this long: a clock that was wrong at boot
/// is usually set within hours.
const DOUBT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The last use of the store, and the known time that is derived from it: it advances while the store is
/// open.
pub struct Seen {
    disk: Arc<dyn Disk>,
    opened: Instant,
    /// Whether the newest event had a plausible time when the store was opened.
    knew: bool,
    /// The known time at the moment when the store was opened, in microseconds.
    then: AtomicI64,
    /// Since when the clock contradicts the last use.
    doubted_since: Mutex<Option<Timestamp>>,
    /// The last use that was corrected since the store was opened; the first one, if there were several.
    corrected: OnceLock<Timestamp>,
}

impl Seen {
    /// Reads the clock when a store is opened, and notes the use if the clock is plausible. `newest` is the
    /// newest recorded time, or `Timestamp::MIN` if there is no event.
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
            corrected: OnceLock::new(),
        };
        if let Err(error) = seen.note(now, newest, options.clock_ahead_max) {
            tracing::warn!(error = &error as &dyn std::error::Error, "no append will be recorded");
        }
        seen
    }

    /// Refuses an append whose recorded time is too far ahead of the known time.
    pub fn check(
        &self,
        recorded_at: Timestamp,
        now: Timestamp,
        newest: Timestamp,
        most: Duration,
    ) -> Result<(), Error> {
        if !self.knew && (newest..self.then()).contains(&now) {
            // An implausible time is not noted; `recorded_at` is checked below.
            let _ = self.note(now, newest, most);
        }
        self.doubt(now, newest);
        if recorded_at.since(newest) <= most {
            return Ok(());
        }
        check(recorded_at, self.known(newest), most)
    }

    /// Notes that the store was in use until now, if the clock is plausible.
    pub fn at_close(&self, options: &Options, newest: Timestamp) {
        let now = options.clock.now();
        // A contradiction is noted by `check`, where it can be reported.
        if now > self.then() || !self.knew {
            // An implausible time was reported when the store was opened.
            let _ = self.note(now, newest, options.clock_ahead_max);
        }
    }

    /// The known time now.
    fn known(&self, newest: Timestamp) -> Timestamp {
        self.then().plus(self.opened.elapsed()).max(newest)
    }

    fn then(&self) -> Timestamp {
        Timestamp::from_micros(self.then.load(Ordering::Relaxed))
    }

    /// Notes this time if it is after the last use, or if the log has no plausible time (T4).
    ///
    /// # Errors
    /// If it is too far ahead of the known time.
    fn note(&self, now: Timestamp, newest: Timestamp, most: Duration) -> Result<(), Error> {
        check(now, if self.knew { self.known(newest) } else { newest }, most)?;
        if now > self.then() || !self.knew && now >= newest {
            self.set(now);
        } else {
            self.doubt(now, newest);
        }
        Ok(())
    }

    /// Sets the last use, and so the known time, to this time.
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

    /// Corrects the last use if the clock has contradicted it for long enough (T5).
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
                // Keeps the first one, which is the furthest in the future.
                let _ = self.corrected.set(seen);
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

    /// The last use by a clock that was ahead, if it was corrected since the store was opened.
    pub fn corrected(&self) -> Option<Timestamp> {
        self.corrected.get().copied()
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
    /// Compares the clock with the newest recorded time, for an append.
    pub fn look(&mut self, now: Timestamp, recorded_at: Timestamp) {
        if now >= recorded_at {
            self.reported = None;
        } else if self.reported.is_none_or(|at| at.elapsed() >= AGAIN) && report(now, recorded_at) {
            self.reported = Some(std::time::Instant::now());
        }
    }
}

/// Refuses a recorded time that is ahead of the known time by more than `most`.
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
    // Unavailable, not unusable: time synchronisation may correct the clock.
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
        // A time before the known time is accepted.
        assert!(check(PLAUSIBLE, known, day(366)).is_ok());
        assert!(check(known, Timestamp::MIN, day(366)).is_ok());
        assert!(check(known, Timestamp::from_micros(0), day(366)).is_ok());
    }
}
