//! Shared, immutable UTF-8 text.
//!
//! A [`Text`] may be a slice of a larger block of bytes, so an event that is read from disk borrows its names
//! from the block instead of copying each. Names that mean something (a stream, a type, a tag) are newtypes
//! over it, made by `name_type!`, which checks length and characters once, where the name enters.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

/// Shared, immutable UTF-8 text; a clone costs a reference count.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(ByteString);

impl Text {
    /// Text over bytes that are already shared.
    ///
    /// # Errors
    /// If the bytes are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        ByteString::try_from(bytes).map(Self)
    }

    /// The text as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The UTF-8 bytes, shared.
    pub fn as_bytes(&self) -> &Bytes {
        self.0.as_bytes()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(ByteString::from(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(ByteString::from(text))
    }
}

impl From<&Text> for Text {
    fn from(text: &Text) -> Self {
        text.clone()
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl std::borrow::Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl std::ops::Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Checks a name: not empty, at most `bytes_max` bytes, no NUL (PostgreSQL cannot store it).
pub(crate) fn check_name(field: &str, text: &str, bytes_max: usize) -> Result<(), crate::Invalid> {
    if text.is_empty() {
        return Err(crate::Invalid::new(field, "is empty"));
    }
    if text.len() > bytes_max {
        let problem = format!("is {} bytes long, the limit is {bytes_max}", text.len());
        return Err(crate::Invalid::new(field, problem));
    }
    if text.contains('\0') {
        return Err(crate::Invalid::new(field, "contains a NUL character"));
    }
    Ok(())
}

/// The text without its middle if it has more bytes than this: for messages that quote what may be as long as a
/// request.
pub fn shortened(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let (mut head, mut tail) = (bytes_max / 2, text.len() - bytes_max / 4);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{} … {}", &text[..head], &text[tail..])
}

/// A newtype over [`Text`] whose only way in is a checked one.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $field:literal, $bytes_max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($crate::Text);

        impl $name {
            /// The longest name that is accepted, in bytes.
            pub const BYTES_MAX: usize = $bytes_max;

            /// Takes a name after checking it.
            ///
            /// # Errors
            /// [`Invalid`](crate::Invalid) if the name is empty, longer than
            /// [`BYTES_MAX`](Self::BYTES_MAX) or contains NUL.
            pub fn new(name: impl Into<$crate::Text>) -> Result<Self, $crate::Invalid> {
                let text = name.into();
                $crate::text::check_name($field, &text, Self::BYTES_MAX)?;
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
