//! Unique values: mail addresses, user names, invoice numbers.
//!
//! A projection cannot enforce uniqueness. It lags the log by a moment, and in that moment a second member
//! may take the same address. Uniqueness needs a condition that the log itself checks when it appends.
//!
//! # The value is the name
//!
//! If an aggregate is identified by the value, its stream is named by it, and
//! [`create`](crate::Repository::create) refuses a second one:
//!
//! ```
//! # use annals::{Aggregate, Annals, Context, Decide, Decision, Event, ExecuteError, emit};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "coupon")]
//! # enum CouponEvent { Issued { percent: u8 } }
//! # #[derive(Clone, Debug, Default)] struct Coupon;
//! # impl Aggregate for Coupon {
//! #     const NAME: &'static str = "coupon";
//! #     type Event = CouponEvent;
//! #     fn initial(_id: &str) -> Self { Self }
//! #     fn evolve(&mut self, _: &CouponEvent) {}
//! # }
//! # struct Issue(u8);
//! # impl Decide<Issue> for Coupon {
//! #     type Error = std::convert::Infallible;
//! #     fn decide(&self, command: &Issue, _: &Context) -> Decision<Self, Self::Error> {
//! #         emit(CouponEvent::Issued { percent: command.0 })
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let annals = Annals::open("memory:").await?;
//! let coupons = annals.repository::<Coupon>();
//! coupons.create("SUMMER-17", Issue(20)).await?;
//! let second = coupons.create("SUMMER-17", Issue(50)).await.unwrap_err();
//! assert!(matches!(second, ExecuteError::Exists { .. }), "{second}");
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The value may change
//!
//! A member has an id and a mail address that may change. The address has its own stream, and one append
//! writes to both streams, so that either the member is registered and the address taken, or neither:
//!
//! ```
//! use annals::{Append, Error, Expected, NewEvent, StreamId};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let annals = annals::Annals::open("memory:").await?;
//! let store = annals.store();
//! let register = |member: &str, address: &str| -> Result<Append, annals::Invalid> {
//!     // What counts as the same address is decided here, once.
//!     let address = address.trim().to_lowercase();
//!     let taken = NewEvent::new("mail.taken", json!({ "member": member }).to_string())?;
//!     let registered = NewEvent::new("member.registered", json!({ "address": address }).to_string())?;
//!     let append = Append::to(StreamId::of("mail", &address)?, Expected::NoStream, [taken])
//!         .and_to(StreamId::of("member", member)?, Expected::NoStream, [registered]);
//!     Ok(append)
//! };
//!
//! store.append(register("m1", "kim@example.com")?).await?;
//! let second = store.append(register("m2", "Kim@example.com ")?).await.unwrap_err();
//! assert!(matches!(second, Error::Conflict(_)), "{second}");
//! let head = store.head().await?;
//! assert_eq!(head.get(), 2, "nothing of the second append is in the log");
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! To release an address, append `mail.released` to its stream, in one append with the event of the member.
//! To take a released address, read its stream and expect the version that was read.
//! `examples/shop/src/together.rs` does this with aggregates on both sides, and with a keyed digest in place
//! of the address, so that the name of the stream does not reveal the member.
//!
//! # No value, but a rule over events
//!
//! "At most one open booking of a room in an hour" has no value that could name a stream. Then the condition
//! is a query: the append is refused if a matching event was written after the events that the caller has
//! read. See [`Append::unless`](crate::Append::unless).
