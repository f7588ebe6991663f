//! Times as text: the grammar of RFC 3339, parsed completely or refused.
//!
//! ```text
//! 2017-04-15                            its first instant in UTC
//! 2017-04-15T13:00:00.000001Z           with an offset: Z, +09, +0900, +09:00, -00:44:30
//! 2017-04-15 13:00+09:00                a blank for the T, no seconds; t and z in lower case too
//! ```
//!
//! - T1  No part of a text is ignored: a time of day without an offset, a zone in brackets and a leap second
//!       are refused, each with the correct form in the message.
//! - T2  A fraction may have any number of digits. Those after the sixth are dropped: a time is stored to the
//!       microsecond, and never later than it was written.
//! - T3  Years have four digits, 0000 to 9999. A time outside that range, in UTC, is refused.

use jiff::civil::{Date, Time, date};
use jiff::fmt::temporal::Pieces;
use jiff::{SignedDuration, tz};

use super::{Timestamp, UtcOffset};

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Microseconds of a second.
const MICROS: i64 = 1_000_000;
/// The first day that is counted.
const EPOCH: Date = date(1970, 1, 1);
/// Bytes of a time to the minute.
const MINUTE: usize = 16;
/// Bytes of a time to the second.
const SECOND: usize = 19;

/// Parses a time; the problem is worded to follow the text. A text without an offset is in `local`; without
/// `local` a date is in UTC, and a time of day is refused.
pub(super) fn read(text: &str, local: Option<UtcOffset>) -> Result<Timestamp, String> {
    let unknown = || "is not a time like 2017-04-15T13:00:00Z or 2017-04-15".to_owned();
    if !has_shape(text) {
        return Err(unknown());
    }
    let plain = plain(text);
    let pieces = Pieces::parse(&plain).map_err(|_| unknown())?;
    let days = pieces.date().duration_since(EPOCH).as_secs() / DAY;
    let Some(time) = pieces.time() else {
        return in_range(days * DAY - local.map_or(0, UtcOffset::seconds), 0);
    };
    // The library would read it as second 59.
    if text.get(MINUTE..SECOND) == Some(":60") {
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
    let offset = match (pieces.to_numeric_offset(), local) {
        (Some(offset), _) => utc_offset(offset).ok_or_else(unknown)?,
        (None, Some(local)) => local,
        (None, None) => {
            return Err(
                "has a time of day and no offset: end it with Z for UTC, or with an offset like +09:00"
                    .to_owned(),
            );
        }
    };
    let of_day = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    in_range(days * DAY + of_day - offset.seconds(), i64::from(time.subsec_nanosecond()) / 1_000)
}

/// Parses an offset from UTC.
pub(super) fn read_offset(text: &str) -> Option<UtcOffset> {
    let whole = format!("{EPOCH}T00:00:00{text}");
    if !text.starts_with(['Z', 'z', 'U', '+', '-']) || text.ends_with(']') || !has_shape(&whole) {
        return None;
    }
    Pieces::parse(&plain(&whole)).ok()?.to_numeric_offset().and_then(utc_offset)
}

fn utc_offset(offset: tz::Offset) -> Option<UtcOffset> {
    let seconds = i64::from(offset.seconds());
    (seconds.abs() < DAY).then_some(UtcOffset(seconds))
}

/// Whether a text has the separators of RFC 3339 at their offsets: the library also reads other forms of ISO
/// 8601, in which a missing part would not be noticed.
fn has_shape(text: &str) -> bool {
    let is = |at: usize, sign: u8| text.as_bytes().get(at).is_some_and(|found| *found == sign);
    is(4, b'-')
        && (text.len() == 10 || is(13, b':'))
        && text.match_indices(['.', ',']).all(|(at, _)| at == SECOND)
}

/// The text in the form that the library reads: no blank before an offset, no `UTC`, and at most nine
/// fractional digits.
fn plain(text: &str) -> String {
    let mut plain = text.to_owned();
    if let Some(before) = plain.strip_suffix("UTC") {
        plain = format!("{before}Z");
    }
    let offset = plain.rfind(' ').filter(|blank| {
        *blank >= MINUTE
            && plain.as_bytes()[blank - 1].is_ascii_digit()
            && plain[blank + 1..].starts_with(['Z', 'z', '+', '-'])
    });
    if let Some(blank) = offset {
        plain.remove(blank);
    }
    let digits = plain.bytes().skip(SECOND + 1).take_while(u8::is_ascii_digit).count();
    if digits > 9 && matches!(plain.as_bytes()[SECOND], b'.' | b',') {
        plain.replace_range(SECOND + 10..SECOND + 1 + digits, "");
    }
    plain
}

fn in_range(seconds: i64, micros: i64) -> Result<Timestamp, String> {
    let time = Timestamp(seconds * MICROS + micros);
    let inside = (Timestamp::MIN..=Timestamp::MAX).contains(&time);
    inside.then_some(time).ok_or_else(|| "is outside of the years 0000 to 9999 in UTC".to_owned())
}

/// Writes a time within the range, with as many fractional digits as it needs.
pub(super) fn write(time: Timestamp) -> String {
    let time = EPOCH.to_datetime(Time::midnight()) + SignedDuration::from_micros(time.0);
    format!("{time}Z")
}

/// Writes a time within the range, with six fractional digits.
pub(super) fn write_fixed(time: Timestamp) -> String {
    let time = EPOCH.to_datetime(Time::midnight()) + SignedDuration::from_micros(time.0);
    format!("{time:.6}Z")
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
            ("2017-04-15T13:00:0 0Z", "is not a time"),
            ("2017-04-15T13:00: 00Z", "is not a time"),
            ("2017-04-15T13:00:00 UTC+1", "is not a time"),
            ("2017-04-15T13:00:00UTCZ", "is not a time"),
            ("2017-04-15T13:00:00+09:00:30.5", "is not a time"),
            ("2017-04-15T13:00.5Z", "is not a time"),
            ("2017-04-15T13:00:00Z[u-ca=hebrew]", "zone in brackets"),
            ("2016-12-31T23:59:60.5+00", "leap second"),
            ("2017-04-15T13:00:0\u{661}Z", "is not a time"),
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
            let message = read(text).unwrap_err();
            assert!(message.contains(problem), "{text}: {message}");
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
    fn texts_with_six_digits_sort_as_their_times_do() {
        let second = 951_782_400 * MICROS;
        let mut times: Vec<_> =
            [-1, 0, 1, 10, 100_000, 500_000, 557_550, 999_999, MICROS].map(|micros| second + micros).into();
        times.extend([Timestamp::MIN.0, -1, Timestamp::MAX.0]);
        times.sort_unstable();
        let texts: Vec<_> = times.iter().map(|micros| write_fixed(Timestamp(*micros))).collect();
        assert!(texts.is_sorted() && texts.iter().all(|text| text.len() == 27), "{texts:?}");
        for (time, text) in times.into_iter().zip(&texts) {
            assert_eq!(super::read(text, None), Ok(Timestamp(time)), "{text}");
        }
        assert_eq!(write_fixed(Timestamp(second + 557_550)), "2000-02-29T00:00:00.557550Z");
    }

    #[test]
    fn days_of_the_whole_range_are_written_and_read() {
        // A prime number of days, so that each day of the year occurs.
        for days in (Timestamp::MIN.0 / MICROS / DAY..=Timestamp::MAX.0 / MICROS / DAY).step_by(61) {
            let time = Timestamp(days * DAY * MICROS);
            let text = write(time);
            assert_eq!(super::read(&text, None), Ok(time));
            assert_eq!(super::read(&text[..10], None), Ok(time));
        }
        for (end, text) in [
            (Timestamp::MIN, "0000-01-01T00:00:00Z"),
            (Timestamp::MAX, "9999-12-31T23:59:59.999999Z"),
            (Timestamp(-1), "1969-12-31T23:59:59.999999Z"),
            (Timestamp(951_782_400_000_000), "2000-02-29T00:00:00Z"),
            (Timestamp(-2_203_891_200_000_000), "1900-03-01T00:00:00Z"),
        ] {
            assert_eq!((write(end).as_str(), super::read(text, None)), (text, Ok(end)));
        }
    }
}
