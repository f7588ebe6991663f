//! A domain crate adds no runtime, no database and no store.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use annals_core::{Aggregate, Context, Decide, Event};
use annals_domain::{Book, NotBooked, Room, RoomEvent};

/// The packages that a domain crate must not depend on.
const HEAVY: &[&str] = &[
    "annals",
    "annals-consume",
    "annals-engine",
    "annals-mysql",
    "annals-postgres",
    "annals-sql",
    "async-std",
    "axum",
    "hyper",
    "libsqlite3-sys",
    "mio",
    "rusqlite",
    "smol",
    "sqlx",
    "tokio",
];

#[test]
fn a_domain_crate_pulls_in_no_runtime_and_no_database() {
    let cargo = std::env::var("CARGO").expect("a test runs under cargo");
    let arguments = [
        "tree",
        "--offline",
        "--locked",
        "-p",
        "annals-domain",
        "-e",
        "normal",
        "--prefix",
        "none",
        "-f",
        "{p}",
    ];
    let output = Command::new(cargo).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"annals-core"), "the tree is that of the crate: {tree}");
    let heavy: Vec<_> = names.iter().filter(|name| HEAVY.contains(name)).collect();
    assert!(heavy.is_empty(), "domain code would bring {heavy:?}:\n{tree}");
}

#[test]
fn a_room_is_booked_once() {
    let book = |from, to| Book { by: "lee".to_owned(), from, to };
    let room = Room::fold("r1", &[RoomEvent::Booked { by: "kim".to_owned(), from: 9, to: 11 }]);
    let context = Context::default();
    assert_eq!(room.decide(&book(10, 12), &context).unwrap_err(), NotBooked::Taken("kim".to_owned()));
    assert_eq!(room.decide(&book(12, 12), &context).unwrap_err(), NotBooked::NoTime(12, 12));
    let events = room.decide(&book(11, 12), &context).unwrap();
    let booked = RoomEvent::Booked { by: "lee".to_owned(), from: 11, to: 12 };
    assert_eq!(events.0, std::slice::from_ref(&booked));
    assert_eq!(booked.event_type(), "room.booked");
    assert_eq!(RoomEvent::decode("room.booked", 1, &booked.encode().unwrap()).unwrap(), booked);
    assert_eq!(booked.tags().unwrap()[0].as_str(), "by:lee");
}
