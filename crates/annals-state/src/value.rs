//! The value of a column, in any database.

/// The value of one column of one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// About how many bytes it takes on its way to a database.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }

    /// Parses the text of an exact number with a scale, such as the sum of whole numbers in PostgreSQL and
    /// MariaDB: a whole number if it is one and fits, else one with a fraction. `None` if the text is no
    /// number.
    pub fn of_decimal(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.bytes().all(|digit| digit == b'0')
            && let Ok(number) = whole.parse()
        {
            return Some(Self::Integer(number));
        }
        text.parse().ok().map(Self::Real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_whole_if_it_has_no_fraction() {
        for (text, value) in [
            ("42", Value::Integer(42)),
            ("-42.000", Value::Integer(-42)),
            ("9223372036854775807", Value::Integer(i64::MAX)),
            ("9223372036854775808", Value::Real(9_223_372_036_854_775_808.0)),
            ("2.50", Value::Real(2.5)),
            ("-0.5", Value::Real(-0.5)),
        ] {
            assert_eq!(Value::of_decimal(text), Some(value), "{text}");
        }
        assert_eq!(Value::of_decimal("much"), None);
    }
}
