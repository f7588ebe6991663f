//! The functions that `#[derive(Event)]` calls: they write and read one variant of an enum as JSON, without
//! its name.
//!
//! ```text
//! AccountEvent::Opened { owner: "kim" }   type: account.opened   data: {"owner":"kim"}
//! AccountEvent::Closed                    type: account.closed   data: {}
//! ```
//!
//! serde's derived code gives a format the name of the variant with its content. The serializer here drops
//! the name; the deserializer identifies the variant by its index in the enum, which derived code accepts as
//! well. So data is written and read in one pass, without a tree of values in between.
//!
//! Independent of stores. Hidden from the documentation: it is for generated code.

use std::fmt;

use crate::{Bytes, Cause, CodecError, RawEvent, Tag, Upcaster};
use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::ser::Impossible;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::de::SliceRead;

type Json<'a> = &'a mut serde_json::Serializer<Vec<u8>>;
type JsonReader<'de> = serde_json::Deserializer<SliceRead<'de>>;

/// The data of an event: the content of its variant.
///
/// # Errors
/// If serde fails.
pub fn encode<E: Serialize>(event: &E, event_type: &str) -> Result<Bytes, CodecError> {
    let mut json = serde_json::Serializer::new(Vec::with_capacity(128));
    event
        .serialize(VariantContent(&mut json))
        .map_err(|error| CodecError::Encode { event_type: event_type.to_owned(), cause: Box::new(error) })?;
    Ok(Bytes::from(json.into_inner()))
}

/// The event of the enum's variant with this index.
///
/// # Errors
/// If the data does not fit, or its shape is newer than the program.
pub fn decode<E: DeserializeOwned>(
    variant: u32,
    newest: u16,
    event_type: &str,
    schema_version: u16,
    data: &[u8],
) -> Result<E, CodecError> {
    let failed =
        |cause: Cause| CodecError::Decode { event_type: event_type.to_owned(), schema_version, cause };
    if schema_version > newest {
        let problem =
            format!("this program supports schema versions up to {newest}; a newer program wrote it");
        return Err(failed(problem.into()));
    }
    let mut json = serde_json::Deserializer::from_slice(data);
    let event = E::deserialize(OneVariant { variant, empty: data.is_empty(), json: &mut json });
    let event = event.map_err(|error| {
        failed(if data.is_empty() {
            "it is empty, which is valid only for an event without fields".into()
        } else {
            Box::new(error)
        })
    })?;
    json.end().map_err(|error| failed(Box::new(error)))?;
    Ok(event)
}

/// Converts an event to the next version of its shape: decodes its data as the type that the function takes,
/// and encodes what the function returns.
///
/// # Errors
/// If the data does not fit, or the function fails.
pub fn convert<Former, Next, X>(
    stored: &RawEvent,
    next: impl FnOnce(Former) -> Result<Next, X>,
) -> Result<Vec<RawEvent>, Cause>
where
    Former: DeserializeOwned,
    Next: Serialize,
    X: Into<Cause>,
{
    let next = next(stored.read()?).map_err(Into::into)?;
    Ok(vec![RawEvent::json(&stored.event_type, stored.schema_version + 1, &next)?])
}

/// The number of upcasters in all tables.
pub const fn count_upcasters(tables: &[&[Upcaster]]) -> usize {
    let (mut count, mut table) = (0, 0);
    while table < tables.len() {
        count += tables[table].len();
        table += 1;
    }
    count
}

/// The upcasters of all tables.
pub const fn join_upcasters<const N: usize>(tables: &[&[Upcaster]]) -> [Upcaster; N] {
    let mut all = [Upcaster::Dropped { event_type: "" }; N];
    let (mut at, mut table) = (0, 0);
    while table < tables.len() {
        let mut index = 0;
        while index < tables[table].len() {
            all[at] = tables[table][index];
            at += 1;
            index += 1;
        }
        table += 1;
    }
    all
}

