//! Points in time, and the clock. Their text form is in `time/text.rs`.

mod text;

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Invalid;

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
///
/// Written as RFC 3339 text in UTC, `2017-04-15T13:00:00.000001Z`, and read with any offset.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time that can be written as text: the first instant of the year 0.
    pub const MIN: Self = Self(-62_167_219_200_000_000);
    /// The latest time that can be written as text: the last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// The time now, by the clock of the machine.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// The time this many microseconds after the epoch, clamped to [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The text with six fractional digits, `2017-04-15T13:00:00.000000Z`: all such texts have the same
    /// length, and sort by time. This is the form of all times that a store or a program takes from its
    /// clock; `Display` uses the shortest form, which repeats a caller's time as it was given, and is the
    /// form in events.
    #[must_use]
    pub fn fixed(self) -> String {
        text::write_fixed(self)
    }

    /// The time later by this duration.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time earlier by this duration.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The duration from an earlier time to this one; zero if this one is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::write(*self))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        })
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let micros = Duration::from_micros(time.0.unsigned_abs());
        if time.0 < 0 { UNIX_EPOCH - micros } else { UNIX_EPOCH + micros }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = Invalid;

    /// Parses RFC 3339 with any offset, or a date alone, which is its first instant in UTC. A time of day
    /// without an offset is refused, and so is any text that is not parsed completely. Digits after the sixth
    /// fractional digit are dropped.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        text::read(text, None).map_err(|problem| Invalid::new("time", format!("`{text}` {problem}")))
    }
}

/// The offset of a local time from UTC: `Z`, `+09:00`, `-00:44:30`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UtcOffset(i64);

impl UtcOffset {
    /// The offset in seconds; negative west of Greenwich.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Parses a time as [`Timestamp`] does, and applies this offset to a time or a date without one.
    ///
    /// # Errors
    /// [`Invalid`] if the text is not parsed completely.
    pub fn time(self, text: &str) -> Result<Timestamp, Invalid> {
        text::read(text, Some(self)).map_err(|problem| Invalid::new("time", format!("`{text}` {problem}")))
    }
}

impl std::str::FromStr for UtcOffset {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let problem =
            || Invalid::new("offset", format!("`{text}` is not an offset from UTC like Z or +09:00"));
        text::read_offset(text).ok_or_else(problem)
    }
}

/// A source of the current time.
pub trait Clock: Send + Sync + 'static {
    /// The current time. It may jump back; a store clamps recorded times so that they never decrease.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that does not advance until a test moves it.
#[derive(Debug, Default)]
pub struct TestClock(AtomicI64);

impl TestClock {
    /// A clock that shows this time.
    pub fn at(time: Timestamp) -> Self {
        Self(AtomicI64::new(time.as_micros()))
    }

    /// Sets the clock to this time, which may be earlier.
    pub fn set(&self, time: Timestamp) {
        self.0.store(time.as_micros(), Ordering::SeqCst);
    }

    /// Advances the clock.
    pub fn advance(&self, duration: Duration) {
        self.set(self.now().plus(duration));
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_time_are_one() {
        let time: Timestamp = "2017-04-15T13:00:00.000001Z".parse().unwrap();
        assert_eq!(time.to_string(), "2017-04-15T13:00:00.000001Z");
        let date: Timestamp = "2017-04-15".parse().unwrap();
        assert_eq!(date.to_string(), "2017-04-15T00:00:00Z");
        for wrong in ["yesterday", "-000044-03-15T12:00:00Z", "-000044-03-15", "-009999-01-02T01:59:59Z"] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
        for end in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(end.to_string().parse::<Timestamp>().unwrap(), end);
        }
        assert_eq!(Timestamp::from_micros(i64::MAX), Timestamp::MAX);
        assert_eq!(format!("{time:?}"), time.to_string());
    }

    #[test]
    fn times_of_the_standard_library_are_taken_and_given() {
        for time in [Timestamp::MIN, Timestamp::from_micros(-1), Timestamp::from_micros(1), Timestamp::MAX] {
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
        let hour = Duration::from_secs(3_600);
        assert_eq!(Timestamp::MIN.plus(hour).minus(hour), Timestamp::MIN);
        assert!(Timestamp::now() > Timestamp::from_micros(0));
    }
}
