//! Conversions between the values of columns and types of Rust.

use annals_core::{Bytes, EventId, EventType, Position, StreamId, Tag, Text, Timestamp, Version};

use crate::{SqlError, Value};

/// A type that can be written to a column.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be put into a column")]
pub trait ToValue {
    /// Returns the value of the column.
    ///
    /// # Errors
    /// [`SqlError::TooLarge`] if the number does not fit a column.
    fn to_value(&self) -> Result<Value, SqlError>;
}

/// A type that can be read from a column.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be read from a column")]
pub trait FromValue: Sized {
    /// Converts the value of a column; `None` if it has another type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl ToValue for $kind {
            fn to_value(&self) -> Result<Value, SqlError> {
                i64::try_from(*self).map(Value::Integer).map_err(|_| SqlError::TooLarge(*self as u64))
            }
        }
        impl FromValue for $kind {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Integer(number) => Self::try_from(*number).ok(),
                    _ => None,
                }
            }
        }
    )*};
}
number!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

macro_rules! newtype_number {
    ($($kind:ty),*) => {$(
        impl ToValue for $kind {
            fn to_value(&self) -> Result<Value, SqlError> {
                self.get().to_value()
            }
        }
        impl FromValue for $kind {
            fn from_value(value: &Value) -> Option<Self> {
                u64::from_value(value).map(Self::new)
            }
        }
    )*};
}
newtype_number!(Position, Version);

/// Microseconds since 1970, so that rows sort and compare by time.
impl ToValue for Timestamp {
    fn to_value(&self) -> Result<Value, SqlError> {
        Ok(Value::Integer(self.as_micros()))
    }
}

impl FromValue for Timestamp {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(Self::from_micros)
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Result<Value, SqlError> {
        Ok(Value::Integer(i64::from(*self)))
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(|number| number != 0)
    }
}

impl ToValue for f64 {
    fn to_value(&self) -> Result<Value, SqlError> {
        Ok(Value::Real(*self))
    }
}

impl FromValue for f64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Real(number) => Some(*number),
            #[allow(clippy::cast_precision_loss)] // Databases may answer with whole ones as integers.
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        }
    }
}

macro_rules! text {
    ($($kind:ty),*) => {$(
        impl ToValue for $kind {
            fn to_value(&self) -> Result<Value, SqlError> {
                Ok(Value::Text(self.to_string()))
            }
        }
    )*};
}
text!(str, String, Text, StreamId, EventType, Tag, EventId);

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

macro_rules! parsed_text {
    ($($kind:ty),*) => {$(
        impl FromValue for $kind {
            fn from_value(value: &Value) -> Option<Self> {
                String::from_value(value)?.parse().ok()
            }
        }
    )*};
}
parsed_text!(StreamId, EventId);

impl ToValue for [u8] {
    fn to_value(&self) -> Result<Value, SqlError> {
        Ok(Value::Blob(self.to_vec()))
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Result<Value, SqlError> {
        self.as_slice().to_value()
    }
}

impl ToValue for Bytes {
    fn to_value(&self) -> Result<Value, SqlError> {
        self[..].to_value()
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Blob(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl ToValue for Value {
    fn to_value(&self) -> Result<Value, SqlError> {
        Ok(self.clone())
    }
}

impl FromValue for Value {
    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Result<Value, SqlError> {
        self.as_ref().map_or(Ok(Value::Null), ToValue::to_value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Result<Value, SqlError> {
        (**self).to_value()
    }
}

/// The values of a statement's `?1`, `?2`, …: `()`, a tuple such as `("a1", 5)`, or a list of one kind.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand for the values of a statement",
    note = "write a tuple, `(value,)` if there is only one"
)]
pub trait Params {
    /// Returns the values, in order.
    ///
    /// # Errors
    /// [`SqlError::TooLarge`] if the number does not fit a column.
    fn values(&self) -> Result<Vec<Value>, SqlError>;
}

impl Params for () {
    fn values(&self) -> Result<Vec<Value>, SqlError> {
        Ok(Vec::new())
    }
}

impl<T: ToValue, const N: usize> Params for [T; N] {
    fn values(&self) -> Result<Vec<Value>, SqlError> {
        self.iter().map(ToValue::to_value).collect()
    }
}

impl<T: ToValue> Params for Vec<T> {
    fn values(&self) -> Result<Vec<Value>, SqlError> {
        self.iter().map(ToValue::to_value).collect()
    }
}

impl<P: Params + ?Sized> Params for &P {
    fn values(&self) -> Result<Vec<Value>, SqlError> {
        (**self).values()
    }
}

macro_rules! tuple {
    ($($place:tt $kind:ident),*) => {
        impl<$($kind: ToValue),*> Params for ($($kind,)*) {
            fn values(&self) -> Result<Vec<Value>, SqlError> {
                Ok(vec![$(self.$place.to_value()?),*])
            }
        }
    };
}
tuple!(0 A);
tuple!(0 A, 1 B);
tuple!(0 A, 1 B, 2 C);
tuple!(0 A, 1 B, 2 C, 3 D);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K);
tuple!(0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K, 11 L);
