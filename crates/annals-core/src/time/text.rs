//! Times as text: the grammar of RFC 3339, read whole or refused.
//!
//! ```text
//! 2017-04-15                            its first instant in UTC
//! 2017-04-15T13:00:00.000001Z           with an offset: Z, +09, +0900, +09:00, -00:44:30
//! 2017-04-15 13:00+09:00                a blank for the T, no seconds; t and z in lower case too
//! ```
//!
//! - T1  No part of a text is left out: a time of day without an offset, a zone in brackets and a leap second are
//!   refused, each with what to write instead.
//! - T2  A fraction may have any number of digits. Those after the sixth are dropped: a time is kept to the
//!   microsecond, and never later than it was written.
//! - T3  Years have four digits, 0000 to 9999. What is outside of them, in UTC, is refused.

use super::{Timestamp, UtcOffset};

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Microseconds of a second.
const MICROS: i64 = 1_000_000;

/// Reads a time; the problem is worded to follow the text. A text without an offset is read with `local`; without that
/// a date is in UTC, and a time of day is refused.
pub(super) fn read(text: &str, local: Option<UtcOffset>) -> Result<Timestamp, String> {
    let unknown = || "is not a time like 2017-04-15T13:00:00Z or 2017-04-15".to_owned();
    let mut rest = Rest(text.as_bytes());
    let days = rest.date().ok_or_else(unknown)?;
    if rest.0.is_empty() {
        return in_range(days * DAY - local.map_or(0, UtcOffset::seconds), 0);
    }
    if !matches!(rest.0[0], b'T' | b't' | b' ') {
        return Err(unknown());
    }
    rest.0 = &rest.0[1..];
    let (seconds, micros) = rest.time_of_day().ok_or_else(unknown)?;
    if seconds.is_leap {
        return Err(
            "has a leap second, which cannot be kept: write second 59, or second 00 of the next minute"
                .to_owned(),
        );
    }
    if text.ends_with(']') {
        return Err(
            "has a zone in brackets, which is not read: write the offset alone, such as +01:00".to_owned()
        );
    }
    let offset = match (rest.0, local) {
        ([], Some(local)) => local,
        ([], None) => {
            return Err(
                "has a time of day and no offset: end it with Z for UTC, or with an offset like +09:00"
                    .to_owned(),
            );
        }
        _ => rest.offset().filter(|_| rest.0.is_empty()).ok_or_else(unknown)?,
    };
    in_range(days * DAY + seconds.of_day - offset.seconds(), micros)
}

/// Reads an offset from UTC.
pub(super) fn read_offset(text: &str) -> Option<UtcOffset> {
    let mut rest = Rest(text.as_bytes());
    rest.offset().filter(|_| rest.0.is_empty())
}

fn in_range(seconds: i64, micros: i64) -> Result<Timestamp, String> {
    let time = Timestamp(seconds * MICROS + micros);
    let inside = (Timestamp::MIN..=Timestamp::MAX).contains(&time);
    inside.then_some(time).ok_or_else(|| "is outside of the years 0000 to 9999 in UTC".to_owned())
}

