//! The serde representation of core values: names, ids, times and tokens as the text that `Display` writes
//! and `FromStr` reads, positions and versions as numbers.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::{
    Category, EventId, EventType, IdempotencyKey, Position, Seen, StoreId, StreamId, Tag, Timestamp, Version,
    Witness,
};

/// Reads a value from text.
struct FromText<T>(&'static str, PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! as_text {
    ($($type:ident $what:literal),* $(,)?) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText($what, PhantomData))
            }
        }
    )*};
}

as_text! {
    Category "the category of a stream",
    EventId "the id of an event",
    EventType "the type of an event",
    IdempotencyKey "an idempotency key",
    StoreId "the id of a log",
    Seen "a position, alone or as 42@UUID",
    StreamId "the name of a stream",
    Tag "a tag",
    Timestamp "a time like 2017-04-15T13:00:00Z",
    Witness "a place like 42@0f8fad5b-d9cb-469f-a165-70867728950e",
}

macro_rules! as_number {
    ($($type:ident),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.get())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u64::deserialize(deserializer).map(Self::new)
            }
        }
    )*};
}

as_number!(Position, Version);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(value: serde_json::Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        let time: Timestamp = "2017-04-15T13:00:00.5Z".parse().unwrap();
        let stream = StreamId::new("account-1").unwrap();
        let event = EventId::from_name(b"a");
        let written = json!({
            "at": time, "stream": stream, "position": Position::new(7), "version": Version::new(2), "id": event,
            "place": Witness { position: Position::new(7), id: event },
        });
        let id = event.to_string();
        let expected = json!({
            "at": "2017-04-15T13:00:00.5Z", "stream": "account-1", "position": 7, "version": 2, "id": id,
            "place": format!("7@{id}"),
        });
        assert_eq!(written, expected);
        assert_eq!(read(written["at"].clone()), Ok(time));
        assert_eq!(read(written["stream"].clone()), Ok(stream));
        assert_eq!(read(written["position"].clone()), Ok(Position::new(7)));
        assert_eq!(read(written["id"].clone()), Ok(event));
    }

    #[test]
    fn what_is_not_a_value_is_refused_with_the_reason() {
        assert!(read::<Timestamp>(json!("2017-04-15T13:00:00")).unwrap_err().contains("2017-04-15T13:00:00"));
        assert!(read::<Timestamp>(json!(7)).unwrap_err().contains("a time like"));
        assert!(read::<StreamId>(json!("")).unwrap_err().contains("stream"));
        assert!(read::<Position>(json!(-1)).is_err());
    }
}