/// Refuses a table in which two upcasters take the same events, or in which one makes events of a type that
/// is not read.
///
/// # Panics
/// At compile time, with the stored name and the remedy. Checks that need more than names (versions, cycles)
/// run when a reader starts.
#[track_caller]
pub const fn check_upcasters(types: &[&str], table: &[Upcaster]) {
    let mut index = 0;
    while index < table.len() {
        let upcaster = &table[index];
        let mut earlier = 0;
        while earlier < index {
            if takes_of(&table[earlier], upcaster.event_type(), upcaster.version()) {
                let problem = "two upcasters take these events (by `former_name`, `upcast`, `dropped` or an entry of a table, \
                               including those of a union's variants): remove one of them";
                refuse(upcaster.event_type(), problem);
            }
            earlier += 1;
        }
        match upcaster {
            Upcaster::Renamed { event_type, .. } => check_made(types, table, event_type, None),
            Upcaster::Converted { into, .. } => {
                let mut made = 0;
                while made < into.len() {
                    check_made(types, table, into[made].0, Some(into[made].1));
                    made += 1;
                }
            }
            Upcaster::Dropped { .. } => {}
        }
        index += 1;
    }
}

/// Refuses the output of an upcaster if it is neither a current type nor taken by another upcaster.
#[track_caller]
const fn check_made(types: &[&str], table: &[Upcaster], event_type: &str, version: Option<u16>) {
    let mut index = 0;
    while index < types.len() {
        if equal(types[index], event_type) {
            return;
        }
        index += 1;
    }
    index = 0;
    while index < table.len() {
        if takes_of(&table[index], event_type, version) {
            return;
        }
        index += 1;
    }
    let problem = "an upcaster makes events of this type, but it is not a type of this enum, and no other upcaster takes it: \
                   name a current type";
    refuse(event_type, problem);
}

/// Whether an upcaster takes events of this type and this version; `None` is any version.
const fn takes_of(upcaster: &Upcaster, event_type: &str, version: Option<u16>) -> bool {
    let is_of_version = match (upcaster.version(), version) {
        (Some(taken), Some(version)) => taken == version,
        _ => true,
    };
    is_of_version && equal(upcaster.event_type(), event_type)
}

/// Stops compilation with the problem of a stored name.
#[track_caller]
const fn refuse(name: &str, problem: &str) -> ! {
    let mut text = [0; 512];
    let mut bytes = 0;
    let parts = [b"`", name.as_bytes(), b"`: ", problem.as_bytes()];
    let mut part = 0;
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() && bytes < text.len() {
            text[bytes] = parts[part][index];
            bytes += 1;
            index += 1;
        }
        part += 1;
    }
    match std::str::from_utf8(text.split_at(bytes).0) {
        Ok(text) => panic!("{}", text),
        // The long text was cut within a character.
        Err(_) => panic!("{}", problem),
    }
}

/// The error for an unknown type.
pub fn unknown(event_type: &str) -> CodecError {
    CodecError::UnknownType { event_type: event_type.to_owned() }
}

/// Tags of the form `key:value`.
///
/// # Errors
/// If one is too long.
pub fn tags(event_type: &str, pairs: &[(&str, &dyn fmt::Display)]) -> Result<Vec<Tag>, CodecError> {
    let mut tags = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let tag = Tag::new(format!("{key}:{value}")).map_err(|invalid| CodecError::Encode {
            event_type: event_type.to_owned(),
            cause: Box::new(invalid),
        })?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

/// The number of names in all parts.
pub const fn count(parts: &[&[&str]]) -> usize {
    let (mut count, mut part) = (0, 0);
    while part < parts.len() {
        count += parts[part].len();
        part += 1;
    }
    count
}

/// The names of all parts.
///
/// # Panics
/// At compile time, if two parts have a name in common.
pub const fn join<const N: usize>(parts: &[&[&'static str]]) -> [&'static str; N] {
    let mut all = [""; N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            let mut earlier = 0;
            while earlier < at {
                assert!(!equal(all[earlier], parts[part][index]), "two types of a union share a stored name");
                earlier += 1;
            }
            all[at] = parts[part][index];
            at += 1;
            index += 1;
        }
        part += 1;
    }
    all
}

const fn equal(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Writes the content of a variant and refuses any other value.
struct VariantContent<'a>(Json<'a>);

macro_rules! refuse {
    ($($method:ident($($kind:ty),*) -> $answer:ty;)*) => {$(
        fn $method(self, $(_: $kind),*) -> Result<$answer, Self::Error> {
            Err(serde::ser::Error::custom("an event type must be serialized as serde derives it for an enum"))
        }
    )*};
}

impl<'a> Serializer for VariantContent<'a> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Impossible<(), Self::Error>;
    type SerializeTuple = Impossible<(), Self::Error>;
    type SerializeTupleStruct = Impossible<(), Self::Error>;
    type SerializeMap = Impossible<(), Self::Error>;
    type SerializeStruct = Impossible<(), Self::Error>;
    type SerializeTupleVariant = TupleContent<'a>;
    type SerializeStructVariant = StructContent<'a>;

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
    ) -> Result<(), Self::Error> {
        use serde::ser::SerializeMap;
        self.0.serialize_map(Some(0))?.end()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        value.serialize(self.0)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        len: usize,
    ) -> Result<TupleContent<'a>, Self::Error> {
        Ok(TupleContent(self.0.serialize_tuple(len)?))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<StructContent<'a>, Self::Error> {
        Ok(StructContent(self.0.serialize_struct(variant, len)?))
    }

    refuse! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _value: &T) -> Result<(), Self::Error> {
        self.serialize_none()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        value.serialize(self)
    }
}

