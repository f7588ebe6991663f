//! Tests of aggregates, of projections, and of a whole system.
//!
//! # Aggregates: given, when, then
//!
//! No store is opened, and nothing waits. Events are processed as for a log (encoded, read back, folded,
//! validated), so an event that passes a test is not refused in production.
//!
//! ```
//! # use annals::{Aggregate, Context, Decide, Decision, Event, emit, reject};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "account")]
//! # enum AccountEvent { Deposited { amount: u64 }, Withdrawn { amount: u64 } }
//! # #[derive(Clone, Default)] struct Account { balance: u64 }
//! # impl Aggregate for Account {
//! #     const NAME: &'static str = "account";
//! #     type Event = AccountEvent;
//! #     fn initial(_id: &str) -> Self { Self::default() }
//! #     fn evolve(&mut self, event: &AccountEvent) {
//! #         match event {
//! #             AccountEvent::Deposited { amount } => self.balance += amount,
//! #             AccountEvent::Withdrawn { amount } => self.balance -= amount,
//! #         }
//! #     }
//! # }
//! # struct Withdraw(u64);
//! # #[derive(Debug, PartialEq, thiserror::Error)] #[error("insufficient")] struct Insufficient;
//! # impl Decide<Withdraw> for Account {
//! #     type Error = Insufficient;
//! #     fn decide(&self, command: &Withdraw, _: &Context) -> Decision<Self, Insufficient> {
//! #         if command.0 > self.balance { return reject(Insufficient) }
//! #         emit(AccountEvent::Withdrawn { amount: command.0 })
//! #     }
//! # }
//! use annals::testing::given;
//!
//! given::<Account>([AccountEvent::Deposited { amount: 5 }])
//!     .when(Withdraw(3))
//!     .then([AccountEvent::Withdrawn { amount: 3 }]);
//! given::<Account>([]).when(Withdraw(3)).then_rejected(Insufficient);
//! ```
//!
//! Time and initiator are part of the context: `.with(Context::at(time))`.
//!
//! # Projections
//!
//! [`given_view`](crate::testing::given_view) applies events to rows in memory and compares the result of a
//! query:
//!
//! ```
//! # use annals::{Event, HandlerError, Projection, Recorded, Tx};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "account")]
//! # enum AccountEvent { Opened { owner: String } }
//! # struct Owners;
//! # impl Projection for Owners {
//! #     const NAME: &'static str = "owners";
//! #     const SCHEMA: &'static str = "CREATE TABLE owners (account TEXT, owner TEXT)";
//! #     type Event = AccountEvent;
//! #     fn apply(&self, event: &Recorded<AccountEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
//! #         let AccountEvent::Opened { owner } = &event.event;
//! #         tx.execute("INSERT INTO owners VALUES (?1, ?2)", (event.aggregate_id(), owner))?;
//! #         Ok(())
//! #     }
//! # }
//! use annals::testing::given_view;
//!
//! given_view(Owners, [("account-a1", AccountEvent::Opened { owner: "kim".into() })])
//!     .then_rows("SELECT account, owner FROM owners", [("a1", "kim")]);
//! ```
//!
//! # Events of earlier programs
//!
//! [`given_stored`](crate::testing::given_stored) and
//! [`given_view_stored`](crate::testing::given_view_stored) take events in their stored form, by type,
//! version and data. [`golden`](crate::testing::golden) fails when an event of any former version is no
//! longer read as before ([`evolving_events`](crate::guide::evolving_events)).
//!
//! # A whole system
//!
//! `memory:` opens at once, and has the same contract as every other store. [`settle`](crate::Annals::settle)
//! waits until every projection and subscriber has handled all events, including those that follow from them:
//!
//! ```
//! # use annals::{Aggregate, Annals, Context, Decide, Decision, Event, HandlerError, Recorded, TestClock, emit};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "member")]
//! # enum MemberEvent { Registered { name: String } }
//! # #[derive(Clone, Default)] struct Member;
//! # impl Aggregate for Member {
//! #     const NAME: &'static str = "member";
//! #     type Event = MemberEvent;
//! #     fn initial(_id: &str) -> Self { Self }
//! #     fn evolve(&mut self, _: &MemberEvent) {}
//! # }
//! # struct Register(String);
//! # impl Decide<Register> for Member {
//! #     type Error = std::convert::Infallible;
//! #     fn decide(&self, command: &Register, _: &Context) -> Decision<Self, Self::Error> {
//! #         emit(MemberEvent::Registered { name: command.0.clone() })
//! #     }
//! # }
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::{Arc, Mutex};
//!
//! let sent = Arc::new(Mutex::new(Vec::new()));
//! let annals = Annals::open("memory:").await?;
//! let outbox = sent.clone();
//! annals
//!     .subscribe("welcome")
//!     .on(move |event: Recorded<MemberEvent>, _| {
//!         let MemberEvent::Registered { name } = event.event;
//!         outbox.lock().unwrap().push(name);
//!         async { Ok::<(), HandlerError>(()) }
//!     })
//!     .start()
//!     .await?;
//!
//! annals.repository::<Member>().execute("m1", Register("kim".into())).await?;
//! annals.settle().await?;
//! assert_eq!(*sent.lock().unwrap(), ["kim"]);
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! To set the time in a test, use `annals.with_clock(Arc::new(TestClock::…))`
//! ([`TestClock`](crate::TestClock)). To test your own store against the contract, use the crate
//! `annals-testkit`.
