//! Tests of refused tables of upcasters, and of the results of chains.

use annals_core::{Bytes, Cause, CodecError, ContentType, Event, RawEvent, Upcaster};

use super::{chain, check, fingerprint};

fn same(mut raw: RawEvent) -> Result<Vec<RawEvent>, Cause> {
    raw.schema_version += 1;
    Ok(vec![raw])
}

const fn converted(event_type: &'static str, version: u16, into: &'static [(&'static str, u16)]) -> Upcaster {
    Upcaster::Converted { event_type, version, into, convert: same }
}

/// Event types that differ in their tables: `now` has version 3 and `plain` version 1.
macro_rules! tables {
    ($($name:ident: [$($upcaster:expr),* $(,)?];)*) => {$(
        #[derive(Clone)]
        struct $name;

        impl Event for $name {
            const TYPES: &'static [&'static str] = &["now", "plain"];
            const UPCASTERS: &'static [Upcaster] = &[$($upcaster),*];
            fn event_type(&self) -> &'static str {
                "now"
            }
            fn current_version(event_type: &str) -> u16 {
                if event_type == "now" { 3 } else { 1 }
            }
            fn encode(&self) -> Result<Bytes, CodecError> {
                Ok(Bytes::new())
            }
            fn decode(_: &str, _: u16, _: &[u8]) -> Result<Self, CodecError> {
                Ok(Self)
            }
        }
    )*};
}

tables! {
    Empty: [];
    Chain: [
        converted("now", 1, &[("now", 2)]),
        converted("now", 2, &[("now", 3)]),
        Upcaster::Renamed { former: "former", event_type: "now" },
        Upcaster::Renamed { former: "first", event_type: "former" },
        converted("both", 1, &[("now", 1), ("plain", 1), ("gone", 5)]),
        Upcaster::Dropped { event_type: "gone" },
    ];
    Below: [converted("now", 2, &[("now", 3)])];
    // Version 2 is read as it is.
    Gap: [converted("now", 1, &[("now", 2)])];
    Itself: [converted("old", 1, &[("old", 1)])];
    ItselfByName: [Upcaster::Renamed { former: "old", event_type: "old" }];
    Circle: [
        converted("old", 1, &[("now", 3), ("other", 2)]),
        converted("other", 2, &[("other", 3)]),
        converted("other", 3, &[("old", 1)]),
    ];
    OfToday: [converted("now", 3, &[("plain", 1)])];
    OfTomorrow: [converted("now", 4, &[("now", 3)])];
    DropsToday: [Upcaster::Dropped { event_type: "now" }];
    RenamesToday: [Upcaster::Renamed { former: "now", event_type: "plain" }];
    Twice: [converted("old", 1, &[("now", 3)]), converted("old", 1, &[("plain", 1)])];
    TwiceByName: [converted("old", 1, &[("now", 3)]), Upcaster::Dropped { event_type: "old" }];
    Nowhere: [converted("old", 1, &[("never", 1)])];
    NowhereByName: [Upcaster::Renamed { former: "old", event_type: "never" }];
    TooNew: [converted("old", 1, &[("plain", 2)])];
}

#[test]
fn a_table_is_refused_with_the_upcaster_that_is_wrong() {
    check::<Empty>().unwrap();
    check::<Chain>().unwrap();
    check::<Gap>().unwrap();
    for (checked, problem) in [
        (check::<Itself>(), "of `old` (schema version 1): its output is its own input"),
        (check::<ItselfByName>(), "of `old`: its output is its own input"),
        (check::<Circle>(), "of `old` (schema version 1): its output leads back to it"),
        (check::<OfToday>(), "of `now` (schema version 3): version 3 is the one that is written today"),
        (check::<OfTomorrow>(), "of `now` (schema version 4): version 3 is the one that is written today"),
        (check::<DropsToday>(), "of `now`: events of this type are written today"),
        (check::<RenamesToday>(), "of `now`: events of this type are written today"),
        (check::<Below>(), "of `now` (schema version 2): no upcaster takes version 1"),
        (check::<Twice>(), "of `old` (schema version 1): another upcaster takes these events too"),
        (check::<TwiceByName>(), "of `old`: another upcaster takes these events too"),
        (check::<Nowhere>(), "of `old` (schema version 1): its output `never` is neither in"),
        (check::<NowhereByName>(), "of `old`: its output `never` is neither in"),
        (
            check::<TooNew>(),
            "of `old` (schema version 1): its output is version 2 of `plain`, whose newest version is 1",
        ),
    ] {
        let invalid = checked.unwrap_err();
        assert!(invalid.field == "upcaster" && invalid.problem.starts_with(problem), "{problem}: {invalid}");
    }
}

