//! What `#[derive(Event)]` writes and reads: names, data, versions, tags.

use annals::{Bytes, CodecError, Event};
use serde::{Deserialize, Serialize};

use crate::bank::AccountEvent;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "every")]
enum Every {
    Closed,
    Emptied {},
    Renamed(String),
    Moved(i32, i32),
    Checked {
        #[tag]
        customer: u64,
        #[tag = "shop"]
        place: String,
        #[serde(default)]
        note: Option<String>,
    },
    #[event(name = "old.name", version = 3)]
    #[serde(rename = "whatever")]
    Kept {
        #[serde(rename = "howMany")]
        how_many: u128,
    },
    Nested(Inner),
    Listed(Vec<u8>),
    Flattened {
        id: i128,
        #[serde(flatten)]
        rest: std::collections::BTreeMap<String, u64>,
    },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Inner {
    deep: Vec<Option<f64>>,
}

#[derive(Event, Clone, Debug, PartialEq)]
#[event(union)]
enum Either {
    Account(AccountEvent),
    Every(Every),
}

fn all() -> Vec<(Every, &'static str, &'static str)> {
    vec![
        (Every::Closed, "every.closed", "{}"),
        (Every::Emptied {}, "every.emptied", "{}"),
        (Every::Renamed("고객".into()), "every.renamed", r#""고객""#),
        (Every::Moved(1, -2), "every.moved", "[1,-2]"),
        (
            Every::Checked { customer: 7, place: "Seoul".into(), note: None },
            "every.checked",
            r#"{"customer":7,"place":"Seoul","note":null}"#,
        ),
        (
            Every::Kept { how_many: u128::MAX },
            "old.name",
            r#"{"howMany":340282366920938463463374607431768211455}"#,
        ),
        (Every::Nested(Inner { deep: vec![Some(0.5), None] }), "every.nested", r#"{"deep":[0.5,null]}"#),
        (Every::Listed(vec![1, 2]), "every.listed", "[1,2]"),
        (
            Every::Flattened { id: -7, rest: [("most".to_owned(), u64::MAX)].into() },
            "every.flattened",
            r#"{"id":-7,"most":18446744073709551615}"#,
        ),
    ]
}

#[test]
fn only_the_fields_are_stored_and_the_name_apart_from_them() {
    for (event, name, data) in all() {
        assert_eq!(event.event_type(), name);
        assert_eq!(event.encode().unwrap(), Bytes::from(data));
        assert_eq!(Every::decode(name, event.schema_version(), &Bytes::from(data)).unwrap(), event);
    }
    let names: Vec<_> = all().into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(Every::TYPES, names);
}

#[test]
fn an_event_without_fields_is_read_from_whatever_others_write_for_it() {
    for data in ["{}", "null", "", r#"{"added":"later"}"#] {
        let read = Every::decode("every.closed", 1, &Bytes::from_static(data.as_bytes()));
        assert_eq!(read.unwrap(), Every::Closed, "{data}");
    }
    assert_eq!(Every::decode("every.emptied", 1, &Bytes::new()).unwrap(), Every::Emptied {});
}

#[test]
fn an_event_with_fields_and_without_data_is_an_error_that_says_so() {
    for event_type in
        ["every.renamed", "every.moved", "every.checked", "every.nested", "every.listed", "every.flattened"]
    {
        let error = Every::decode(event_type, 1, &Bytes::new()).unwrap_err().to_string();
        let expected = format!(
            "the data of `{event_type}` (schema version 1) cannot be read: it is empty, which is valid only for an event \
             without fields"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn a_schema_version_is_stored_and_a_newer_one_is_not_guessed_at() {
    assert_eq!(Every::Kept { how_many: 1 }.schema_version(), 3);
    assert_eq!(Every::Closed.schema_version(), 1);
    let data = Bytes::from_static(br#"{"howMany":1}"#);
    assert!(Every::decode("old.name", 2, &data).is_ok());
    let newer = Every::decode("old.name", 4, &data).unwrap_err();
    assert!(matches!(newer, CodecError::Decode { schema_version: 4, .. }), "{newer:?}");
}

#[test]
fn what_cannot_be_read_is_an_error_with_the_reason() {
    let read = |event_type, data: &'static str| Every::decode(event_type, 1, &Bytes::from(data)).unwrap_err();
    assert!(matches!(read("every.unknown", "{}"), CodecError::UnknownType { .. }));
    for (event_type, data, reason) in [
        ("every.checked", "{}", "missing field `customer`"),
        ("every.checked", r#"{"customer":-1,"place":""}"#, "invalid value"),
        ("every.renamed", r#""a" "b""#, "trailing"),
        ("every.moved", "[1]", "invalid length"),
        ("every.closed", "{", "EOF"),
    ] {
        let error = read(event_type, data);
        let CodecError::Decode { cause, .. } = &error else { panic!("{error:?}") };
        assert!(cause.to_string().contains(reason), "{event_type} {data}: {cause}");
    }
}

#[test]
fn fields_become_tags() {
    let event = Every::Checked { customer: 7, place: "Seoul".into(), note: None };
    let tags: Vec<_> = event.tags().unwrap().into_iter().map(|tag| tag.to_string()).collect();
    assert_eq!(tags, ["customer:7", "shop:Seoul"]);
    assert!(Every::Closed.tags().unwrap().is_empty());
    let long = Every::Checked { customer: 7, place: "x".repeat(300), note: None };
    assert!(matches!(long.tags(), Err(CodecError::Encode { .. })));
}

#[test]
fn a_union_stands_for_all_of_its_members() {
    assert_eq!(Either::TYPES.len(), AccountEvent::TYPES.len() + Every::TYPES.len());
    let event = Either::Account(AccountEvent::Deposited { amount: 3 });
    let data = event.encode().unwrap();
    assert_eq!((event.event_type(), &data[..]), ("account.deposited", &br#"{"amount":3}"#[..]));
    assert_eq!(Either::decode("account.deposited", 1, &data).unwrap(), event);
    assert_eq!(Either::decode("every.closed", 1, &Bytes::new()).unwrap(), Either::Every(Every::Closed));
    assert_eq!(Either::Every(Every::Kept { how_many: 1 }).schema_version(), 3);
    assert!(Either::decode("nothing.known", 1, &data).is_err());
}
