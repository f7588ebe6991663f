//! Text with a meaning: names, e-mail addresses, postal addresses, profiles.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Field, text};

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident: $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the text; surrounding blanks are removed.
            ///
            /// # Errors
            /// The problem.
            pub fn new(text: &str) -> Result<Self, String> {
                let text = text.trim();
                let check: fn(&str) -> Result<(), String> = $check;
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
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

text_type! {
    /// The name of a member or a product: 1 to 100 characters.
    Name: |text| length(text, 1, 100)
}

text_type! {
    /// An e-mail address.
    Email: |text| {
        length(text, 3, 254)?;
        match text.split_once('@') {
            Some((local, domain))
                if !local.is_empty() && domain.contains('.') && !domain.starts_with('.')
                    && !domain.ends_with('.') && !domain.contains('@')
                    && !text.contains(char::is_whitespace) => Ok(()),
            _ => Err("is not an e-mail address like kim@example.com".into()),
        }
    }
}

text_type! {
    /// A postal address: 1 to 300 characters.
    Address: |text| length(text, 1, 300)
}

text_type! {
    /// A member's text about itself: at most 2,000 characters.
    Profile: |text| length(text, 0, 2_000)
}

impl Email {
    /// A digest that is the same for all spellings of this address, and does not reveal it: upper and lower
    /// case are not distinguished, in the domain nor in the part before it.
    pub fn digest(&self) -> String {
        crate::digest::of(&self.0.to_lowercase())
    }
}

/// Checks the number of characters, and that none is a control character.
fn length(text: &str, least: usize, most: usize) -> Result<(), String> {
    let count = text.chars().count();
    if count < least {
        return Err(if count == 0 {
            "is empty".into()
        } else {
            format!("is shorter than {least} characters")
        });
    }
    if count > most {
        return Err(format!("is {count} characters long, the most is {most}"));
    }
    if text.contains(|c: char| c.is_control() && c != '\n') {
        return Err("contains a control character".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_however_it_is_written() {
        let one = Email::new("Kim@Example.com").unwrap();
        assert_eq!(one.digest(), Email::new(" kim@example.COM ").unwrap().digest());
        assert_ne!(one.digest(), Email::new("kim@example.org").unwrap().digest());
        assert!(!one.digest().contains("kim"));
    }

    #[test]
    fn bad_addresses_are_refused() {
        for bad in ["", "kim", "kim@", "@example.com", "a@b@c.de", "a b@c.de", "a@b", "a@.de", "a@b."] {
            assert!(Email::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_is_measured_in_characters() {
        assert!(Name::new(&"계".repeat(100)).is_ok());
        assert_eq!(Name::new(&"계".repeat(101)), Err("is 101 characters long, the most is 100".into()));
        assert_eq!(Name::new("  "), Err("is empty".into()));
        assert!(Name::new("a\u{7}b").is_err());
    }
}