#[test]
fn a_chain_ends_where_nothing_takes_the_event() {
    let read = |event_type: &str, version| -> Vec<(String, u16)> {
        let made = chain(Chain::UPCASTERS, RawEvent::new(event_type, version, "")).unwrap();
        let described =
            |part: super::Part| (part.raw.event_type.as_str().to_owned(), part.raw.schema_version);
        made.into_iter().map(described).collect()
    };
    let now = |version| vec![("now".to_owned(), version)];
    for version in 1..=3 {
        assert_eq!(read("now", version), now(3));
        assert_eq!(read("former", version), now(3), "the versions of a renamed type count on");
        assert_eq!(read("first", version), now(3));
    }
    assert_eq!(read("former", 9), now(9));
    assert_eq!(read("gone", 9), []);
    assert_eq!(read("unknown", 9), [("unknown".to_owned(), 9)]);
}

#[test]
fn what_is_created_must_be_what_was_announced() {
    // `same` returns version 2 of `both`, but the table declares other types.
    let error = chain(Chain::UPCASTERS, RawEvent::new("both", 1, "")).unwrap_err();
    assert!(
        error.to_string().contains("it was made `both` (schema version 2), which is not in the `into`"),
        "{error}"
    );
}

/// Makes `plain`, `inner` and `plain`; `inner` makes `gone` and `now`.
fn nested(raw: RawEvent) -> Result<Vec<RawEvent>, Cause> {
    let make = |name: &str, version| RawEvent::new(name, version, "");
    Ok(match raw.event_type.as_str() {
        "outer" => vec![make("plain", 1), make("inner", 1), make("plain", 1)],
        _ => vec![make("gone", 1), make("now", 3)],
    })
}

/// An upcaster that drops is added when the events are in use already: keys of rows and of commands hold the
/// numbers.
#[test]
fn a_part_keeps_its_number_when_an_upcaster_drops_another_one_later() {
    let numbers = |table: &[Upcaster]| -> Vec<(u32, String)> {
        let made = chain(table, RawEvent::new("outer", 1, "")).unwrap();
        made.into_iter().map(|part| (part.number, part.raw.event_type.as_str().to_owned())).collect()
    };
    let outer = Upcaster::Converted {
        event_type: "outer",
        version: 1,
        into: &[("plain", 1), ("inner", 1)],
        convert: nested,
    };
    let inner = Upcaster::Converted {
        event_type: "inner",
        version: 1,
        into: &[("gone", 1), ("now", 3)],
        convert: nested,
    };
    let named = |numbers: &[(u32, &str)]| -> Vec<(u32, String)> {
        numbers.iter().map(|(number, name)| (*number, (*name).to_owned())).collect()
    };
    let all = named(&[(0, "plain"), (1, "gone"), (2, "now"), (3, "plain")]);
    assert_eq!(numbers(&[outer, inner]), all);
    let gone = Upcaster::Dropped { event_type: "gone" };
    assert_eq!(numbers(&[outer, inner, gone]), named(&[(0, "plain"), (2, "now"), (3, "plain")]));
    let no_plain = Upcaster::Dropped { event_type: "plain" };
    assert_eq!(numbers(&[outer, inner, gone, no_plain]), named(&[(2, "now")]));
    // By version, without any event made.
    let by_version =
        Upcaster::Converted { event_type: "gone", version: 1, into: &[], convert: |_| Ok(Vec::new()) };
    assert_eq!(numbers(&[outer, inner, by_version]), named(&[(0, "plain"), (2, "now"), (3, "plain")]));
}

