//! Ids: a member chooses its own, products and orders get one.
//!
//! - I1  A generated id is a UUID of version 7: it needs no coordination, and newer ones sort after older
//!       ones.
//! - I2  A retried request must find the aggregate that it created the first time. So a request with an
//!   idempotency key gets the UUID of version 5 of that key: the same key leads to the same id.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Field, text};

/// The namespace of the ids derived from keys.
const SHOP: Uuid = Uuid::from_u128(0x6bb2_5f0e_27a4_4c53_9d58_3b1c_8f0f_51a7);

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident: $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks an id.
            ///
            /// # Errors
            /// The problem.
            pub fn new(id: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(id)?;
                Ok(Self(id.to_owned()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id in the name of a stream.
            pub fn of_stream(id: &str) -> Self {
                Self(id.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&$name> for String {
            fn from(id: &$name) -> Self {
                id.0.clone()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Field for $name {
            fn read(value: &Value) -> Result<Self, String> {
                Self::new(text(value)?)
            }
        }

        impl annals::ToValue for $name {
            fn to_value(&self) -> Result<annals::Value, annals::SqlError> {
                self.0.to_value()
            }
        }

        impl annals::FromValue for $name {
            fn from_value(value: &annals::Value) -> Option<Self> {
                String::from_value(value).map(Self)
            }
        }
    };
}

macro_rules! generated {
    ($name:ident) => {
        impl $name {
            /// Generates a new id.
            pub fn generate() -> Self {
                Self(Uuid::now_v7().to_string())
            }

            /// The id derived from this key.
            pub fn of_key(key: &str) -> Self {
                Self(Uuid::new_v5(&SHOP, key.as_bytes()).to_string())
            }

            /// The id for a request with this idempotency key, or a new one if it has none.
            pub fn for_request(key: Option<&str>) -> Self {
                key.map_or_else(Self::generate, Self::of_key)
            }
        }
    };
}

id_type! {
    /// The id of a member: 1 to 40 lower-case letters, digits, `.`, `_` or `-`, chosen by the member.
    MemberId: |id| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        if (1..=40).contains(&id.len()) && id.chars().all(allowed) {
            return Ok(());
        }
        Err("is not 1 to 40 lower-case letters, digits, `.`, `_` or `-`".into())
    }
}

id_type! {
    /// The id of a product: a UUID.
    ProductId: uuid
}

id_type! {
    /// The id of an order: a UUID.
    OrderId: uuid
}

generated!(ProductId);
generated!(OrderId);

fn uuid(id: &str) -> Result<(), String> {
    // The form in the names of streams, so that an id has only one form.
    let parsed = Uuid::try_parse(id).ok().filter(|parsed| parsed.hyphenated().to_string() == id);
    parsed.map(drop).ok_or_else(|| "is not a UUID like 0193b1c2-7d3e-7f00-8a4b-5c6d7e8f9a0b".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_id_and_a_new_id_is_new() {
        assert_eq!(OrderId::for_request(Some("a")), OrderId::of_key("a"));
        assert_ne!(OrderId::of_key("a"), OrderId::of_key("b"));
        let (first, second) = (OrderId::generate(), OrderId::for_request(None));
        assert!(first < second, "newer ids sort after older ones");
        assert_eq!(OrderId::new(first.as_str()), Ok(first));
    }

    #[test]
    fn an_id_has_one_form() {
        assert!(ProductId::new("0193B1C2-7D3E-7F00-8A4B-5C6D7E8F9A0B").is_err());
        assert!(ProductId::new("0193b1c27d3e7f008a4b5c6d7e8f9a0b").is_err());
        assert!(MemberId::new("kim").is_ok() && MemberId::new("00001").is_ok());
        for bad in ["Kim", "kim lee", "kim/lee", ""] {
            assert!(MemberId::new(bad).is_err(), "{bad}");
        }
    }
}
