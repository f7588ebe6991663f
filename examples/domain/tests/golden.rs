//! All stored versions of a room's events can be read.

use annals::RawEvent;
use annals::testing::{given_stored, golden};
use annals_domain::{Room, RoomEvent};

#[test]
fn what_was_ever_stored_of_a_room_is_read() {
    let booked = RoomEvent::Booked { by: "kim".to_owned(), from: 9, to: 11 };
    golden("tests/golden", [booked, RoomEvent::Cancelled { from: 9 }]);
}

#[test]
fn a_cancellation_of_the_first_version_frees_the_room() {
    let booked = RawEvent::new("room.booked", 1, r#"{"by":"kim","from":9,"to":11}"#);
    let cancelled = RawEvent::new("room.cancelled", 1, r#"{"hour":9}"#);
    let looked_at = RawEvent::new("room.looked_at", 1, r#"{"by":"lee"}"#);
    let room = given_stored::<Room>([booked.clone(), looked_at.clone()]);
    assert_eq!(room.state().booked_by(10), Some("kim"));
    let room = given_stored::<Room>([booked, looked_at, cancelled]);
    assert_eq!(room.state().booked_by(10), None);
}