/// A filter that matches nothing must not lose a payment.
#[test]
fn an_upcaster_that_was_to_make_events_and_makes_none_has_failed() {
    let makes_none = |into| {
        let none = Upcaster::Converted { event_type: "old", version: 1, into, convert: |_| Ok(Vec::new()) };
        chain(&[none], RawEvent::new("old", 1, "")).map(|made| made.len())
    };
    let error = makes_none(&[("now", 3), ("plain", 1)]).unwrap_err().to_string();
    assert!(error.starts_with("`old` (schema version 1) cannot be upcast: it was made no event"), "{error}");
    assert!(
        error.contains("makes `now` (schema version 3): to drop an event, make one of a type"),
        "{error}"
    );
    assert_eq!(makes_none(&[]).unwrap(), 0, "it was declared to make none");
}

/// An event type whose versions and content type are code that panics.
#[derive(Clone, Debug)]
struct Panics;

impl Event for Panics {
    const TYPES: &'static [&'static str] = &["panics"];
    fn event_type(&self) -> &'static str {
        "panics"
    }
    fn current_version(_: &str) -> u16 {
        panic!("no version today")
    }
    fn content_type(_: &str) -> ContentType {
        panic!("no content type today")
    }
    fn encode(&self) -> Result<Bytes, CodecError> {
        Ok(Bytes::new())
    }
    fn decode(_: &str, _: u16, _: &[u8]) -> Result<Self, CodecError> {
        Ok(Self)
    }
}

#[test]
fn a_panic_of_a_content_type_or_a_version_is_an_error() {
    let error = crate::codec::read_raw::<Panics>(RawEvent::new("panics", 1, "")).unwrap_err();
    assert!(matches!(&error, CodecError::Decode { .. }), "{error}");
    assert!(error.to_string().contains("panicked: no content type today"), "{error}");
    const TABLE: &[Upcaster] = &[converted("panics", 1, &[("panics", 2)])];
    #[derive(Clone)]
    struct WithTable;
    impl Event for WithTable {
        const TYPES: &'static [&'static str] = Panics::TYPES;
        const UPCASTERS: &'static [Upcaster] = TABLE;
        fn event_type(&self) -> &'static str {
            "panics"
        }
        fn current_version(event_type: &str) -> u16 {
            Panics::current_version(event_type)
        }
        fn encode(&self) -> Result<Bytes, CodecError> {
            Ok(Bytes::new())
        }
        fn decode(_: &str, _: u16, _: &[u8]) -> Result<Self, CodecError> {
            Ok(Self)
        }
    }
    let invalid = check::<WithTable>().unwrap_err().to_string();
    assert!(invalid.contains("WithTable` panicked: no version today"), "{invalid}");
}

#[test]
fn a_circle_ends_in_an_error_even_in_an_unchecked_table() {
    for table in
        [ItselfByName::UPCASTERS, &[converted("old", 1, &[("old", 2)]), converted("old", 2, &[("old", 3)])]]
    {
        let made = chain(table, RawEvent::new("old", 1, ""));
        match made {
            Ok(made) => assert_eq!(made[0].raw.schema_version, 3),
            Err(error) => assert!(error.to_string().contains("form a cycle"), "{error}"),
        }
    }
}

#[test]
fn a_fingerprint_distinguishes_tables() {
    let all =
        [fingerprint::<Empty>(), fingerprint::<Chain>(), fingerprint::<Gap>(), fingerprint::<DropsToday>()];
    for (index, one) in all.iter().enumerate() {
        assert!(one.as_ref().is_some_and(|one| one.len() == 8), "version 3 is not the first: {one:?}");
        assert!(all[..index].iter().all(|other| other != one), "{all:?}");
    }
    assert_eq!(
        fingerprint::<crate::Answer>(),
        None,
        "first shapes alone have none, so that their snapshots are kept"
    );
}
