//! Events as earlier programs stored them, for aggregates and projections under test: they pass through the
//! upcasters, like events that are read from a log.

use annals_core::{Aggregate, CodecError, Context, Event, NewEvent, RawEvent};

use super::{Given, GivenView, TIME, check_upcasters, view_of};
use crate::Projection;
use crate::codec::read_raw;
use crate::fold::evolve;

/// An aggregate with these events in their stored form: type, version and data. Its id is `test`.
///
/// ```
/// # use annals::{Aggregate, Event, RawEvent, testing::given_stored};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// #[event(prefix = "account")]
/// enum AccountEvent {
///     #[event(version = 2, upcast(1 = in_cents))]
///     Deposited { cents: u64 },
/// }
///
/// #[derive(Deserialize)]
/// struct DepositedV1 {
///     amount: u64,
/// }
///
/// fn in_cents(former: DepositedV1) -> Result<serde_json::Value, std::convert::Infallible> {
///     Ok(serde_json::json!({ "cents": former.amount * 100 }))
/// }
/// # #[derive(Clone, Default)] struct Account { cents: u64 }
/// # impl Aggregate for Account {
/// #     const NAME: &'static str = "account";
/// #     type Event = AccountEvent;
/// #     fn initial(_id: &str) -> Self { Self::default() }
/// #     fn evolve(&mut self, event: &AccountEvent) {
/// #         let AccountEvent::Deposited { cents } = event;
/// #         self.cents += cents;
/// #     }
/// # }
///
/// let account = given_stored::<Account>([RawEvent::new("account.deposited", 1, r#"{"amount":5}"#)]);
/// assert_eq!(account.state().cents, 500);
/// ```
///
/// # Panics
/// If an event cannot be read or folded, or the table of upcasters is invalid.
#[track_caller]
pub fn given_stored<A: Aggregate>(events: impl IntoIterator<Item = RawEvent>) -> Given<A> {
    check_upcasters::<A::Event>();
    let mut state = A::initial("test");
    for raw in events {
        let read = read_raw::<A::Event>(raw).unwrap_or_else(|error| panic!("{error}"));
        for event in &read {
            if let Err(error) = evolve(&mut state, event, event.event_type()) {
                panic!("{error}");
            }
        }
    }
    Given { state, context: Context::at(TIME) }
}

/// A projection that has applied these events in their stored form, each with the name of its stream.
/// Otherwise as [`given_view`](super::given_view).
///
/// # Panics
/// If the schema is invalid, an event fails, or the table of upcasters is invalid.
#[track_caller]
pub fn given_view_stored<P, S>(projection: P, events: impl IntoIterator<Item = (S, RawEvent)>) -> GivenView
where
    P: Projection,
    S: AsRef<str>,
{
    let as_stored = |raw: RawEvent| {
        let new = NewEvent::new(raw.event_type.as_str(), raw.data);
        let mut new = new.unwrap_or_else(|invalid| panic!("no store has such an event: {invalid}"));
        (new.schema_version, new.content_type) = (raw.schema_version, raw.content_type);
        new
    };
    view_of(projection, events.into_iter().map(|(stream, raw)| (stream, as_stored(raw))))
}

/// Decodes a stored event, to no event, one or several.
///
/// # Errors
/// As for every reader of a log: the type or version is unknown, or the data does not match.
pub fn read_stored<E: Event>(stored: RawEvent) -> Result<Vec<E>, CodecError> {
    read_raw(stored)
}
