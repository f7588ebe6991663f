//! The domain side: aggregates that decide and evolve, as plain data and pure functions.
//!
//! Nothing here is asynchronous or does I/O. By their types, `evolve` cannot fail, because an event is a
//! fact, and `decide` cannot change the state: it returns events or a refusal.

use std::borrow::Cow;

use bytes::Bytes;

use crate::chain::because;
use crate::{Cause, ContentType, Tag, Text, Timestamp, Upcaster, refusal_code};

/// A kind of fact, usually an enum with one variant for each thing that can happen; `#[derive(Event)]` of the
/// crate `annals` implements it.
pub trait Event: Sized + Clone + Send + Sync + 'static {
    /// The stored names of all types, in the past tense: `account.opened`. They outlive the code: rename a
    /// variant as you like, never its stored name. They do not begin with `annals.`.
    const TYPES: &'static [&'static str];

    /// The upcasters for types, and versions of their shapes, that are no longer written. Every reader of the
    /// crate `annals` applies this table to a stored event before it decodes it.
    const UPCASTERS: &'static [Upcaster] = &[];

    /// The stored name of this event's type.
    fn event_type(&self) -> &'static str;

    /// Version of the shape in which events of this type are written today; 1 at first.
    fn current_version(event_type: &str) -> u16 {
        let _ = event_type;
        1
    }

    /// Version of the shape of this event's data: the current one of its type.
    fn schema_version(&self) -> u16 {
        Self::current_version(self.event_type())
    }

    /// The content type of the data of this type, as [`encode`](Self::encode) writes it and
    /// [`decode`](Self::decode) reads it: JSON by default.
    fn content_type(event_type: &str) -> ContentType {
        let _ = event_type;
        ContentType::Json
    }

    /// Tags by which this event can be found.
    ///
    /// # Errors
    /// If a tag is not acceptable.
    fn tags(&self) -> Result<Vec<Tag>, CodecError> {
        Ok(Vec::new())
    }

    /// The data to store.
    ///
    /// # Errors
    /// If the event cannot be encoded, which is always a bug in the program.
    fn encode(&self) -> Result<Bytes, CodecError>;

    /// Decodes an event of one of [`TYPES`](Self::TYPES). A stored event goes through
    /// [`UPCASTERS`](Self::UPCASTERS) first.
    ///
    /// # Errors
    /// If the type is unknown or the data does not fit it.
    fn decode(event_type: &str, schema_version: u16, data: &[u8]) -> Result<Self, CodecError>;
}

/// Why an event could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The type is not in [`Event::TYPES`].
    #[error(
        "`{event_type}` is not a known event type: a newer program may have written it; if its variant was renamed or \
         removed, add `#[event(former_name = \"{event_type}\")]` or `#[event(dropped = \"{event_type}\")]`"
    )]
    UnknownType {
        /// The stored name.
        event_type: String,
    },
    /// The data does not fit the type.
    #[error("the data of `{event_type}` (schema version {schema_version}) cannot be read: {}", because(.cause))]
    Decode {
        /// The stored name.
        event_type: String,
        /// The stored version of its shape.
        schema_version: u16,
        /// The cause.
        cause: Cause,
    },
    /// An [`Upcaster`] could not rewrite the event.
    #[error("`{event_type}` (schema version {schema_version}) cannot be upcast: {}", because(.cause))]
    Upcast {
        /// The stored name.
        event_type: String,
        /// The stored version of its shape.
        schema_version: u16,
        /// The cause.
        cause: Cause,
    },
    /// The data has another content type than the program reads.
    #[error(
        "the data of `{event_type}` (schema version {schema_version}) is {stored}, and this program reads {expected}: \
         convert it with an upcaster"
    )]
    ContentType {
        /// The stored name.
        event_type: String,
        /// The stored version of its shape.
        schema_version: u16,
        /// The content type of the event.
        stored: Box<str>,
        /// The content type of [`Event::content_type`].
        expected: Box<str>,
    },
    /// `evolve` panicked on the event.
    #[error("an event of type `{event_type}` cannot be folded: {}", because(.cause))]
    Fold {
        /// The stored name.
        event_type: String,
        /// The message of the panic.
        cause: Cause,
    },
    /// The event cannot be written.
    #[error("an event of type `{event_type}` cannot be written: {}", because(.cause))]
    Encode {
        /// The stored name.
        event_type: String,
        /// The cause.
        cause: Cause,
    },
}

