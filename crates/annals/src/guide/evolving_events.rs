//! Evolving events: what is in the log stays as it is, and the program that reads it changes.
//!
//! An event that was stored under a name, in a shape, is in the log for ever. When an event gets another shape, the old ones are
//! not rewritten: they are turned into today's while they are read, before anything of yours sees them. What turns them is an
//! [`Upcaster`](crate::Upcaster). It belongs to the event type, so it holds for every reader: aggregates, snapshots, history,
//! projections, subscribers, commands that are repeated, and the [test kit](crate::testing). `evolve`, `decide`, projections and
//! handlers know today's shape alone.
//!
//! # Which change needs what
//!
//! | change | what to do |
//! |---|---|
//! | a variant of the enum is renamed, not its stored name | give it `#[event(name = "…")]` with the stored name |
//! | a field is added that old events may lack | `#[serde(default)]`; raise `version` too, so that an older program refuses what it would misread |
//! | a field is renamed, split, or means something else | raise `version`, and convert: `upcast(1 = from_v1)` |
//! | a type gets another stored name | `former_name = "…"` |
//! | one event is several today | a table: `upcasters = TABLE` |
//! | a type means nothing any more | `dropped = "…"` on the enum |
//! | data gets another encoding | a table, from the former version with its content type to the next one |
//!
//! # A chain of versions
//!
//! Version 1 had whole euros, version 2 had cents, and version 3 names the currency. Each function makes the next version; a stored
//! event goes through all that follow:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use annals::{Event, RawEvent, testing::read_stored};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
//! #[event(prefix = "order", dropped = "order.viewed")]
//! enum OrderEvent {
//!     #[event(version = 3, former_name = "order.began", upcast(1 = in_cents, 2 = with_currency))]
//!     Placed { cents: u64, currency: String },
//! }
//!
//! #[derive(Deserialize)]
//! struct PlacedV1 {
//!     euros: u64,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct PlacedV2 {
//!     cents: u64,
//! }
//!
//! #[derive(Serialize)]
//! struct PlacedV3 {
//!     cents: u64,
//!     currency: &'static str,
//! }
//!
//! fn in_cents(former: PlacedV1) -> Result<PlacedV2, String> {
//!     let cents = former.euros.checked_mul(100).ok_or("too many euros for a price")?;
//!     Ok(PlacedV2 { cents })
//! }
//!
//! fn with_currency(former: PlacedV2) -> Result<PlacedV3, Infallible> {
//!     Ok(PlacedV3 { cents: former.cents, currency: "EUR" })
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let placed = OrderEvent::Placed { cents: 500, currency: "EUR".into() };
//! for stored in [
//!     RawEvent::new("order.placed", 1, r#"{"euros":5}"#),
//!     RawEvent::new("order.placed", 2, r#"{"cents":500}"#),
//!     RawEvent::new("order.placed", 3, r#"{"cents":500,"currency":"EUR"}"#),
//!     RawEvent::new("order.began", 1, r#"{"euros":5}"#), // the versions of a renamed type count on
//! ] {
//!     assert_eq!(read_stored::<OrderEvent>(stored)?, [placed.clone()]);
//! }
//! assert_eq!(read_stored::<OrderEvent>(RawEvent::new("order.viewed", 1, "{}"))?, []);
//! # Ok(())
//! # }
//! ```
//!
//! A function takes any type that serde reads, and returns a `Result` with any type that serde writes. `serde_json::Value` will do,
//! but a number that fits no `u64`, `i64` or `f64` loses digits in it: amounts in `u128` want a struct.
//!
//! A version without a function is read as today's, as far as serde can, and no function of a later version sees it. So a chain
//! has no gaps: if version 2 has a function, version 1 needs one too, even if it only hands the data on. A chain with a gap is
//! refused when a reader starts.
//!
//! A type or a newer version that the program does not know is an error, and stops the reader at that event. Only an upcaster
//! drops an event that a reader is given. An aggregate is given every event of its stream; a projection and a subscriber are
//! given those of the types that their event type has, former names included, and no others.
//!
//! # One event that is several
//!
//! ```
//! use annals::{Cause, Event, RawEvent, Upcaster, testing::read_stored};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
//! #[event(prefix = "order", upcasters = FORMER)]
//! enum OrderEvent {
//!     Paid { cents: u64 },
//!     Shipped,
//! }
//!
//! const FORMER: &[Upcaster] = &[Upcaster::Converted {
//!     event_type: "order.paid_and_shipped",
//!     version: 1,
//!     into: &[("order.paid", 1), ("order.shipped", 1)],
//!     convert: paid_and_shipped,
//! }];
//!
//! fn paid_and_shipped(stored: RawEvent) -> Result<Vec<RawEvent>, Cause> {
//!     let paid: serde_json::Value = stored.read()?;
//!     Ok(vec![RawEvent::json("order.paid", 1, &paid)?, RawEvent::new("order.shipped", 1, "{}")])
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let stored = RawEvent::new("order.paid_and_shipped", 1, r#"{"cents":5}"#);
//! assert_eq!(read_stored::<OrderEvent>(stored)?, [OrderEvent::Paid { cents: 5 }, OrderEvent::Shipped]);
//! # Ok(())
//! # }
//! ```
//!
//! The parts have one position, one version and one id, and [`Recorded::part`](crate::Recorded::part) tells them apart: a key of
//! rows or of another system that is made of the position or the id needs the part too. They are taken together:
//!
//! - An aggregate is never loaded between them; its versions are those of the stored events.
//! - A projection gets them in one transaction. If one fails, nothing of the event is in the rows.
//! - A subscriber handles them in order. If one fails, those after it wait, and all are handled again, also those that succeeded:
//!   at least once, as for every event. The commands of each part have keys of their own, by its number, and are executed once.
//!   Parts are numbered before any of them is dropped, so each keeps its number when another one is dropped later. Keep the order in
//!   which the function makes them, and drop a part by an upcaster, not by leaving it out there: that would renumber those after it,
//!   as does converting a part into several.
//!
//! A function makes only events that `into` names, and at least one of them: an empty list is an error, so that a bug loses no event.
//! To drop some events of a type and keep others, make the former of a type that is dropped:
//!
//! ```
//! # use annals::{Cause, Event, RawEvent, Upcaster, testing::read_stored};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
//! #[event(prefix = "order", dropped = "order.noise", upcasters = TOUCHED)]
//! enum OrderEvent {
//!     Paid { cents: u64 },
//! }
//!
//! const TOUCHED: &[Upcaster] = &[Upcaster::Converted {
//!     event_type: "order.touched",
//!     version: 1,
//!     into: &[("order.paid", 1), ("order.noise", 1)],
//!     convert: |stored| {
//!         let touched: serde_json::Value = stored.read()?;
//!         let is_paid = touched.get("cents").is_some();
//!         Ok(vec![RawEvent::json(if is_paid { "order.paid" } else { "order.noise" }, 1, &touched)?])
//!     },
//! }];
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let read = |data: &'static str| read_stored::<OrderEvent>(RawEvent::new("order.touched", 1, data));
//! assert_eq!(read(r#"{"cents":5}"#)?, [OrderEvent::Paid { cents: 5 }]);
//! assert_eq!(read("{}")?, []);
//! # Ok(())
//! # }
//! ```
//!
//! The table of an event type must make sense as a whole: every chain ends in a type and version of today, none leads back to
//! where it began, no event is taken by two upcasters, and what is written today is taken by none. A reader whose table does not
//! is refused when it starts (a repository: when it is first used), with the upcaster that is wrong. Two upcasters of the same events,
//! and one that makes a type nobody reads, do not compile in what is derived.
//!
//! An event type of one consumer, with a few of the types of a log, has a table of its own. A part that it does not want is dropped
//! by name: `dropped = "order.shipped"`.
//!
//! # What does not change by itself
//!
//! - **Rows** of a projection were made by the program of their day. If they would come out differently, or if the event type takes
//!   types now that it did not take (`former_name`, a table), raise [`Projection::VERSION`](crate::Projection::VERSION).
//! - **Subscribers** continue at their checkpoint: what is before it is not delivered again in its new shape.
//! - **Snapshots** are bound to the versions and the table of the events: those of before are not used. If only the code of a function
//!   changes, raise [`SNAPSHOT_VERSION`](crate::Snapshot::SNAPSHOT_VERSION).
//! - **Tags** are found as they were stored. A query by a tag that only today's shape has does not find former events.
//! - **Other readers** of the log, over HTTP or through [`EventStore`](crate::EventStore), get what is stored, with its type and
//!   version.
//!
//! # The order of a deploy: readers first
//!
//! For a while, an older program runs beside a newer one. What it does with an event that only the newer one knows depends on how it
//! reads:
//!
//! | the older program | a type that it knows, in a newer version | a type, or a stored name, that it does not know |
//! |---|---|---|
//! | loads an aggregate, or reads its history | an error; the command is not executed | an error; the command is not executed |
//! | projection, subscriber | an error; it waits at the event, and its status says so | **never reads it, and moves its checkpoint past it**, at the latest with the next event that it knows |
//!
//! The last cell is where events are missed. Projections and subscribers read by the types of their event type. A projection writes
//! its checkpoint with the next event that it knows, or after 10,000 positions; a subscriber within seconds. Checkpoints do not
//! remember which types were read, so a newer program that continues at the same checkpoint misses the events of the new type that
//! are before it. Therefore:
//!
//! 1. Deploy the program that reads the new type (or the new name) everywhere, and wait until no older one runs.
//! 2. Then deploy, or switch on, what writes it.
//!
//! Where one program does both, deploy twice: first with the variant, the projections and the handlers, and without the command that
//! emits it. The same holds for a roll-back: stop what writes the type before an older reader returns. A new type that nobody of the
//! older program's readers wants is harmless.
//!
//! If the order was wrong: raise [`Projection::VERSION`](crate::Projection::VERSION), and the rows are made again from the whole log. For
//! a subscriber, find the events that it missed (`annals read --all --type order.refunded`) and handle them by hand. Under another
//! name it would be given every event of the log again, and execute the commands of each again.
//!
//! # Golden files
//!
//! An upcaster is needed when what is written changes; a test finds out whether it does. [`golden`](crate::testing::golden) keeps the
//! stored bytes of every type and version beside your tests:
//!
//! ```no_run
//! # use annals::{Event, testing::golden};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "order")]
//! # enum OrderEvent { Paid { cents: u64 }, Shipped }
//! #[test]
//! fn what_was_ever_stored_is_read() {
//!     golden("tests/golden/order", [OrderEvent::Paid { cents: 5 }, OrderEvent::Shipped]);
//! }
//! # fn main() {}
//! ```
//!
//! `ANNALS_GOLDEN=write cargo test` writes the files that are missing; commit them. Then a variant that is renamed or removed, a field that
//! changes its form, a version that nobody converts, and a conversion that yields something else than before are failures of a test,
//! each with what to do. A file of data is never written over: when the shape changes, the version does, and the new one gets a
//! file beside the old. A run that writes also makes a `.read` file for each file of data, with the events that it is read as. For
//! today's version that is the sample itself. When the version has become a former one, the file shows in review what its events
//! are read as instead.
//!
//! For a type that was in use before it had golden files, take the data of an event of each former version out of a log
//! (`annals read`), and save it under the name that the test asks for.
