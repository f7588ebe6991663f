//! Value objects that all services of the shop use: money, quantities, names, ids, passwords.
//!
//! [`Field`] checks an input once, so every value is valid. A value in an event is read without a check: an
//! event is a fact, and a rule that is tightened later must not make old facts unreadable.
//!
//! The files: `money`, `text`, `id`, `password`.

mod id;
mod money;
mod password;
mod text;

pub use id::{MemberId, OrderId, ProductId};
pub(crate) use money::thousands;
pub use money::{Cents, Quantity};
pub use password::{Matched, Password, PasswordHash};
pub use text::{Address, Email, Name, Profile};

use serde_json::Value;

/// A value that can be read from a field of a form.
pub trait Field: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// The problem, as text after the name of the field: `is 0, the least is 1`.
    fn read(value: &Value) -> Result<Self, String>;
}

/// The text in a field.
fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "is not text".into())
}

/// The whole number in a field, within these bounds.
fn number(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let Some(number) = value.as_i64() else {
        return Err(format!("is not a whole number from {least} to {most}"));
    };
    match u64::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(number) if number > most => Err(format!("is {number}, the most is {most}")),
        _ => Err(format!("is {number}, the least is {least}")),
    }
}