/// A thing with an identity and a history, rebuilt by folding its events.
#[doc(alias("aggregate root", "entity", "decider"))]
pub trait Aggregate: Sized + Clone + Send + Sync + 'static {
    /// The category of its streams: the aggregate `a1` of `account` is the stream `account-a1`. It does not
    /// begin with `annals.`.
    const NAME: &'static str;

    /// What can happen to it.
    type Event: Event;

    /// The state before anything has happened.
    fn initial(id: &str) -> Self;

    /// The state after an event. An event is a fact: this neither validates nor fails. A panic on an event
    /// that a command has just led to refuses the command; after a panic on a stored event, the aggregate
    /// cannot be loaded.
    #[doc(alias("apply", "event sourcing handler", "reducer"))]
    fn evolve(&mut self, event: &Self::Event);

    /// The state after these events.
    fn fold<'a>(id: &str, events: impl IntoIterator<Item = &'a Self::Event>) -> Self {
        let mut state = Self::initial(id);
        for event in events {
            state.evolve(event);
        }
        state
    }
}

/// The decision of an aggregate on a command: events or a refusal.
#[diagnostic::on_unimplemented(
    // The type of the command is often unknown where the error is reported, so the message does not name it.
    message = "`{Self}` has no decision for this command",
    note = "write `impl Decide<Command> for {Self}`, with the type of the command for `Command`"
)]
#[doc(alias("command handler"))]
pub trait Decide<C>: Aggregate {
    /// Why a command is refused.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The events of the command in this state. Must depend only on its arguments: it is called again after a
    /// conflict.
    ///
    /// # Errors
    /// The refusal.
    fn decide(&self, command: &C, context: &Context) -> Decision<Self, Self::Error>;

    /// The code of a refusal, for programs: `not-open`. It is stored in the log with the text of the refusal,
    /// if the command has a key or a cause, and outlives the code of the program: keep it when you rename a
    /// variant. By default it is the name of the variant ([`refusal_code`](crate::refusal_code)).
    fn code(refusal: &Self::Error) -> Cow<'static, str> {
        refusal_code(refusal)
    }
}

/// A command that the aggregate `A` decides on: every `C` for which there is `A: Decide<C>`. It is never
/// implemented by hand.
///
/// A method that takes a command requires this trait instead of [`Decide`]: with a single implementation of
/// [`Decide`], the compiler would infer the command's type from it and report any other command as a type
/// mismatch.
#[diagnostic::on_unimplemented(
    message = "`{A}` has no decision for the command `{Self}`",
    label = "`{A}` does not decide on this",
    note = "write `impl Decide<{Self}> for {A}`"
)]
pub trait CommandOf<A> {}

#[diagnostic::do_not_recommend]
impl<A: Decide<C>, C> CommandOf<A> for C {}

/// The events that a command leads to, or its refusal.
pub type Decision<A, E> = Result<Events<<A as Aggregate>::Event>, E>;

/// The events of a decision, in order. Often one, sometimes none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events<E>(pub Vec<E>);

impl<E> From<Vec<E>> for Events<E> {
    fn from(events: Vec<E>) -> Self {
        Self(events)
    }
}

impl<E, const N: usize> From<[E; N]> for Events<E> {
    fn from(events: [E; N]) -> Self {
        Self(events.into())
    }
}

/// Decides for one event.
///
/// # Errors
/// Never.
pub fn emit<E, X>(event: E) -> Result<Events<E>, X> {
    Ok(Events(vec![event]))
}

/// Decides for several events, which are stored together or not at all.
///
/// # Errors
/// Never.
pub fn emit_all<E, X>(events: impl IntoIterator<Item = E>) -> Result<Events<E>, X> {
    Ok(Events(events.into_iter().collect()))
}

/// Decides that nothing happens: the command was executed before, or has no effect.
///
/// # Errors
/// Never.
pub fn no_events<E, X>() -> Result<Events<E>, X> {
    Ok(Events(Vec::new()))
}

/// Refuses the command.
///
/// # Errors
/// Always.
pub fn reject<E, X>(refusal: impl Into<X>) -> Result<Events<E>, X> {
    Err(refusal.into())
}

/// The context of a decision, beside state and command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The time, so that a decision does not read a clock.
    pub now: Timestamp,
    /// The business process that the command belongs to.
    pub process: Option<Text>,
    /// The user or service that gives the command.
    pub initiator: Option<Text>,
    /// The message or event that led to it.
    pub predecessor: Option<Text>,
}

impl Context {
    /// A context with this time and nothing else.
    pub fn at(now: Timestamp) -> Self {
        Self { now, ..Self::default() }
    }
}
