//! Names with a meaning (a stream, a type, a tag): newtypes over [`Text`](crate::Text), defined by
//! `name_type!`, which checks length and characters once, when the name is created.

use crate::Invalid;

/// Checks a name: not empty, at most `bytes_max` bytes, no NUL (PostgreSQL cannot store it).
pub(crate) fn check_name(field: &str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "is empty"));
    }
    if text.len() > bytes_max {
        let problem = format!("is {} bytes long, the limit is {bytes_max}", text.len());
        return Err(Invalid::new(field, problem));
    }
    if text.contains('\0') {
        return Err(Invalid::new(field, "contains a NUL character"));
    }
    Ok(())
}

/// A newtype over [`Text`] whose only constructors check the name.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $field:literal, $bytes_max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($crate::Text);

        impl $name {
            /// The longest name that is accepted, in bytes.
            pub const BYTES_MAX: usize = $bytes_max;

            /// Checks a name and takes it.
            ///
            /// # Errors
            /// [`Invalid`](crate::Invalid) if the name is empty, longer than
            /// [`BYTES_MAX`](Self::BYTES_MAX) or contains NUL.
            pub fn new(name: impl Into<$crate::Text>) -> Result<Self, $crate::Invalid> {
                let text = name.into();
                $crate::name::check_name($field, &text, Self::BYTES_MAX)?;
                Ok(Self(text))
            }

            /// The name as a string slice.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The name as shared text.
            pub fn as_text(&self) -> &$crate::Text {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;
            fn from_str(name: &str) -> Result<Self, $crate::Invalid> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::Invalid;
            fn try_from(name: &str) -> Result<Self, $crate::Invalid> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::Invalid;
            fn try_from(name: String) -> Result<Self, $crate::Invalid> {
                Self::new(name)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl PartialEq<$name> for &str {
            fn eq(&self, other: &$name) -> bool {
                *self == other.as_str()
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl From<$name> for $crate::Text {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}
pub(crate) use name_type;
