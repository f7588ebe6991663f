//! Compares a state with the one read back from JSON, by their serialization with serde.
//!
//! JSON expresses less than serde's data model: it has no infinity, and both `Some(None)` and `None` are
//! `null`. So a digest of each state is computed from every serialized value and its kind, and the digests
//! are compared. The order of a sequence is ignored: JSON preserves it, and a set has none. Fields that serde
//! skips, as with `#[serde(skip)]`, are not compared here.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use serde::ser::{self, Serialize};

/// The name of the first field that differs between two states; `Some("")` if the difference is not in a
/// field of a struct.
pub(super) fn difference<A: Serialize>(one: &A, other: &A) -> Result<Option<&'static str>, Unsaid> {
    let (mut of_one, mut of_other) = (Fields::new(), Fields::new());
    if one.serialize(Digest(Some(&mut of_one)))? == other.serialize(Digest(Some(&mut of_other)))? {
        return Ok(None);
    }
    let field = of_one.iter().find(|field| !of_other.contains(field)).or_else(|| of_other.last());
    Ok(Some(field.map_or("", |(name, _)| *name)))
}

/// Why a state cannot be compared: its own code refuses to be serialized.
#[derive(Debug)]
pub(super) struct Unsaid(String);

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsaid {}

impl ser::Error for Unsaid {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self(problem.to_string())
    }
}

/// The fields of the outermost struct with their digests.
type Fields = Vec<(&'static str, u64)>;

/// Computes the digest of a value; collects the fields if it is the outermost one.
struct Digest<'a>(Option<&'a mut Fields>);

fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn digest_of<T: Serialize + ?Sized>(value: &T) -> Result<u64, Unsaid> {
    value.serialize(Digest(None))
}

/// A value of several parts that is being serialized.
struct Whole<'a> {
    begin: u64,
    parts: u64,
    /// The number of parts so far, if their order matters.
    count: u64,
    key: u64,
    fields: Option<&'a mut Fields>,
}

impl<'a> Digest<'a> {
    fn whole(self, kind: &str, name: &str) -> Result<Whole<'a>, Unsaid> {
        Ok(Whole { begin: digest((kind, name)), parts: 0, count: 0, key: 0, fields: self.0 })
    }
}

impl Whole<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, place: impl Hash, value: &T) -> Result<(), Unsaid> {
        self.parts = self.parts.wrapping_add(digest((place, digest_of(value)?)));
        Ok(())
    }

    /// A part whose index matters.
    fn in_place<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsaid> {
        self.count += 1;
        self.part(self.count, value)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unsaid> {
        let value = digest_of(value)?;
        self.parts = self.parts.wrapping_add(digest((name, value)));
        if let Some(fields) = &mut self.fields {
            fields.push((name, value));
        }
        Ok(())
    }
}

macro_rules! leaves {
    ($($method:ident($kind:ty);)*) => {$(
        fn $method(self, value: $kind) -> Result<u64, Unsaid> {
            Ok(digest((stringify!($kind), value)))
        }
    )*};
}

impl<'a> ser::Serializer for Digest<'a> {
    type Ok = u64;
    type Error = Unsaid;
    type SerializeSeq = Whole<'a>;
    type SerializeTuple = Whole<'a>;
    type SerializeTupleStruct = Whole<'a>;
    type SerializeTupleVariant = Whole<'a>;
    type SerializeMap = Whole<'a>;
    type SerializeStruct = Whole<'a>;
    type SerializeStructVariant = Whole<'a>;

