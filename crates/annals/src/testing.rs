//! Given, when, then: for aggregates and for projections, without opening a store and without waiting.
//!
//! Events are processed as for a log: encoded, read back, folded, and validated as an append with its names,
//! tags and limits. So an event that passes a test here is not refused in production.
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
//! Events of earlier programs are passed in their stored form: [`given_stored`], [`given_view_stored`],
//! [`read_stored`]. [`golden`] keeps a file of each type and version that was ever written, and fails when
//! one can no longer be read.

mod golden;
mod stored;

use std::fmt::Debug;
use std::time::Duration;

use annals_core::{
    Aggregate, Append, Context, Decide, Event, EventId, Expected, Limits, NewEvent, Position, RecordedEvent,
    StreamId, Timestamp, Version,
};
use annals_state::{Database, Dialect, Params, Place, Row, SqlError, Tx, Value, select};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Beside, encode};
use crate::repository::Encoded;
use crate::snapshot::written;
use crate::{HandlerError, Projection, Snapshot};

pub use golden::golden;
pub use stored::{given_stored, given_view_stored, read_stored};

/// An aggregate with these events. Its id is `test`.
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    check_upcasters::<A::Event>();
    let mut state = A::initial("test");
    for event in events {
        // Each event is an append of its own: they need not be from one append.
        state = appended(&state, std::slice::from_ref(&event)).state;
    }
    Given { state, context: Context::at(TIME) }
}

#[track_caller]
fn check_upcasters<E: Event>() {
    if let Err(invalid) = codec::check::<E>() {
        panic!("{invalid}");
    }
}

/// These events as an append to the stream of the aggregate.
#[track_caller]
fn appended<A: Aggregate>(state: &A, events: &[A::Event]) -> Encoded<A> {
    let stream =
        StreamId::of(A::NAME, "test").unwrap_or_else(|invalid| panic!("no stream can be made: {invalid}"));
    let encoded = Encoded::of(state, events, &Beside::default())
        .unwrap_or_else(|error| panic!("an event cannot be written: {error}"));
    if !encoded.new.is_empty() {
        let append = Append::to(stream, Expected::Any, encoded.new.clone());
        if let Err(invalid) = append.validate(&Limits::default()) {
            panic!("the append would be refused: {invalid}");
        }
    }
    encoded
}

/// The default time of decisions: 2017-04-15T13:00:00Z.
const TIME: Timestamp = Timestamp::from_micros(1_492_261_200_000_000);

/// An aggregate before a command.
#[derive(Clone, Debug)]
pub struct Given<A> {
    state: A,
    context: Context,
}

impl<A: Aggregate> Given<A> {
    /// Sets the context of the decision: the time, the initiator, and so on.
    #[must_use]
    pub fn with(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Decides on this command.
    pub fn when<C>(self, command: C) -> When<A, A::Error>
    where
        A: Decide<C>,
    {
        let decision = self.state.decide(&command, &self.context);
        When { state: self.state, decision: decision.map(|events| events.0) }
    }

    /// The state after the events.
    pub fn state(&self) -> &A {
        &self.state
    }
}

impl<A: Snapshot + Serialize + DeserializeOwned> Given<A> {
    /// Asserts that this state can be stored as a snapshot: it is read back unchanged.
    ///
    /// # Panics
    /// If it is not, with the name of the field that is read back as another value.
    #[track_caller]
    pub fn then_snapshot(&self) -> &Self {
        if let Err(failure) = written(&self.state) {
            panic!("the state cannot be kept as a snapshot: {failure}");
        }
        self
    }
}

/// An aggregate after a command.
#[derive(Debug)]
#[must_use = "call `then`, `then_nothing` or `then_rejected` to check the decision"]
pub struct When<A: Aggregate, R> {
    state: A,
    decision: Result<Vec<A::Event>, R>,
}

impl<A, R> When<A, R>
where
    A: Aggregate,
    A::Event: Debug + PartialEq,
    R: Debug,
{
    /// Asserts that exactly these events were decided, and that a log accepts them. Returns the state after
    /// them.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> A {
        let expected: Vec<_> = expected.into_iter().collect();
        match &self.decision {
            Ok(events) => assert_eq!(*events, expected, "other events than expected"),
            Err(refusal) => panic!("expected {expected:?}, but the command was refused: {refusal:?}"),
        }
        let encoded = appended(&self.state, &expected);
        assert_eq!(encoded.read, expected, "an event is another one when it is read back");
        encoded.state
    }

    /// Asserts that no event was decided, and that the command was not refused either.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// Asserts that the command was refused with this error.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: R)
    where
        R: PartialEq,
    {
        match self.decision {
            Ok(events) => panic!("expected the refusal {expected:?}, but this happens: {events:?}"),
            Err(refusal) => assert_eq!(refusal, expected, "another refusal than expected"),
        }
    }
}

