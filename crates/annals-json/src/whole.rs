//! Whole numbers in JSON, which has one kind of number: `3.0` is the number 3, and some libraries write it
//! so.

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// The largest whole number that a 64-bit float distinguishes from its neighbours.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// Converts a float to a whole number.
///
/// # Errors
/// If it has a fraction, is negative, or may stand for several whole numbers.
pub fn whole<E: Error>(number: f64, wanted: &dyn serde::de::Expected) -> Result<u64, E> {
    let is_whole = (0.0..=EXACT_MAX).contains(&number) && number.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let whole = number as u64;
    if is_whole { Ok(whole) } else { Err(E::invalid_type(Unexpected::Float(number), wanted)) }
}

/// Reads a whole number from 0 to 65535.
pub(crate) fn small<'de, D: Deserializer<'de>>(field: D) -> Result<u16, D::Error> {
    struct Small;
    impl Visitor<'_> for Small {
        type Value = u16;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number from 0 to 65535")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u16, E> {
            u16::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<u16, E> {
            whole(number, &self).and_then(|number| self.visit_u64(number))
        }
    }
    field.deserialize_any(Small)
}