    leaves! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
    }

    fn serialize_f32(self, value: f32) -> Result<u64, Unsaid> {
        Ok(digest(("f32", value.to_bits())))
    }
    fn serialize_f64(self, value: f64) -> Result<u64, Unsaid> {
        Ok(digest(("f64", value.to_bits())))
    }
    fn serialize_none(self) -> Result<u64, Unsaid> {
        Ok(digest("none"))
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u64, Unsaid> {
        Ok(digest(("some", digest_of(value)?)))
    }
    fn serialize_unit(self) -> Result<u64, Unsaid> {
        Ok(digest("unit"))
    }
    fn serialize_unit_struct(self, name: &'static str) -> Result<u64, Unsaid> {
        Ok(digest(("unit", name)))
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<u64, Unsaid> {
        Ok(digest(("variant", variant)))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<u64, Unsaid> {
        Ok(digest((name, digest_of(value)?)))
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<u64, Unsaid> {
        Ok(digest(("variant", variant, digest_of(value)?)))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Whole<'a>, Unsaid> {
        self.whole("sequence", "")
    }
    fn serialize_tuple(self, _: usize) -> Result<Whole<'a>, Unsaid> {
        self.whole("tuple", "")
    }
    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Whole<'a>, Unsaid> {
        self.whole("tuple", name)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Whole<'a>, Unsaid> {
        self.whole("variant", variant)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Whole<'a>, Unsaid> {
        self.whole("map", "")
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Whole<'a>, Unsaid> {
        self.whole("struct", name)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Whole<'a>, Unsaid> {
        self.whole("variant", variant)
    }
}

/// Implements serde's trait for each kind of compound value.
macro_rules! wholes {
    ($($whole:ident { $($part:item)* })*) => {$(
        impl ser::$whole for Whole<'_> {
            type Ok = u64;
            type Error = Unsaid;
            $($part)*
            fn end(self) -> Result<u64, Unsaid> {
                Ok(digest((self.begin, self.parts)))
            }
        }
    )*};
}

wholes! {
    SerializeSeq {
        fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsaid> {
            self.part("element", value)
        }
    }
    SerializeTuple {
        fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsaid> {
            self.in_place(value)
        }
    }
    SerializeTupleStruct {
        fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsaid> {
            self.in_place(value)
        }
    }
    SerializeTupleVariant {
        fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsaid> {
            self.in_place(value)
        }
    }
    SerializeMap {
        fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unsaid> {
            self.key = digest_of(key)?;
            Ok(())
        }
        fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsaid> {
            self.part(self.key, value)
        }
    }
    SerializeStruct {
        fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Unsaid> {
            self.field(key, value)
        }
    }
    SerializeStructVariant {
        fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Unsaid> {
            self.field(key, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, Clone, Default)]
    struct State {
        name: String,
        lowest: Option<f64>,
        answered: Option<Option<String>>,
        nothing: Option<()>,
        names: std::collections::HashSet<u32>,
        counts: std::collections::HashMap<String, u32>,
        #[serde(skip_serializing_if = "Option::is_none", default = "kim")]
        by: Option<String>,
    }

    fn kim() -> Option<String> {
        Some("kim".to_owned())
    }

    fn differs(state: &State) -> Option<&'static str> {
        let read: State = serde_json::from_slice(&serde_json::to_vec(state).unwrap()).unwrap();
        difference(state, &read).unwrap()
    }

    #[test]
    fn a_field_that_json_cannot_say_is_named() {
        let whole = State { by: kim(), lowest: Some(-0.1), answered: Some(kim()), ..State::default() };
        let many = State {
            names: (0..1_000).collect(),
            counts: (0..1_000).map(|count| (count.to_string(), count)).collect(),
            ..whole.clone()
        };
        assert_eq!(differs(&many), None, "a set has no order");
        assert_eq!(differs(&whole), None);
        assert_eq!(differs(&State { lowest: Some(f64::INFINITY), ..whole.clone() }), Some("lowest"));
        assert_eq!(differs(&State { answered: Some(None), ..whole.clone() }), Some("answered"));
        assert_eq!(differs(&State { nothing: Some(()), ..whole.clone() }), Some("nothing"));
        assert!(differs(&State { by: None, ..whole }).is_some(), "it is read back as another value");
    }
}
