//! Given, when, then: for aggregates and for projections. Nothing is opened, nothing waits.
//!
//! Events take the way that they take to a log: encoded, read back, folded, and checked as an append with its names, tags and
//! limits. So a test that passes here does not meet a refusal in production.
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
//! What earlier programs wrote is given as it is stored: [`given_stored`], [`given_view_stored`], [`read_stored`]. [`golden`]
//! keeps a file of each type and version that was ever written, and fails when one cannot be read any more.

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

/// An aggregate to which these events have happened. Its id is `test`.
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    check_upcasters::<A::Event>();
    let mut state = A::initial("test");
    for event in events {
        // Each by itself: they need not have been one append.
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

/// What decisions are told as the time, if nothing else is said: 2017-04-15T13:00:00Z.
const TIME: Timestamp = Timestamp::from_micros(1_492_261_200_000_000);

/// An aggregate before a command.
#[derive(Clone, Debug)]
pub struct Given<A> {
    state: A,
    context: Context,
}

impl<A: Aggregate> Given<A> {
    /// What the decision may know: the time, who gives the command, and so on.
    #[must_use]
    pub fn with(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// The command.
    pub fn when<C>(self, command: C) -> When<A, A::Error>
    where
        A: Decide<C>,
    {
        let decision = self.state.decide(&command, &self.context);
        When { state: self.state, decision: decision.map(|events| events.0) }
    }

    /// The state that the events make.
    pub fn state(&self) -> &A {
        &self.state
    }
}

impl<A: Snapshot + Serialize + DeserializeOwned> Given<A> {
    /// This state can be kept as a snapshot: it is read back as it is.
    ///
    /// # Panics
    /// If it is not so, with the field that is read back as another value.
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
#[must_use = "what is expected is said by `then`"]
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
    /// These events are what happens, and a log takes them. Returns the state after them.
    ///
    /// # Panics
    /// If it is not so.
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

    /// Nothing happens, and the command is not refused either.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// The command is refused with this.
    ///
    /// # Panics
    /// If it is not so.
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

/// An event as it is appended to a stream.
#[track_caller]
fn as_appended<E: Event>(event: &E) -> NewEvent {
    let (new, _) = encode(event, &Beside::default())
        .unwrap_or_else(|error| panic!("an event cannot be written: {error}"));
    new
}

/// A projection that has taken these events, each with the name of its stream: `("account-a1", Opened { … })`.
/// Positions begin at 1, and each event is a second after the one before, from 2017-04-15T13:00:01Z on.
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
/// If the schema is not acceptable or an event fails.
#[track_caller]
pub fn given_view<P, S>(projection: P, events: impl IntoIterator<Item = (S, P::Event)>) -> GivenView
where
    P: Projection,
    S: AsRef<str>,
{
    view_of(projection, events.into_iter().map(|(stream, event)| (stream, as_appended(&event))))
}

/// A projection that has taken these events, as they are in the log.
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
        let stored = RecordedEvent::record(new, stream, position, version, position, recorded_at, None);
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

/// The rows of a projection, to be looked at.
pub struct GivenView {
    database: Database,
}

impl GivenView {
    /// The query answers with these rows, each a tuple: `.then_rows("SELECT owner, balance FROM …", [("kim", 5)])`.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_rows<R: Params>(&self, sql: &str, expected: impl IntoIterator<Item = R>) -> &Self {
        let expected: Vec<Vec<Value>> =
            expected.into_iter().map(|row| row.values().expect("values that fit a column")).collect();
        let answer: Vec<Vec<Value>> = self.rows(sql).iter().map(|row| row.values().to_vec()).collect();
        assert_eq!(answer, expected, "other rows than expected from `{sql}`");
        self
    }

    /// The rows that a query answers with.
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
