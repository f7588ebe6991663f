//! Evolving events: stored events stay unchanged, and the program that reads them changes.
//!
//! A stored event keeps its name and its shape permanently. When the shape of an event changes, the old
//! events are not rewritten: they are converted to the current shape while they are read, before your code
//! gets them. The conversion is an [`Upcaster`](crate::Upcaster). It belongs to the event type, so it applies
//! to every reader: aggregates, snapshots, history, projections, subscribers, retried commands, and the [test
//! kit](crate::testing). `evolve`, `decide`, projections and handlers use only the current shape.
//!
//! # Changes and their upcasters
//!
//! | change | what to do |
//! |---|---|
//! | a variant of the enum is renamed, not its stored name | give it `#[event(name = "…")]` with the stored name |
//! | a field is added that old events may lack | `#[serde(default)]`; increase `version` too, so that an older program refuses events that it would misread |
//! | a field is renamed, split, or gets another meaning | increase `version`, and convert: `upcast(1 = from_v1)` |
//! | a type gets another stored name | `former_name = "…"` |
//! | one former event corresponds to several | a table: `upcasters = TABLE` |
//! | a type is obsolete | `dropped = "…"` on the enum |
//! | data gets another encoding | a table, from the former version with its content type to the next one |
//!
//! # A chain of versions
//!
//! Version 1 had whole euros, version 2 had cents, and version 3 has the currency. Each function converts to
//! the next version; a stored event passes through all functions from its version on:
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
//! A function takes any type that serde deserializes, and returns a `Result` with any type that serde
//! serializes. `serde_json::Value` can be used, but a number that does not fit in `u64`, `i64` or `f64` loses
//! digits in it: amounts in `u128` need a struct.
//!
//! A version without a function is decoded by serde as the current one, and the functions of later versions
//! are not called. So a chain must have no gaps: if version 2 has a function, version 1 needs one too, even
//! if it only passes the data on. A chain with a gap is refused when a reader starts.
//!
//! An unknown type, or a version newer than that of the program, is an error, and stops the reader at that
//! event. Only an upcaster can drop an event that a reader gets. An aggregate gets every event of its stream;
//! a projection and a subscriber get only those of the types in their event type, former names included.
//!
//! # One event as several
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
//! The parts have the same position, version and id, and are distinguished by
//! [`Recorded::part`](crate::Recorded::part): a key of rows or of another system that is derived from the
//! position or the id needs the part too. They are processed together:
//!
//! - An aggregate is never loaded between them; its versions are those of the stored events.
//! - A projection gets them in one transaction. If one fails, nothing of the event is in the rows.
//! - A subscriber handles them in order. If one fails, the later ones wait, and all are handled again,
//!   including those that succeeded: at least once, as for every event. The commands of each part have their
//!   own keys, by its number, and are executed once. Parts are numbered before any of them is dropped, so
//!   each keeps its number when another one is dropped later. Keep the order in which the function returns
//!   them, and drop a part with an upcaster; leaving it out in the function would renumber the later parts,
//!   as does converting a part into several.
//!
//! A function may return only events that `into` names, and at least one of them: an empty list is an error,
//! so that a bug loses no event. To drop some events of a type and keep others, convert the former to a type
//! that is dropped:
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
//! The table of an event type must be consistent: every chain ends in a current type and version, no chain is
//! a cycle, no event is the input of two upcasters, and no event that is written today is the input of one. A
//! reader with an inconsistent table is refused when it starts (a repository: when it is first used), with
//! the upcaster that is wrong. For a derived event type, two upcasters of the same events, and an upcaster to
//! a type that is not read, do not compile.
//!
//! The event type of one consumer, with a few of the types of a log, has its own table. A part that it does
//! not need is dropped by name: `dropped = "order.shipped"`.
//!
//! # What an upcaster does not change
//!
//! - **Rows** of a projection were derived by the program of their time. If they would be different now, or
//!   if the event type includes types that it did not include before (`former_name`, a table), increase
//!   [`Projection::VERSION`](crate::Projection::VERSION).
//! - **Subscribers** continue at their checkpoint: earlier events are not delivered again in their new shape.
//! - **Snapshots** are bound to the versions and the table of the events: earlier ones are not used. If only
//!   the code of a function changes, increase [`SNAPSHOT_VERSION`](crate::Snapshot::SNAPSHOT_VERSION).
//! - **Tags** are found as they were stored. A query by a tag that only the current shape has does not find
//!   former events.
//! - **Other readers** of the log, over HTTP or through [`EventStore`](crate::EventStore), get the stored
//!   event, with its type and version.
//!
//! # The order of a deploy: readers first
//!
//! For a while, an older program runs beside a newer one. How it handles an event that only the newer one
//! knows depends on how it reads:
//!
//! | the older program | a known type in a newer version | an unknown type or stored name |
//! |---|---|---|
//! | loads an aggregate, or reads its history | an error; the command is not executed | an error; the command is not executed |
//! | projection, subscriber | an error; it waits at the event, and its status reports the error | **never reads it, and moves its checkpoint past it**, at the latest with the next event of a known type |
//!
//! In the last case events are missed. Projections and subscribers read by the types of their event type. A
//! projection writes its checkpoint with the next event of a known type, or after 10,000 positions; a
//! subscriber within seconds. Checkpoints do not record the types that were read, so a newer program that
//! continues at the same checkpoint misses the earlier events of the new type. Therefore:
//!
//! 1. Deploy the program that reads the new type (or the new name) everywhere, and wait until no older one
//!    runs.
//! 2. Then deploy, or enable, the code that writes it.
//!
//! If one program does both, deploy twice: first with the variant, the projections and the handlers, and
//! without the command that emits it. Likewise for a roll-back: stop the code that writes the type before an
//! older reader returns. A new type that no reader of the older program needs is harmless.
//!
//! If the order was wrong, increase [`Projection::VERSION`](crate::Projection::VERSION), and the rows are
//! rebuilt from the whole log. For a subscriber, find the missed events
//! (`annals read --all --type order.refunded`) and handle them by hand. Under another name it would get every
//! event of the log again, and execute all their commands again.
//!
//! # Golden files
//!
//! An upcaster is needed when the stored form of an event changes; a test detects such a change.
//! [`golden`](crate::testing::golden) keeps the stored bytes of every type and version beside your tests:
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
//! `ANNALS_GOLDEN=write cargo test` writes the missing files; commit them. From then on the test fails, with
//! an instruction, if a variant is renamed or removed, if a field changes its form, if a version is not
//! converted, or if a conversion yields another result than before. A data file is never overwritten: when
//! the shape changes, the version must change too, and the new version gets a file beside the old one. A
//! writing run also creates a `.read` file for each data file, with the events that are read from it. For the
//! current version that is the sample itself. When the version becomes a former one, the change of this file
//! shows in review how its events are read now.
//!
//! For a type that was in use before it had golden files, copy the data of an event of each former version
//! from a log (`annals read`), and save it under the name that the test reports.
