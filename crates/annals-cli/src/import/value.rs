//! Parses the text of a column: as a number or text, or as a time.

use annals_core::{Timestamp, UtcOffset};
use clap::ValueEnum;
use serde_json::Value;

/// The maximum number of digits of a number that every JSON parser reads exactly.
const EXACT_DIGITS: usize = 15;

/// The value as JSON. A number stays a number, digit for digit, if every JSON parser reads it exactly; codes
/// that only look like numbers (`00001`, `+5`, `1e5`, 20 digits) stay text.
pub(crate) fn json(value: &str, decimal_comma: bool) -> String {
    if !decimal_comma {
        return if is_exact_number(value) { value.to_owned() } else { text(value) };
    }
    // With a decimal comma, a point separates thousands.
    let number = value.replacen(',', ".", 1);
    if !value.contains('.') && is_exact_number(&number) { number } else { text(value) }
}

/// The value as text in JSON.
pub(crate) fn text(value: &str) -> String {
    Value::from(value).to_string()
}

fn is_exact_number(value: &str) -> bool {
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(w, f)| (w, Some(f)));
    let zero = unsigned.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    digits(whole)
        && fraction.is_none_or(digits)
        && (whole == "0" || !whole.starts_with('0'))
        && whole.len() + fraction.map_or(0, str::len) <= EXACT_DIGITS
        // JSON has a negative zero, but it is hardly ever intended.
        && !(zero && value.starts_with('-'))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a number counts that says when something happened, from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    /// Seconds
    #[value(alias = "seconds")]
    S,
    /// Milliseconds
    #[value(aliases = ["millis", "milliseconds"])]
    Ms,
    /// Microseconds
    #[value(aliases = ["micros", "microseconds"])]
    Us,
    /// Nanoseconds
    #[value(aliases = ["nanos", "nanoseconds"])]
    Ns,
}

impl Unit {
    /// The number of decimal places from the unit to a nanosecond.
    fn places(self) -> u32 {
        match self {
            Self::S => 9,
            Self::Ms => 6,
            Self::Us => 3,
            Self::Ns => 0,
        }
    }
}

/// The form of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// The unit of numbers.
    pub(crate) unit: Option<Unit>,
    /// The offset from UTC of times without one.
    pub(crate) offset: Option<UtcOffset>,
}

/// As seconds, numbers from here on are in the year 5138 and later: they are probably in another unit.
const SECONDS_MAX: i128 = 100_000_000_000;

/// As seconds, numbers below this are before March 1973: those with four or more digits are more likely a
/// year `2017`, a date `970101`, or the days of a spreadsheet, `42840.54`.
const PLAIN_SECONDS_MIN: i128 = 100_000_000;

/// Whether a number without a unit is probably not in seconds.
fn is_ambiguous(text: &str, whole: i128) -> bool {
    let digits = text.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
    digits >= 4 && whole.abs() < PLAIN_SECONDS_MIN
}

impl Times {
    /// Parses a time: RFC 3339, `YYYY-MM-DD`, `YYYYMMDD`, or a number in the unit, which is seconds by
    /// default.
    pub(crate) fn read(self, text: &str) -> Result<Timestamp, String> {
        let text = text.trim();
        let Some((whole, nanos)) = number(text, self.unit.unwrap_or(Unit::S)) else { return self.date(text) };
        if self.unit.is_none() && text.len() == 8 && digits(text) {
            return self
                .date(&format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..]))
                .map_err(|_| unknown(text));
        }
        if self.unit.is_none() && whole.abs() >= SECONDS_MAX {
            let units = [("ms", Unit::Ms), ("us", Unit::Us), ("ns", Unit::Ns)];
            // The first unit in which it is before the year 5138.
            let guess = units.into_iter().filter_map(|(name, unit)| Some((name, number(text, unit)?.1)));
            let guess = guess
                .filter(|(_, nanos)| nanos.abs() < SECONDS_MAX * NANOS)
                .find_map(|(name, nanos)| Some(format!("--time-unit {name} makes it {}", timestamp(nanos)?)));
            let guess = guess.unwrap_or_else(|| "name its unit with --time-unit".to_owned());
            return Err(format!("`{text}` is not a time in seconds since 1970; {guess}"));
        }
        if self.unit.is_none() && is_ambiguous(text, whole) {
            return Err(format!(
                "`{text}` may be a year, a date, a number of days, or seconds since 1970: if it is a number of seconds, say \
                 --time-unit s; otherwise write it as YYYY-MM-DD"
            ));
        }
        timestamp(nanos).ok_or_else(|| format!("`{text}` is a time outside of the years 0000 to 9999"))
    }

    fn date(self, text: &str) -> Result<Timestamp, String> {
        let read = self.offset.map_or_else(|| text.parse(), |offset| offset.time(text));
        read.map_err(|error: annals_core::Invalid| {
            if self.offset.is_none() && UtcOffset::default().time(text).is_ok() {
                return format!("{}; or name the offset of all such times with --time-offset", error.problem);
            }
            if error.problem.contains("is not a time") { unknown(text) } else { error.problem }
        })
    }
}

fn unknown(text: &str) -> String {
    format!("`{text}` is not a time: RFC 3339, YYYY-MM-DD, YYYYMMDD or seconds since 1970")
}

/// The number of nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;

