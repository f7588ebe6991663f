//! Lists in a request body, with a common bound on their memory.
//!
//! An element may be two bytes of JSON, `{}`, and take more than a hundred bytes in memory. So a bound on the
//! bytes of a body does not bound the memory of its elements.

use std::cell::Cell;
use std::fmt::{self, Formatter};
use std::marker::PhantomData;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

thread_local! {
    /// The bytes that the lists of the body that this thread reads may still take.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// A list that is read by [`bounded`].
#[derive(Debug)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Reads a value whose lists take at most this many bytes, not counting what their elements point to.
pub fn bounded<T>(bytes_max: usize, read: impl FnOnce() -> T) -> T {
    LEFT.set(bytes_max);
    read()
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_seq(Elements(PhantomData))
    }
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<List<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            let Some(left) = LEFT.get().checked_sub(size_of::<T>()) else {
                let problem =
                    format_args!("the lists in the body have more elements than the largest append may have");
                return Err(de::Error::custom(problem));
            };
            LEFT.set(left);
            list.push(element);
        }
        Ok(List(list))
    }
}