/// Writes a time within the range, with as many digits of the fraction as it needs.
pub(super) fn write(time: Timestamp) -> String {
    let (seconds, micros) = (time.0.div_euclid(MICROS), time.0.rem_euclid(MICROS));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if micros > 0 {
        let fraction = format!(".{micros:06}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// What is left of a text.
struct Rest<'t>(&'t [u8]);

/// The second of a day.
struct Seconds {
    of_day: i64,
    is_leap: bool,
}

impl Rest<'_> {
    /// A number of exactly this many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let all = number.iter().all(u8::is_ascii_digit).then_some(number)?;
        self.0 = rest;
        Some(all.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
    }

    /// A number of two digits up to this one.
    fn two(&mut self, most: i64) -> Option<i64> {
        self.number(2).filter(|number| *number <= most)
    }

    /// Whether the next sign is this one, which is passed over then.
    fn passes(&mut self, sign: u8) -> bool {
        let passed = self.0.strip_prefix(&[sign]);
        self.0 = passed.unwrap_or(self.0);
        passed.is_some()
    }

    /// `YYYY-MM-DD`, as days since 1970.
    fn date(&mut self) -> Option<i64> {
        let year = self.number(4)?;
        let month = self.passes(b'-').then(|| self.two(12))?.filter(|month| *month > 0)?;
        let day = self.passes(b'-').then(|| self.two(31))??;
        let days = days(year, month, day);
        // A day that the month does not have is one of the next month.
        (civil(days) == (year, month, day)).then_some(days)
    }

    /// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction`, and the microseconds of the fraction.
    fn time_of_day(&mut self) -> Option<(Seconds, i64)> {
        let hour = self.two(23)?;
        let minute = self.passes(b':').then(|| self.two(59))??;
        let second = if self.passes(b':') { self.two(60)? } else { 0 };
        let seconds = Seconds { of_day: hour * 3600 + minute * 60 + second, is_leap: second == 60 };
        if !self.passes(b'.') && !self.passes(b',') {
            return Some((seconds, 0));
        }
        let digits = self.0.iter().take_while(|sign| sign.is_ascii_digit()).count();
        let (fraction, rest) = self.0.split_at(digits);
        self.0 = rest;
        let kept = fraction.iter().chain(b"000000").take(6);
        let micros = kept.fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        (digits > 0).then_some((seconds, micros))
    }

    /// `Z`, `UTC`, `+HH`, `+HHMM`, `+HH:MM` or `+HH:MM:SS`, perhaps after a blank.
    fn offset(&mut self) -> Option<UtcOffset> {
        self.passes(b' ');
        if self.passes(b'Z') || self.passes(b'z') {
            return Some(UtcOffset(0));
        }
        if let Some(rest) = self.0.strip_prefix(b"UTC") {
            self.0 = rest;
            return Some(UtcOffset(0));
        }
        let sign = if self.passes(b'-') { -1 } else { self.passes(b'+').then_some(1)? };
        let hours = self.two(23)?;
        let colon = self.passes(b':');
        let minutes = if colon || !self.0.is_empty() { self.two(59)? } else { 0 };
        let seconds = if colon && self.passes(b':') { self.two(59)? } else { 0 };
        Some(UtcOffset(sign * (hours * 3600 + minutes * 60 + seconds)))
    }
}

/// Days since 1970 of a date of the proleptic Gregorian calendar. Years are counted from March, so that a leap day ends
/// one, and in eras of 400.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of that many days since 1970: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * from_march + 2) / 5 + 1, (from_march + 2) % 12 + 1);
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        super::read(text, None).map(write)
    }

    #[test]
    fn each_form_of_a_time_is_read() {
        for (text, time) in [
            ("2017-04-15", "2017-04-15T00:00:00Z"),
            ("2017-04-15T13:00:00.000001Z", "2017-04-15T13:00:00.000001Z"),
            ("2017-04-15t13:00:00z", "2017-04-15T13:00:00Z"),
            ("2017-04-15 13:00Z", "2017-04-15T13:00:00Z"),
            ("2017-04-15 13:00:00,25+00", "2017-04-15T13:00:00.25Z"),
            ("2017-04-15T13:00:00+09:00", "2017-04-15T04:00:00Z"),
            ("2017-04-15T13:00:00+0930", "2017-04-15T03:30:00Z"),
            ("2017-04-15 13:00:00 UTC", "2017-04-15T13:00:00Z"),
            ("2017-04-15 13:00:00 -0500", "2017-04-15T18:00:00Z"),
            ("1969-12-31T23:59:59.5-00:00", "1969-12-31T23:59:59.5Z"),
            ("1972-01-07T00:00:00-00:44:30", "1972-01-07T00:44:30Z"),
            ("2000-02-29T23:00:00-23:59", "2000-03-01T22:59:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(time), "{text}");
        }
    }

    #[test]
    fn digits_after_the_microsecond_are_dropped_and_never_make_a_time_later() {
        assert_eq!(read("2017-04-15T13:00:00.1234567899999Z").unwrap(), "2017-04-15T13:00:00.123456Z");
        assert_eq!(read("1900-01-01T00:00:00.0000009Z").unwrap(), "1900-01-01T00:00:00Z");
        assert_eq!(read("9999-12-31T23:59:59.999999999Z").unwrap(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn what_is_not_understood_whole_is_refused_with_the_reason() {
        for (text, problem) in [
            ("2017-04-15T13:00:00", "no offset"),
            ("2017-04-15 13:00", "no offset"),
            ("2017-04-15T13:00:00.5", "no offset"),
            ("2026-03-29T02:30:00[Europe/Berlin]", "zone in brackets"),
            ("2026-03-29T02:30:00+01:00[Europe/Berlin]", "zone in brackets"),
            ("2016-12-31T23:59:60Z", "leap second"),
            ("9999-12-31T23:59:59-01:00", "outside of the years"),
            ("0000-01-01T00:00:00+00:01", "outside of the years"),
            ("2017-04-15T", "is not a time"),
            ("2017-04-15T13Z", "is not a time"),
            ("2017-04-15T13:00:00.Z", "is not a time"),
            ("2017-04-15T24:00:00Z", "is not a time"),
            ("2017-04-15T13:60:00Z", "is not a time"),
            ("2017-04-15T13:00:00Zulu", "is not a time"),
            ("2017-04-15T13:00:00Z ", "is not a time"),
            ("2017-04-15T13:00:00+9", "is not a time"),
            ("2017-04-15T13:00:00+09:0", "is not a time"),
            ("2017-04-15T13:00:00+24:00", "is not a time"),
            ("2017-04-15Z", "is not a time"),
            ("17-04-15", "is not a time"),
            ("2017-4-5", "is not a time"),
            ("2017-02-29", "is not a time"),
            ("2017-00-01", "is not a time"),
            ("+002017-04-15T13:00:00Z", "is not a time"),
            ("12017-04-15", "is not a time"),
            ("-000044-03-15", "is not a time"),
            ("-0044-03-15", "is not a time"),
            ("20170415T130000Z", "is not a time"),
            ("2017-W15-6", "is not a time"),
            ("yesterday", "is not a time"),
            ("", "is not a time"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(problem), "{text}: {said}");
        }
    }

    #[test]
    fn a_text_without_an_offset_is_read_with_the_one_that_is_named() {
        let seoul = read_offset("+09:00");
        for (text, time) in [
            ("2017-04-15 13:00:00", "2017-04-15T04:00:00Z"),
            ("2017-04-15", "2017-04-14T15:00:00Z"),
            ("2017-04-15T13:00:00Z", "2017-04-15T13:00:00Z"),
        ] {
            assert_eq!(super::read(text, seoul).map(write).as_deref(), Ok(time), "{text}");
        }
        for wrong in ["", "9", "+9", "Berlin", "+09:00:", "Z+1"] {
            assert!(read_offset(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn every_day_of_the_range_is_written_and_read() {
        let first = days(0, 1, 1);
        let mut expected = (0, 1, 1);
        for day in first..=days(9999, 12, 31) {
            assert_eq!(civil(day), expected);
            assert_eq!(days(expected.0, expected.1, expected.2), day);
            let (year, month, of_month) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (of_month < length, month < 12) {
                (true, _) => (year, month, of_month + 1),
                (false, true) => (year, month + 1, 1),
                (false, false) => (year + 1, 1, 1),
            };
        }
        for end in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(super::read(&write(end), None), Ok(end));
        }
    }
}
