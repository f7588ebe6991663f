//! A domain crate for meeting rooms: events, an aggregate, and decisions.
//!
//! It depends only on `annals-core`, which does no I/O: it adds no runtime, no database and no store, as the
//! test in `tests/dependencies.rs` checks. The service that runs it depends on `annals` as well, and passes
//! [`Room`] to `annals.repository::<Room>()`.
//!
//! ```
//! use annals_core::Aggregate;
//! use annals_domain::{Room, RoomEvent};
//!
//! let room = Room::fold("r1", &[RoomEvent::Booked { by: "kim".into(), from: 9, to: 11 }]);
//! assert_eq!(room.booked_by(10), Some("kim"));
//! ```
#![forbid(unsafe_code)]

use std::convert::Infallible;

use annals_core::{Aggregate, Context, Decide, Decision, Event, emit, reject};
use serde::{Deserialize, Serialize};

/// The events of a meeting room.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(prefix = "room", dropped = "room.looked_at")]
pub enum RoomEvent {
    /// The room was booked.
    Booked {
        /// The member who booked it.
        #[tag]
        by: String,
        /// The first hour.
        from: u8,
        /// The hour at which the booking ends.
        to: u8,
    },
    /// A booking was cancelled. In version 1 the field was named `hour`.
    #[event(version = 2, upcast(1 = cancelled_from))]
    Cancelled {
        /// The first hour of the booking.
        from: u8,
    },
}

#[derive(Deserialize)]
struct CancelledV1 {
    hour: u8,
}

#[derive(Serialize)]
struct CancelledV2 {
    from: u8,
}

fn cancelled_from(former: CancelledV1) -> Result<CancelledV2, Infallible> {
    Ok(CancelledV2 { from: former.hour })
}

/// A meeting room on one day.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Room {
    bookings: Vec<(u8, u8, String)>,
}

impl Room {
    /// The member who has booked it at this hour.
    pub fn booked_by(&self, hour: u8) -> Option<&str> {
        let booking = self.bookings.iter().find(|(from, to, _)| (*from..*to).contains(&hour));
        booking.map(|(_, _, by)| by.as_str())
    }
}

impl Aggregate for Room {
    const NAME: &'static str = "room";
    type Event = RoomEvent;

    fn initial(_id: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::Booked { by, from, to } => self.bookings.push((*from, *to, by.clone())),
            RoomEvent::Cancelled { from } => self.bookings.retain(|booking| booking.0 != *from),
        }
    }
}

/// Books the room from one hour until another.
#[derive(Clone, Debug)]
pub struct Book {
    /// The member who books it.
    pub by: String,
    /// The first hour.
    pub from: u8,
    /// The hour at which the booking ends.
    pub to: u8,
}

/// Why a booking is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBooked {
    /// It is booked already.
    #[error("the room is booked by {0}")]
    Taken(String),
    /// The hours are outside of a day, or end before they begin.
    #[error("{0} to {1} is not a valid span of hours of one day")]
    NoTime(u8, u8),
}

impl Decide<Book> for Room {
    type Error = NotBooked;

    fn decide(&self, command: &Book, _: &Context) -> Decision<Self, NotBooked> {
        let Book { by, from, to } = command.clone();
        if from >= to || to > 24 {
            return reject(NotBooked::NoTime(from, to));
        }
        if let Some(other) = (from..to).find_map(|hour| self.booked_by(hour)) {
            return reject(NotBooked::Taken(other.to_owned()));
        }
        emit(RoomEvent::Booked { by, from, to })
    }
}
