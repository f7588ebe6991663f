//! Failing handlers: retries, blocked events, and monitoring.
//!
//! # What happens
//!
//! If a handler of a [subscriber](crate::SubscriberBuilder) returns an error or panics,
//!
//! - the event is retried, after 50 ms at first, with pauses of up to 30 s
//!   ([`retry`](crate::SubscriberBuilder::retry));
//! - later events of the same stream wait, so that their order is kept;
//! - events of other streams continue, if [`concurrency`](crate::SubscriberBuilder::concurrency) is above 1;
//! - the checkpoint stays before the event, so that it is retried after a restart.
//!
//! If a [projection](crate::Projection) fails at an event, all later events wait: its rows may be derived
//! from several streams, and if one event were skipped, they would be wrong without notice.
//!
//! # What is not a failure
//!
//! If a handler executes a command and the aggregate refuses it, that is a result, and the event is done. It
//! is counted in [`Status::refused`](crate::Status::refused) and stored in the log as an
//! [`Answer`](crate::Answer). To act on a refusal, match it before returning. The event may be delivered
//! again, because a step after the command failed or the process ended; then the command returns the same
//! refusal, as [`RefusedBefore`](crate::ExecuteError::RefusedBefore).
//! [`is_refusal`](crate::ExecuteError::is_refusal) and [`refusal`](crate::ExecuteError::refusal) cover both,
//! [`rejection`](crate::ExecuteError::rejection) only the first:
//!
//! ```
//! # use annals::{Aggregate, Annals, Context, Decide, Decision, Event, HandlerError, Delivery, Recorded, emit, reject};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "order")]
//! # enum OrderEvent { Placed { customer: String, total: u64 } }
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "credit")]
//! # enum CreditEvent { Reserved { total: u64 } }
//! # #[derive(Clone, Default)] struct Credit;
//! # impl Aggregate for Credit {
//! #     const NAME: &'static str = "credit";
//! #     type Event = CreditEvent;
//! #     fn initial(_id: &str) -> Self { Self }
//! #     fn evolve(&mut self, _: &CreditEvent) {}
//! # }
//! # struct Reserve(u64);
//! # #[derive(Debug, PartialEq, thiserror::Error)] #[error("insufficient")] struct Insufficient;
//! # impl Decide<Reserve> for Credit {
//! #     type Error = Insufficient;
//! #     fn decide(&self, command: &Reserve, _: &Context) -> Decision<Self, Insufficient> {
//! #         if command.0 > 100 { return reject(Insufficient) }
//! #         emit(CreditEvent::Reserved { total: command.0 })
//! #     }
//! # }
//! async fn reserve(event: Recorded<OrderEvent>, delivery: Delivery) -> Result<(), HandlerError> {
//!     let OrderEvent::Placed { customer, total } = event.event;
//!     match delivery.repository::<Credit>().execute(customer, Reserve(total)).await {
//!         Err(error) if error.is_refusal() => {
//!             // For example a command that rejects the order. Here the event is done.
//!             Ok(())
//!         }
//!         // An outage or a conflict is a failure, and the event is tried again.
//!         other => Ok(other.map(drop)?),
//!     }
//! }
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let annals = Annals::open("memory:").await?;
//! annals.subscribe("credit-on-order").concurrency(16).on(reserve).start().await?;
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # At least once
//!
//! After a crash an event may be delivered again, if its handler had succeeded and the checkpoint was not
//! written yet. Therefore
//!
//! - commands through [`Delivery::repository`](crate::Delivery::repository) are executed once: the event, the
//!   subscriber and the aggregate are their key. A second command for the same aggregate needs its own name,
//!   `.once("refund")`;
//! - a request to another system (a mail, a payment) needs a key that this system compares. Build it from the
//!   stream, the id and the part (`event.stream()`, `event.id()`, `event.part`), which are the same each
//!   time: an id is unique in its stream, and the parts of an event that is [read as
//!   several](crate::guide::evolving_events) share it;
//! - rows that must change exactly once belong in a projection.
//!
//! # Monitoring
//!
//! [`Annals::status`](crate::Annals::status) reports the position and the failure of each projection and
//! subscriber:
//!
//! ```
//! # use annals::{Annals, Phase};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> annals::Result<()> {
//! # let annals = Annals::open("memory:").await?;
//! for status in annals.status().await? {
//!     if let Some(failing) = &status.failing {
//!         eprintln!("{}: {} ({} attempts)", status.name, failing.error, failing.attempts);
//!     }
//!     if status.phase == Phase::Stopped || status.lag() > 10_000 {
//!         eprintln!("{} is {} behind", status.name, status.lag());
//!     }
//! }
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Failures are also logged with [`tracing`](https://docs.rs/tracing), with the name, the position and the
//! error. To see them, set up a subscriber for logs, for example `tracing_subscriber::fmt::init()`.
//!
//! # An event that always fails
//!
//! Fix the code and deploy: the event is retried and succeeds, and no event was lost or skipped meanwhile. If
//! the event itself is wrong, make the handler return `Ok` for it, and add a test of that. An event that
//! cannot be decoded is never skipped: add an upcaster that converts or drops it
//! ([`evolving_events`](crate::guide::evolving_events)).