/// Parses a number with an optional fraction: returns the whole units, and the nanoseconds, rounded down.
fn number(text: &str, unit: Unit) -> Option<(i128, i128)> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) =
        unsigned.split_once('.').map_or((unsigned, "0"), |(whole, fraction)| (whole, fraction));
    // No time has more than 30 digits, and 30 digits fit.
    if !digits(whole) || !digits(fraction) || whole.len() > 30 {
        return None;
    }
    let places = unit.places() as usize;
    let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(places).collect();
    let rest = fraction.bytes().skip(places).any(|digit| digit != b'0');
    let whole: i128 = whole.parse().ok()?;
    let nanos = whole.checked_mul(10_i128.pow(unit.places()))? + kept.parse::<i128>().unwrap_or(0);
    Some(if negative { (-whole, -nanos - i128::from(rest)) } else { (whole, nanos) })
}

fn timestamp(nanos: i128) -> Option<Timestamp> {
    let micros = i64::try_from(nanos.div_euclid(1_000)).ok()?;
    let time = Timestamp::from_micros(micros);
    (time.as_micros() == micros).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Result<String, String> {
        Times::default().read(text).map(|time| time.to_string())
    }

    #[test]
    fn numbers_that_are_exact_stay_numbers_and_codes_stay_text() {
        for number in ["0", "7", "-7", "11.77", "12.00", "0.5", "123456789012345"] {
            assert_eq!(json(number, false), number);
        }
        for code in [
            "00001",
            "+5",
            "1e5",
            "1234567890123456",
            "-0",
            "-0.0",
            ".5",
            "5.",
            "1.2.3",
            "",
            "0x1F",
            "٣",
            "11,77",
        ] {
            assert_eq!(json(code, false), format!("\"{code}\""));
        }
        assert_eq!(json("a\"b", false), r#""a\"b""#);
    }

    #[test]
    fn a_decimal_comma_makes_a_number_and_a_point_does_not() {
        for (text, number) in [("11,77", "11.77"), ("-0,5", "-0.5"), ("7", "7")] {
            assert_eq!(json(text, true), number);
        }
        for code in ["1.234,50", "1.234", "1,2,3", ",5", "01,5"] {
            assert_eq!(json(code, true), format!("\"{code}\""));
        }
    }

    #[test]
    fn a_time_is_read_in_each_of_its_forms() {
        for (text, time_text) in [
            ("2017-04-15T13:00:00+09:00", "2017-04-15T04:00:00Z"),
            ("2017-04-15", "2017-04-15T00:00:00Z"),
            ("19970101", "1997-01-01T00:00:00Z"),
            ("1492261200", "2017-04-15T13:00:00Z"),
            ("1492261200.25", "2017-04-15T13:00:00.25Z"),
            ("-1", "1969-12-31T23:59:59Z"),
            ("-0.0000001", "1969-12-31T23:59:59.999999Z"),
            ("0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(time(text).as_deref(), Ok(time_text), "{text}");
        }
    }

    #[test]
    fn a_number_is_read_in_the_unit_that_is_named_and_guessed_in_no_other() {
        for (text, unit, expected) in [
            ("1492261200000", Unit::Ms, "2017-04-15T13:00:00Z"),
            ("1492261200000.5", Unit::Ms, "2017-04-15T13:00:00.0005Z"),
            ("1492261200000001", Unit::Us, "2017-04-15T13:00:00.000001Z"),
            ("1492261200000000001", Unit::Ns, "2017-04-15T13:00:00Z"),
            ("253402300799", Unit::S, "9999-12-31T23:59:59Z"),
            ("19970101", Unit::Ms, "1970-01-01T05:32:50.101Z"),
        ] {
            let read = Times { unit: Some(unit), offset: None }.read(text).unwrap();
            assert_eq!(read.to_string(), expected, "{text}");
        }
        for (text, hint) in [
            ("1492261200000", "--time-unit ms makes it 2017-04-15T13:00:00Z"),
            ("1492261200000000", "--time-unit us makes it 2017-04-15T13:00:00Z"),
            ("1492261200000000000", "--time-unit ns makes it 2017-04-15T13:00:00Z"),
            ("99999999999999999999999999", "--time-unit"),
        ] {
            let message = time(text).unwrap_err();
            assert!(message.contains("is not a time in seconds") && message.contains(hint), "{message}");
        }
    }

    #[test]
    fn a_number_that_is_hardly_meant_as_seconds_needs_a_unit() {
        for text in ["2017", "199701", "970101", "42840", "42840.5416", "-42840", "99999999.5", "000000001"] {
            let message = time(text).unwrap_err();
            assert!(message.contains("--time-unit s") && message.contains("YYYY-MM-DD"), "{text}: {message}");
            assert!(Times { unit: Some(Unit::S), offset: None }.read(text).is_ok(), "{text}");
        }
        for (text, expected) in [("999", "1970-01-01T00:16:39Z"), ("100000000", "1973-03-03T09:46:40Z")] {
            assert_eq!(time(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_time_without_an_offset_needs_one() {
        let message = time("2017-04-15 13:00:00").unwrap_err();
        assert!(message.contains("no offset") && message.contains("--time-offset"), "{message}");
        let seoul = Times { unit: None, offset: "+09:00".parse().ok() };
        for (text, expected) in [
            ("2017-04-15 13:00:00", "2017-04-15T04:00:00Z"),
            ("20170415", "2017-04-14T15:00:00Z"),
            ("2017-04-15T13:00:00Z", "2017-04-15T13:00:00Z"),
        ] {
            assert_eq!(seoul.read(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "19971301",
            "1997-02-30",
            "9223372036854775807",
            "1.",
            "1.x",
            "12:00",
            "계",
            "1.4e9",
        ] {
            assert!(time(text).unwrap_err().contains("is not a time"), "{text}");
        }
    }
}