/// The fields of a variant with named fields.
struct StructContent<'a>(<Json<'a> as Serializer>::SerializeStruct);

impl serde::ser::SerializeStructVariant for StructContent<'_> {
    type Ok = ();
    type Error = serde_json::Error;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        serde::ser::SerializeStruct::serialize_field(&mut self.0, key, value)
    }
    fn end(self) -> Result<(), Self::Error> {
        serde::ser::SerializeStruct::end(self.0)
    }
}

/// The fields of a tuple variant.
struct TupleContent<'a>(<Json<'a> as Serializer>::SerializeTuple);

impl serde::ser::SerializeTupleVariant for TupleContent<'_> {
    type Ok = ();
    type Error = serde_json::Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        serde::ser::SerializeTuple::serialize_element(&mut self.0, value)
    }
    fn end(self) -> Result<(), Self::Error> {
        serde::ser::SerializeTuple::end(self.0)
    }
}

/// Reads one variant of an enum, given its index; the input is its content only.
struct OneVariant<'a, 'de> {
    variant: u32,
    /// Whether the data is empty, as some programs write an event without fields.
    empty: bool,
    json: &'a mut JsonReader<'de>,
}

impl<'de> Deserializer<'de> for OneVariant<'_, 'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("an event type must be deserialized as serde derives it for an enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for OneVariant<'_, 'de> {
    type Error = serde_json::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Self::Error> {
        let place: serde::de::value::U64Deserializer<Self::Error> =
            u64::from(self.variant).into_deserializer();
        Ok((seed.deserialize(place)?, self))
    }
}

impl<'de> VariantAccess<'de> for OneVariant<'_, 'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        if self.empty {
            return Ok(());
        }
        // Fields that a newer program added are ignored, as serde does for every other variant.
        serde::de::IgnoredAny::deserialize(self.json).map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Self::Error> {
        seed.deserialize(self.json)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        self.json.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if self.empty && fields.is_empty() {
            let no_fields = std::iter::empty::<((), ())>();
            return visitor.visit_map(serde::de::value::MapDeserializer::new(no_fields));
        }
        self.json.deserialize_struct("event", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_union_are_joined_in_order() {
        const PARTS: &[&[&str]] = &[&["a.b", "a.c"], &[], &["b.c"]];
        const ALL: [&str; count(PARTS)] = join(PARTS);
        assert_eq!(ALL, ["a.b", "a.c", "b.c"]);
    }

    #[test]
    #[should_panic(expected = "`a.viewed`: two upcasters take these events")]
    fn a_type_that_two_members_of_a_union_drop_does_not_compile() {
        let dropped = Upcaster::Dropped { event_type: "a.viewed" };
        check_upcasters(
            &["a.b"],
            &[dropped, Upcaster::Renamed { former: "a.c", event_type: "a.b" }, dropped],
        );
    }

    #[test]
    #[should_panic(
        expected = "`a.sold`: an upcaster makes events of this type, but it is not a type of this enum"
    )]
    fn a_rename_to_a_type_that_is_not_read_does_not_compile() {
        let renamed = |former, event_type| Upcaster::Renamed { former, event_type };
        // A rename by way of another name is accepted.
        let table = [renamed("a.d", "a.c"), renamed("a.c", "a.b"), renamed("a.e", "a.sold")];
        check_upcasters(&["a.b"], &table[..2]);
        check_upcasters(&["a.b"], &table);
    }

    #[test]
    #[should_panic(expected = "`aé")]
    fn a_problem_of_a_long_name_is_shown_too() {
        refuse(&format!("a{}", "é".repeat(300)), "it is too long");
    }

    #[test]
    #[should_panic(expected = "share a stored name")]
    fn a_name_in_two_parts_of_a_union_does_not_compile() {
        let _: [&str; 2] = join(&[&["a.b"], &["a.b"]]);
    }
}
