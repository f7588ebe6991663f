//! The two numbers of an event: its place in the log and its place in its stream.

use std::fmt;

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// Before the first event.
            pub const ZERO: Self = Self(0);
            /// The first event.
            pub const FIRST: Self = Self(1);
            /// Beyond every event; a backward read from here starts at the newest.
            pub const MAX: Self = Self(u64::MAX);

            #[doc = concat!("The ", $what, " with this number.")]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number as a `u64`.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The next one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The one before; zero has none and stays zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }

            /// The number that is larger by this count.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::Invalid;
            fn from_str(text: &str) -> Result<Self, crate::Invalid> {
                // Only digits: `+3` would be a second text for the same number.
                let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
                number.map(Self).ok_or_else(|| {
                    crate::Invalid::new($what, format!("`{text}` is not a whole number from 0 up"))
                })
            }
        }
    };
}

number_type! {
    /// Place of an event in the log: 1 for the first event of all; 0 is before everything.
    ///
    /// Positions have no gaps, and their order is the order of commit and of visibility (G4).
    Position, "position"
}

number_type! {
    /// Place of an event in its stream: 1 for the stream's first event; 0 means that there is no stream.
    Version, "version"
}
