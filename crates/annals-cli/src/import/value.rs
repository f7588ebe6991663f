//! What the text of a column means: a number or text, or a time.

use annals_core::Timestamp;
use serde_json::Value;

/// Most digits of a number that every reader of JSON takes exactly.
const EXACT_DIGITS: usize = 15;

/// The value as JSON. A number stays a number, digit for digit, if every reader takes it exactly; codes that
/// merely look like numbers (`00001`, `+5`, `1e5`, 20 digits) stay text.
pub(crate) fn json(value: &str) -> String {
    if is_exact_number(value) { value.to_owned() } else { text(value) }
}

/// The value as text in JSON.
pub(crate) fn text(value: &str) -> String {
    Value::from(value).to_string()
}

fn is_exact_number(value: &str) -> bool {
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(w, f)| (w, Some(f)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let zero = unsigned.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    digits(whole)
        && fraction.is_none_or(digits)
        && (whole == "0" || !whole.starts_with('0'))
        && whole.len() + fraction.map_or(0, str::len) <= EXACT_DIGITS
        // JSON has a negative zero, but hardly anybody means it.
        && !(zero && value.starts_with('-'))
}

/// The time that a text means: RFC 3339, `YYYY-MM-DD`, `YYYYMMDD` or seconds since 1970.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    let wrong = || format!("`{text}` is not a time: RFC 3339, YYYY-MM-DD, YYYYMMDD or seconds since 1970");
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let whole = unsigned.split('.').next().unwrap_or_default();
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) || unsigned.ends_with('.') {
        return text.parse().map_err(|_| wrong());
    }
    if text.len() == 8 && text == whole {
        let dashed = format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..]);
        return dashed.parse().map_err(|_| wrong());
    }
    seconds(text).ok_or_else(wrong)
}

/// Seconds since 1970, perhaps with a fraction, counted in whole microseconds.
fn seconds(text: &str) -> Option<Timestamp> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros = whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(digits.parse().ok()?)?;
    let micros = if negative { -micros } else { micros };
    let time = Timestamp::from_micros(micros);
    (time.as_micros() == micros).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_exact_stay_numbers_and_codes_stay_text() {
        for number in ["0", "7", "-7", "11.77", "12.00", "0.5", "123456789012345"] {
            assert_eq!(json(number), number);
        }
        for code in
            ["00001", "+5", "1e5", "1234567890123456", "-0", "-0.0", ".5", "5.", "1.2.3", "", "0x1F", "٣"]
        {
            assert_eq!(json(code), format!("\"{code}\""));
        }
        assert_eq!(json("a\"b"), r#""a\"b""#);
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
            ("0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(time(text).unwrap().to_string(), time_text, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in
            ["", "yesterday", "19971301", "1997-02-30", "9223372036854775807", "1.", "1.x", "12:00", "계"]
        {
            assert!(time(text).unwrap_err().contains("is not a time"), "{text}");
        }
    }
}