/// Encodes an event for an append.
#[track_caller]
fn as_appended<E: Event>(event: &E) -> NewEvent {
    let (new, _) = encode(event, &Beside::default())
        .unwrap_or_else(|error| panic!("an event cannot be written: {error}"));
    new
}

/// A projection that has applied these events, each with the name of its stream:
/// `("account-a1", Opened { … })`. Positions begin at 1, and each event is a second after the previous one,
/// from 2017-04-15T13:00:01Z on.
///
/// ```
/// # use annals::{Event, HandlerError, Projection, Recorded, Tx, testing::given_view};
/// # #[derive(Event, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
/// # #[event(prefix = "account")]
/// # enum AccountEvent { Opened { owner: String } }
/// # struct Owners;
/// # impl Projection for Owners {
/// #     const NAME: &'static str = "owners";
/// #     const SCHEMA: &'static str = "CREATE TABLE owners (account TEXT, owner TEXT)";
/// #     type Event = AccountEvent;
/// #     fn apply(&self, event: &Recorded<AccountEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
/// #         let AccountEvent::Opened { owner } = &event.event;
/// #         tx.execute("INSERT INTO owners VALUES (?1, ?2)", (event.aggregate_id(), owner))?;
/// #         Ok(())
/// #     }
/// # }
/// given_view(Owners, [("account-a1", AccountEvent::Opened { owner: "kim".into() })])
///     .then_rows("SELECT account, owner FROM owners", [("a1", "kim")]);
/// ```
///
/// # Panics
/// If the schema is invalid or an event fails.
#[track_caller]
pub fn given_view<P, S>(projection: P, events: impl IntoIterator<Item = (S, P::Event)>) -> GivenView
where
    P: Projection,
    S: AsRef<str>,
{
    view_of(projection, events.into_iter().map(|(stream, event)| (stream, as_appended(&event))))
}

/// A projection that has applied these encoded events.
#[track_caller]
fn view_of<P, S>(projection: P, events: impl IntoIterator<Item = (S, NewEvent)>) -> GivenView
where
    P: Projection,
    S: AsRef<str>,
{
    check_upcasters::<P::Event>();
    let database = Database::open(&Place::Memory).expect("SQLite opens in memory");
    database
        .write_now(|connection| -> Result<(), SqlError> {
            Ok(connection.execute_batch(P::schema(Dialect::Sqlite))?)
        })
        .expect("SQLite takes the schema");
    let mut versions = std::collections::HashMap::<String, u64>::new();
    for (index, (stream, mut new)) in events.into_iter().enumerate() {
        let index = index as u64 + 1;
        let version = versions.entry(stream.as_ref().to_owned()).or_default();
        *version += 1;
        let stream = StreamId::new(stream.as_ref()).expect("the name of a stream");
        let append = Append::to(&stream, Expected::Any, [new.clone()]);
        if let Err(invalid) = append.validate(&Limits::default()) {
            panic!("the append would be refused: {invalid}");
        }
        new.id = EventId::from_name(&index.to_be_bytes());
        let event_type = new.event_type.clone();
        let (position, recorded_at) = (Position::new(index), TIME.plus(Duration::from_secs(index)));
        let version = Version::new(*version);
        let stored = RecordedEvent::record(&new, &stream, position, version, position, recorded_at, None);
        let applied = database.write_now(|connection| {
            let mut parts = codec::recorded(&stored)?.into_iter();
            parts.try_for_each(|event| projection.apply(&event, &Tx::new(connection)))
        });
        if let Err(failure) = applied {
            let failure: HandlerError = failure;
            panic!("event {index} (`{event_type}`) failed: {failure}");
        }
    }
    GivenView { database }
}

/// The rows of a projection, for assertions.
pub struct GivenView {
    database: Database,
}

impl GivenView {
    /// Asserts that the query returns these rows, each a tuple:
    /// `.then_rows("SELECT owner, balance FROM …", [("kim", 5)])`.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn then_rows<R: Params>(&self, sql: &str, expected: impl IntoIterator<Item = R>) -> &Self {
        let expected: Vec<Vec<Value>> =
            expected.into_iter().map(|row| row.values().expect("values that fit a column")).collect();
        let answer: Vec<Vec<Value>> = self.rows(sql).iter().map(|row| row.values().to_vec()).collect();
        assert_eq!(answer, expected, "other rows than expected from `{sql}`");
        self
    }

    /// The rows that a query returns.
    ///
    /// # Panics
    /// If SQLite refuses the query.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        let answer: Result<_, SqlError> = self.database.write_now(|connection| select(connection, sql, &[]));
        match answer {
            Ok(rows) => rows,
            Err(error) => panic!("`{sql}`: {error}"),
        }
    }
}
