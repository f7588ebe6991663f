//! Golden files: what a test of a user says when events are not read or written any more as they were.

use std::path::Path;

use annals::testing::golden;
use annals::{Event, Upcaster};
use serde::{Deserialize, Serialize};

use crate::orders::OrderEvent;

fn samples() -> [OrderEvent; 3] {
    [
        OrderEvent::Placed { item: "a".into(), cents: 100, currency: "EUR".into() },
        OrderEvent::Paid { cents: 100 },
        OrderEvent::Shipped { parcel: "p1".into() },
    ]
}

/// The files of today's orders, with everything that they once were.
fn files() -> Vec<(&'static str, &'static str)> {
    vec![
        ("order.began.v1.json", r#"{"item":"a","euros":1}"#),
        ("order.began.v1.read", "Placed { item: \"a\", cents: 100, currency: \"EUR\" }\n"),
        ("order.paid.v1.json", r#"{"cents":100}"#),
        ("order.paid.v1.read", "Paid { cents: 100 }\n"),
        ("order.paid_and_shipped.v1.json", r#"{"cents":5,"parcel":"p1"}"#),
        ("order.paid_and_shipped.v1.read", "Paid { cents: 5 }\nShipped { parcel: \"p1\" }\n"),
        ("order.placed.v1.json", r#"{"item":"a","euros":1}"#),
        ("order.placed.v1.read", "Placed { item: \"a\", cents: 100, currency: \"EUR\" }\n"),
        ("order.placed.v2.json", r#"{"item":"a","cents":7}"#),
        ("order.placed.v2.read", "Placed { item: \"a\", cents: 7, currency: \"EUR\" }\n"),
        ("order.placed.v3.json", r#"{"item":"a","cents":100,"currency":"EUR"}"#),
        ("order.placed.v3.read", "Placed { item: \"a\", cents: 100, currency: \"EUR\" }\n"),
        ("order.shipped.v1.json", r#"{"parcel":"p1"}"#),
        ("order.shipped.v1.read", "Shipped { parcel: \"p1\" }\n"),
        ("order.viewed.v1.json", "{}"),
        ("order.viewed.v1.read", ""),
    ]
}

fn directory_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

/// What `golden` says; `None` if nothing differs.
fn message<E: Event + std::fmt::Debug + PartialEq>(directory: &Path, samples: &[E]) -> Option<String> {
    let compared =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| golden(directory, samples.to_vec())));
    compared.err().map(|panic| *panic.downcast::<String>().unwrap())
}

#[test]
fn every_type_and_version_that_was_ever_written_is_read() {
    let directory = directory_of(&files());
    golden(directory.path(), samples());
}

#[test]
fn each_difference_is_named_with_what_to_do() {
    let with = |name: &'static str, content: Option<&'static str>| {
        let mut files = files();
        files.retain(|(other, _)| *other != name);
        files.extend(content.map(|content| (name, content)));
        message(directory_of(&files).path(), &samples()).unwrap_or_default()
    };
    for (difference, expected) in [
        (
            with("order.placed.v3.json", None),
            "order.placed.v3.json is missing: run the test with ANNALS_GOLDEN=write",
        ),
        (with("order.placed.v2.json", None), "`order.placed` (schema version 2) has no golden file"),
        (with("order.began.v1.json", None), "`order.began` has no golden file"),
        (
            with("order.paid_and_shipped.v1.json", None),
            "`order.paid_and_shipped` (schema version 1) has no golden file",
        ),
        (
            with("order.paid.v1.json", Some(r#"{"amount":100}"#)),
            "have changed, but its version is still 1. Now:\n{\"cents\":100}\n  Give the variant `version = 2` and an upcaster \
             of the former version: `upcast(1 = …)`",
        ),
        (with("order.placed.v1.json", Some(r#"{"item":"a"}"#)), "cannot be upcast: missing field `euros`"),
        (
            with("order.placed.v1.json", Some(r#"{"item":"a","euros":2}"#)),
            "the data was read as\nPlaced { item: \"a\", cents: 100",
        ),
        (
            with("order.placed.v2.read", None),
            "order.placed.v2.read is missing; it lists the events that are read from the data",
        ),
        (
            with("order.placed.v3.read", None),
            "order.placed.v3.read is missing; it lists the events that are read from the data",
        ),
        (
            with("order.paid.v1.read", Some("Paid { cents: 1 }\n")),
            "order.paid.v1.read: the data was read as\nPaid { cents: 1 }\n  and is now read as\nPaid { cents: 100 }",
        ),
        (
            with("order.paid.v3.read", Some("")),
            "order.paid.v3.read has no data file: restore that, or delete this file",
        ),
        (with("order.sold.v1.json", Some("{}")), "`order.sold` is not a known event type"),
        (with("order.paid.v2.json", Some("{}")), "this program supports schema versions up to 1"),
        (with("README.md", Some("")), "README.md is not a golden file"),
        (with("order.shipped.v1-2.json", Some("[]")), "order.shipped.v1-2.json: the data of `order.shipped`"),
    ] {
        assert!(difference.contains(expected), "{expected}:\n{difference}");
        assert_eq!(
            difference.lines().filter(|line| line.starts_with("- ")).count(),
            1 + usize::from(expected.starts_with("have changed")),
            "one at a time: {difference}"
        );
    }
    let two = &samples()[..2];
    let without = message(directory_of(&files()).path(), two).unwrap();
    assert!(without.contains("`order.shipped` has no sample: pass one to `golden`"), "{without}");
    assert!(
        without.contains("order.shipped.v1.json has no sample, although it has the current version"),
        "{without}"
    );
    let missing = message(Path::new("there-is-no-such-directory"), &samples()).unwrap();
    assert!(missing.contains("the directory cannot be read"), "{missing}");
}

#[test]
fn a_file_of_todays_version_without_a_sample_is_reported() {
    let mut files = files();
    files.push(("order.paid.v1-2.json", r#"{"cents":7}"#));
    files.push(("order.paid.v1-2.read", "Paid { cents: 7 }\n"));
    let directory = directory_of(&files);
    let with_both = samples().into_iter().chain([OrderEvent::Paid { cents: 7 }]);
    golden(directory.path(), with_both);
    let difference = message(directory.path(), &samples()).unwrap();
    assert!(difference.contains("order.paid.v1-2.json has no sample"), "{difference}");
    assert_eq!(difference.matches("\n- ").count(), 1, "{difference}");
}

/// A field that was renamed and has a default: every former event is read, and means something else.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "order")]
enum Careless {
    #[event(version = 2)]
    Paid {
        #[serde(default)]
        amount: u64,
    },
}

#[test]
fn a_former_version_that_is_read_as_something_else_is_noticed() {
    let files = [
        ("order.paid.v1.json", r#"{"cents":100}"#),
        ("order.paid.v1.read", "Paid { cents: 100 }\n"),
        ("order.paid.v2.json", r#"{"amount":100}"#),
        ("order.paid.v2.read", "Paid { amount: 100 }\n"),
    ];
    let difference = message(directory_of(&files).path(), &[Careless::Paid { amount: 100 }]).unwrap();
    assert!(difference.contains("is now read as\nPaid { amount: 0 }"), "{difference}");
}

/// The process of its own is for the variable, which holds for all threads.
#[test]
fn a_writing_run_creates_what_is_missing_and_keeps_existing_data() {
    const INSIDE: &str = "ANNALS_TEST_GOLDEN_INSIDE";
    if let Some(directory) = std::env::var_os(INSIDE) {
        golden(&directory, samples());
        return;
    }
    let all = files();
    let former: Vec<_> = all.iter().copied().filter(|(name, _)| name.ends_with(".json")).collect();
    let former: Vec<_> = former
        .into_iter()
        .filter(|(name, _)| !name.contains("paid.v1") && !name.contains("shipped.v1."))
        .collect();
    let directory = directory_of(&former);
    let run = |directory: &Path| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "golden::a_writing_run_creates_what_is_missing_and_keeps_existing_data"])
            .env(INSIDE, directory)
            .env("ANNALS_GOLDEN", "write")
            .output()
            .unwrap()
    };
    // `order.paid_and_shipped.v1` is former data that no program writes any more: it is not made.
    let refused = run(directory.path());
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stdout)
                .contains("`order.paid_and_shipped` (schema version 1) has no golden file")
    );
    std::fs::write(directory.path().join("order.paid_and_shipped.v1.json"), r#"{"cents":5,"parcel":"p1"}"#)
        .unwrap();
    let done = run(directory.path());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    for (name, content) in all {
        assert_eq!(std::fs::read_to_string(directory.path().join(name)).unwrap(), content, "{name}");
    }
    std::fs::write(directory.path().join("order.paid.v1.json"), r#"{"amount":1}"#).unwrap();
    let refused = run(directory.path());
    assert!(!refused.status.success(), "a file of data is never written over");
    assert_eq!(
        std::fs::read_to_string(directory.path().join("order.paid.v1.json")).unwrap(),
        r#"{"amount":1}"#
    );
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(prefix = "order", upcasters = OF_TODAY)]
enum Confused {
    Paid,
}

const OF_TODAY: &[Upcaster] = &[Upcaster::Dropped { event_type: "order.paid" }];

#[test]
fn a_table_that_cannot_work_is_refused_first() {
    let message = message(Path::new("anywhere"), &[Confused::Paid]).unwrap();
    assert!(message.contains("upcaster of `order.paid`: events of this type are written today"), "{message}");
}
