//! Event sourcing for people who know SQL.
//!
//! # Tables and events
//!
//! A service on a relational database keeps state in rows and changes them in place. The former values are
//! lost, and the reason for the change was never stored. With event sourcing the changes themselves are
//! stored, and rows are derived from them:
//!
//! | with tables | with events |
//! |---|---|
//! | `UPDATE account SET balance = 70 WHERE id = 'kim'` | append `account.withdrawn {"amount": 30}` to `account-kim` |
//! | a row | an aggregate, folded from its stream |
//! | a primary key | the name of the stream |
//! | `SELECT … FOR UPDATE`, or a `version` column | the append is refused if the stream has changed; the command decides again |
//! | `CHECK` constraint | `decide` refuses the command |
//! | `UNIQUE` constraint | a stream for each value ([`unique_names`](crate::guide::unique_names)) |
//! | `FOREIGN KEY` | `update` refuses a command on an aggregate that does not exist; across aggregates, a condition of the append |
//! | transaction over several rows | one aggregate, or one append to several streams |
//! | materialized view | projection |
//! | trigger, or an outbox table and a poller | subscriber |
//! | audit table | the log |
//! | `ALTER TABLE` with a script over the data | a new version of an event type, and a rebuilt projection |
//!
//! # Queries
//!
//! Queries never read streams. A [`Projection`](crate::Projection) fills tables for them, as many as the
//! queries need, and [`View`](crate::View) runs SQL on these. A projection lags the log by a moment. To see
//! the effect of a command that was just executed, require the view to be at least as new:
//!
//! ```
//! # use annals::{Aggregate, Annals, Context, Decide, Decision, Event, HandlerError, Projection, Recorded, Tx, emit};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "account")]
//! # enum AccountEvent { Deposited { amount: i64 } }
//! # #[derive(Clone, Default)] struct Account;
//! # impl Aggregate for Account {
//! #     const NAME: &'static str = "account";
//! #     type Event = AccountEvent;
//! #     fn initial(_id: &str) -> Self { Self }
//! #     fn evolve(&mut self, _: &AccountEvent) {}
//! # }
//! # struct Deposit(i64);
//! # impl Decide<Deposit> for Account {
//! #     type Error = std::convert::Infallible;
//! #     fn decide(&self, command: &Deposit, _: &Context) -> Decision<Self, Self::Error> {
//! #         emit(AccountEvent::Deposited { amount: command.0 })
//! #     }
//! # }
//! struct Balances;
//!
//! impl Projection for Balances {
//!     const NAME: &'static str = "balances";
//!     const SCHEMA: &'static str = "CREATE TABLE balances (account VARCHAR(40) PRIMARY KEY, amount BIGINT)";
//!     type Event = AccountEvent;
//!
//!     fn apply(&self, event: &Recorded<AccountEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
//!         let AccountEvent::Deposited { amount } = event.event;
//!         let account = event.aggregate_id();
//!         // Not `ON CONFLICT`: every database has another form of it.
//!         let add = "UPDATE balances SET amount = amount + ?2 WHERE account = ?1";
//!         if tx.execute(add, (account, amount))? == 0 {
//!             tx.execute("INSERT INTO balances VALUES (?1, ?2)", (account, amount))?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let annals = Annals::open("memory:").await?;
//! annals.project(Balances).start().await?;
//! let done = annals.repository::<Account>().execute("kim", Deposit(100)).await?;
//! let view = annals.view::<Balances>().at_least(&done);
//! let sum: Vec<(i64,)> = view.query("SELECT SUM(amount) FROM balances", (), |row| row.read()).await?;
//! assert_eq!(sum, [(100,)]);
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Transactions
//!
//! State that must be consistent at every moment belongs in one aggregate: an order with its items, an
//! account with its holds. State that may become consistent a moment later belongs in several, and a
//! subscriber propagates the change from one to the other. Keep aggregates small: a customer with all orders
//! ever placed is too large, because the orders of a customer would wait for one another.
//!
//! If two streams must change together or not at all, one [`Append`](crate::Append) writes to both, with a
//! condition on each.
//!
//! # How to choose events
//!
//! - Name events in the terms of the business: `AddressCorrected`, `MemberMoved`; not `MemberUpdated`.
//! - Include the decision and the facts at that time (the price that was charged), so that a reader need not
//!   look up values that may have changed since.
//! - Leave out values that can be computed from earlier events of the stream.
//! - Keep events small, and their units uniform: money in the smallest unit, times in UTC.
//! - An event is read for as long as the log exists. Before you change one, read
//!   [`evolving_events`](crate::guide::evolving_events).
//!
//! # The past
//!
//! State at any moment is a fold of the events up to it: [`Repository::at`](crate::Repository::at) a version,
//! [`Repository::as_of`](crate::Repository::as_of) a time,
//! [`Repository::history`](crate::Repository::history) for every step. A new projection starts with the first
//! event, so a new query covers all years.
//!
//! # Costs
//!
//! | operation | cost |
//! |---|---|
//! | a command | reading its stream: keep streams to some hundreds of events, or take [snapshots](crate::Snapshot) |
//! | a stream that is never read again | its bytes on the disk |
//! | a new version of a projection | reading the log once, while the old rows serve queries |
//! | deleting | events are not deleted; keep personal data out of them as far as you can |
