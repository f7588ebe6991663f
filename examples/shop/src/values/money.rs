//! Money in whole cents, and quantities.
//!
//! - W1  The sum of an order cannot overflow: a price is at most 10 million dollars, an order has at most 100
//!   items of at most a million pieces, which is 10^17 cents, a hundredth of what 64 bits hold.

use std::fmt;

use annals::{FromValue, SqlError, ToValue, Value as Cell};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Field, number};

/// An amount of money in cents; never a fraction of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cents(pub u64);

impl Cents {
    /// The highest accepted price.
    pub const MOST: u64 = 1_000_000_000;

    /// The price of this many.
    #[must_use]
    pub fn times(self, quantity: Quantity) -> Self {
        Self(self.0 * u64::from(quantity.0))
    }

    /// The amount in dollars, as a number.
    #[allow(clippy::cast_precision_loss)] // Exact to the cent up to 90 million million dollars.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 100.0
    }
}

impl std::iter::Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(cents: I) -> Self {
        Self(cents.map(|cents| cents.0).sum())
    }
}

impl fmt::Display for Cents {
    /// Dollars with thousands separators: `2,500,315.63`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:02}", thousands(self.0 / 100), self.0 % 100))
    }
}

/// A number with thousands separators: `69,659`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Field for Cents {
    fn read(value: &Value) -> Result<Self, String> {
        number(value, 0, Self::MOST).map(Self)
    }
}

impl ToValue for Cents {
    fn to_value(&self) -> Result<Cell, SqlError> {
        self.0.to_value()
    }
}

impl FromValue for Cents {
    fn from_value(value: &Cell) -> Option<Self> {
        u64::from_value(value).map(Self)
    }
}

/// A quantity: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(u32);

impl Quantity {
    /// The highest accepted quantity.
    pub const MOST: u32 = 1_000_000;

    /// This quantity; `None` if it is zero or too high.
    pub fn new(quantity: u32) -> Option<Self> {
        (1..=Self::MOST).contains(&quantity).then_some(Self(quantity))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Field for Quantity {
    fn read(value: &Value) -> Result<Self, String> {
        let quantity = number(value, 1, u64::from(Self::MOST))?;
        Ok(Self(u32::try_from(quantity).expect("the most fits 32 bits")))
    }
}

impl ToValue for Quantity {
    fn to_value(&self) -> Result<Cell, SqlError> {
        self.0.to_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cents_are_shown_as_dollars() {
        for (cents, dollars) in
            [(0, "0.00"), (7, "0.07"), (1177, "11.77"), (100_000, "1,000.00"), (250_031_563, "2,500,315.63")]
        {
            assert_eq!(Cents(cents).to_string(), dollars);
        }
        assert_eq!(Cents(250_031_563).dollars().to_string(), "2500315.63");
    }

    #[test]
    fn a_number_that_is_no_quantity_says_why() {
        let read = |text: &str| Quantity::read(&serde_json::from_str(text).unwrap());
        assert_eq!(read("3"), Ok(Quantity(3)));
        assert_eq!(read("0"), Err("is 0, the least is 1".into()));
        assert_eq!(read("-1"), Err("is -1, the least is 1".into()));
        assert_eq!(read("1000001"), Err("is 1000001, the most is 1000000".into()));
        for other in ["1.5", "\"3\"", "null", "[]"] {
            assert_eq!(read(other), Err("is not a whole number from 1 to 1000000".into()));
        }
    }
}
