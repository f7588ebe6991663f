//! First steps: an event, an aggregate, a command, a projection.
//!
//! # Terms
//!
//! | word | what it is |
//! |---|---|
//! | event | a fact, named in the past tense: `Deposited`. It is stored and never changed |
//! | stream | the events of one aggregate in order, named `CATEGORY-ID`: `account-kim` |
//! | log | the events of all streams in one order; each has a [`Position`](crate::Position) |
//! | aggregate | state folded from one stream, which decides on commands: the result is events or a refusal |
//! | projection | tables derived from events, for queries |
//! | subscriber | code that is called for each event: sends mail, executes commands |
//!
//! # An event and an aggregate
//!
//! [`initial`](crate::Aggregate::initial) and [`evolve`](crate::Aggregate::evolve) compute the state from
//! events, and never refuse one, because it has already happened. [`decide`](crate::Decide::decide) decides
//! on a command by the state. None of them does I/O or reads a clock; the time is in the
//! [`Context`](crate::Context).
//!
//! ```
//! use annals::{Aggregate, Annals, Context, Decide, Decision, Event, emit, reject};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
//! #[event(prefix = "account")] // stored as account.deposited, account.withdrawn
//! enum AccountEvent {
//!     Deposited { amount: u64 },
//!     Withdrawn { amount: u64 },
//! }
//!
//! #[derive(Clone, Debug, Default)]
//! struct Account {
//!     balance: u64,
//! }
//!
//! impl Aggregate for Account {
//!     const NAME: &'static str = "account"; // the category: streams are named account-ID
//!     type Event = AccountEvent;
//!
//!     fn initial(_id: &str) -> Self {
//!         Self::default()
//!     }
//!
//!     fn evolve(&mut self, event: &AccountEvent) {
//!         match event {
//!             AccountEvent::Deposited { amount } => self.balance += amount,
//!             AccountEvent::Withdrawn { amount } => self.balance -= amount,
//!         }
//!     }
//! }
//!
//! struct Deposit(u64);
//! struct Withdraw(u64);
//!
//! #[derive(Debug, PartialEq, thiserror::Error)]
//! #[error("only {0} left")]
//! struct Insufficient(u64);
//!
//! impl Decide<Deposit> for Account {
//!     type Error = std::convert::Infallible;
//!     fn decide(&self, command: &Deposit, _: &Context) -> Decision<Self, Self::Error> {
//!         emit(AccountEvent::Deposited { amount: command.0 })
//!     }
//! }
//!
//! impl Decide<Withdraw> for Account {
//!     type Error = Insufficient;
//!     fn decide(&self, command: &Withdraw, _: &Context) -> Decision<Self, Self::Error> {
//!         if command.0 > self.balance {
//!             return reject(Insufficient(self.balance));
//!         }
//!         emit(AccountEvent::Withdrawn { amount: command.0 })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let annals = Annals::open("memory:").await?; // `file:./data` keeps it
//! let accounts = annals.repository::<Account>();
//!
//! accounts.execute("kim", Deposit(100)).await?;
//! let refused = accounts.execute("kim", Withdraw(200)).await.unwrap_err();
//! assert_eq!(refused.rejection(), Some(&Insufficient(100)));
//!
//! assert_eq!(accounts.load("kim").await?.state.balance, 100);
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! A command loads the aggregate, decides, and appends on the condition that the stream is unchanged. If
//! another writer has appended meanwhile, it decides again on the new state. So two withdrawals at the same
//! moment cannot both take the last 100.
//!
//! # A command that is sent twice
//!
//! A client that got no response retries its request. With an idempotency key the command is executed once,
//! and the second request gets the outcome of the first, even if that was a refusal:
//!
//! ```
//! # use annals::{Aggregate, Annals, Context, Decide, Decision, Event, emit};
//! # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
//! # #[event(prefix = "account")]
//! # enum AccountEvent { Deposited { amount: u64 } }
//! # #[derive(Clone, Default)] struct Account { balance: u64 }
//! # impl Aggregate for Account {
//! #     const NAME: &'static str = "account";
//! #     type Event = AccountEvent;
//! #     fn initial(_id: &str) -> Self { Self::default() }
//! #     fn evolve(&mut self, AccountEvent::Deposited { amount }: &AccountEvent) { self.balance += amount }
//! # }
//! # struct Deposit(u64);
//! # impl Decide<Deposit> for Account {
//! #     type Error = std::convert::Infallible;
//! #     fn decide(&self, command: &Deposit, _: &Context) -> Decision<Self, Self::Error> {
//! #         emit(AccountEvent::Deposited { amount: command.0 })
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let annals = Annals::open("memory:").await?;
//! # let accounts = annals.repository::<Account>();
//! let first = accounts.execute("kim", Deposit(100)).by("user:7").once("request-123").await?;
//! let again = accounts.execute("kim", Deposit(100)).by("user:7").once("request-123").await?;
//! assert_eq!((first.state.balance, again.state.balance), (100, 100));
//! assert!(again.duplicate);
//! # annals.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Rows to query
//!
//! A [`Projection`](crate::Projection) derives rows from events. Its rows and its checkpoint change in one
//! transaction, so each event has its effect exactly once. Increase [`VERSION`](crate::Projection::VERSION)
//! when the same events lead to different rows: they are rebuilt beside the old ones. The program in the
//! README (`cargo run -p annals --example first`) has one, and `--example bank` has subscribers and snapshots
//! too.
//!
//! # Where it is stored
//!
//! | address | where | processes |
//! |---|---|---|
//! | `memory:` | in this process, until it ends | one |
//! | `file:DIRECTORY` | the embedded store | one; others go through a server ([`embedding_the_server`](crate::guide::embedding_the_server)) |
//! | `postgres://…`, `mysql://…` | a database that you have (features `postgres` and `mysql`) | any number |
//!
//! Next: [`from_sql`](crate::guide::from_sql), [`testing`](crate::guide::testing).
