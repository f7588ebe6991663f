//! Answers: the outcomes of commands that appended no event to their aggregate, as events in the log.
//!
//! ```text
//! account-a1                 opened                 deposited
//! annals.answers-account-a1            refused                   nothing decided
//! ```
//!
//! - R1  If a command with a key or a cause decides nothing, or its aggregate refuses it, one answer is
//!   appended under its key. From then on a retry of the command returns that answer, and has no effect.
//! - R2  Like events, an answer is appended only if the aggregate is unchanged since the decision. If its
//!   answer is not in the log, a command with a key ends in an error of the store, never in a refusal.
//! - R3  Only the framework writes to these streams (`annals_core::refuse_reserved`). The outcome of a key is
//!   found by the key; the stream only groups the answers of an aggregate.
//!
//! Next: `attempt`, which appends them and returns them for retries.

use annals_core::{Bytes, CodecError, Decide, Event, EventId, Invalid, NewEvent, StreamId, Version, chain};
use serde::{Deserialize, Serialize};

use crate::codec::Beside;
use crate::failure::shown;

/// The prefix of the names of answer streams.
const STREAM: &str = "annals.answers-";
const REFUSED: &str = "annals.command_refused";
const NOTHING: &str = "annals.nothing_decided";
/// Most bytes of the code of a refusal.
const CODE_BYTES_MAX: usize = 256;
/// Most bytes of the text of a refusal.
const TEXT_BYTES_MAX: usize = 4_096;

/// The outcome of a command that led to no event of its aggregate: a refusal, or a decision without events.
/// It is itself an event in the log, in the stream `annals.answers-{stream}` beside that of the aggregate,
/// with the process, initiator, predecessor and trace of the command.
///
/// Subscribers and projections handle it like any other event:
///
/// ```
/// # use annals::{Annals, Answer, Recorded};
/// # async fn start(annals: &Annals) -> annals::Result<()> {
/// let audit = annals.subscribe("audit").on::<Answer, _>(async |answer: Recorded<Answer>, _| {
///     if let Some(refusal) = &answer.event.refusal {
///         println!("{} refused {:?}: {refusal}", answer.event.stream, answer.metadata().initiator);
///     }
///     Ok(())
/// });
/// audit.start().await
/// # }
/// ```
///
/// A command executed by a handler of answers may lead to an answer as well, which is delivered to the same
/// handler. Such a handler must check [`stream`](Self::stream) first, and execute no command for the answers
/// to its own commands; otherwise the answers never end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer {
    /// The stream of the aggregate on which the command was executed.
    pub stream: StreamId,
    /// The version of the aggregate at the decision; 0 if it had no events.
    pub version: Version,
    /// The id of its newest event at the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventId>,
    /// The refusal; `None` if the aggregate decided that nothing happens.
    #[serde(flatten)]
    pub refusal: Option<Refusal>,
}

/// A refusal of an aggregate, as stored in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// For programs: `insufficient`. See [`Decide::code`].
    pub code: String,
    /// For people: the text of the error and of its sources, at most 4,096 bytes.
    pub text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.text)
    }
}

impl Refusal {
    /// The refusal with this code and this text, truncated to the limits.
    fn new(code: &str, text: &str) -> Self {
        // Text and JSON in PostgreSQL cannot contain a NUL.
        let kept = |text: &str, bytes_max: usize| {
            let whole = text.replace('\0', " ");
            if whole.len() <= bytes_max {
                return whole;
            }
            let cut = whole.floor_char_boundary(bytes_max - '…'.len_utf8());
            format!("{}…", &whole[..cut])
        };
        Self { code: kept(code, CODE_BYTES_MAX), text: kept(text, TEXT_BYTES_MAX) }
    }

    /// The refusal with this error, whose `Display` is the user's code and may panic.
    pub(super) fn of<A, C>(error: &A::Error) -> Self
    where
        A: Decide<C>,
    {
        Self::new(&A::code(error), &shown(|| chain(error)))
    }
}

impl Answer {
    pub(super) fn new(
        stream: &StreamId,
        version: Version,
        event: Option<EventId>,
        refusal: Option<Refusal>,
    ) -> Self {
        Self { stream: stream.clone(), version, event, refusal }
    }

    /// The answer stream of this aggregate.
    pub(super) fn stream_of(aggregate: &StreamId) -> StreamId {
        let name = format!("{STREAM}{aggregate}");
        StreamId::new(name).unwrap_or_else(|_| {
            let digest = EventId::from_name(aggregate.as_str().as_bytes());
            StreamId::new(format!("{STREAM}%{digest}")).expect("a digest is short")
        })
    }

    /// Whether this is an answer stream.
    pub(super) fn is_stream(stream: &StreamId) -> bool {
        stream.as_str().starts_with(STREAM)
    }

    /// The event to append. It has no tags, so that queries by the tags of events do not return answers.
    pub(super) fn to_new(&self, beside: &Beside) -> Result<NewEvent, CodecError> {
        let event_type = self.event_type();
        let invalid = |invalid: Invalid| CodecError::Encode {
            event_type: event_type.to_owned(),
            cause: Box::new(invalid),
        };
        let mut new = NewEvent::new(event_type, self.encode()?).map_err(invalid)?;
        new.metadata = beside.metadata.clone();
        new.occurred_at = beside.occurred_at;
        Ok(new)
    }
}

impl Event for Answer {
    const TYPES: &'static [&'static str] = &[REFUSED, NOTHING];

    fn event_type(&self) -> &'static str {
        if self.refusal.is_some() { REFUSED } else { NOTHING }
    }

    fn encode(&self) -> Result<Bytes, CodecError> {
        let json = serde_json::to_vec(self);
        json.map(Bytes::from).map_err(|error| CodecError::Encode {
            event_type: self.event_type().to_owned(),
            cause: Box::new(error),
        })
    }

    fn decode(event_type: &str, schema_version: u16, data: &[u8]) -> Result<Self, CodecError> {
        let failed = |cause: annals_core::Cause| CodecError::Decode {
            event_type: event_type.to_owned(),
            schema_version,
            cause,
        };
        if !Self::TYPES.contains(&event_type) {
            return Err(CodecError::UnknownType { event_type: event_type.to_owned() });
        }
        if schema_version != 1 {
            return Err(failed("it was written by a newer version".into()));
        }
        let answer: Self = serde_json::from_slice(data).map_err(|error| failed(Box::new(error)))?;
        match answer.event_type() == event_type {
            true => Ok(answer),
            false => Err(failed("a refusal has a code and a text, and nothing else has".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamId {
        StreamId::new(name).unwrap()
    }

    #[test]
    fn an_answer_is_beside_its_aggregate_whatever_the_name() {
        assert_eq!(Answer::stream_of(&stream("account-a1")).as_str(), "annals.answers-account-a1");
        let long = |last| Answer::stream_of(&stream(&format!("{}{last}", "한".repeat(340))));
        assert_ne!(long("a"), long("b"));
        let fits = stream(&"x".repeat(StreamId::BYTES_MAX - STREAM.len()));
        assert!(Answer::stream_of(&fits).as_str().ends_with(fits.as_str()));
        for name in [fits, stream(&"x".repeat(StreamId::BYTES_MAX)), stream("%")] {
            assert!(Answer::is_stream(&Answer::stream_of(&name)));
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let id = EventId::from_name(b"7");
        let refusal = Refusal::new("not-open", "there is no such \"account\"\n");
        for answer in [
            Answer::new(&stream("account-a1"), Version::ZERO, None, None),
            Answer::new(&stream("account-a1"), Version::new(7), Some(id), None),
            Answer::new(&stream("account-a1"), Version::new(7), Some(id), Some(refusal)),
        ] {
            let new = answer.to_new(&Beside::default()).unwrap();
            assert!(new.check_data().is_ok() && new.tags.is_empty());
            assert_eq!(Answer::decode(new.event_type.as_str(), 1, &new.data).unwrap(), answer);
            let other = if answer.refusal.is_some() { NOTHING } else { REFUSED };
            assert!(Answer::decode(other, 1, &new.data).is_err(), "the type and the data say the same");
            assert!(Answer::decode(new.event_type.as_str(), 2, &new.data).is_err());
        }
        let kept = r#"{"stream":"account-a1","version":2,"code":"blocked","text":"the account is blocked"}"#;
        let read = Answer::decode(REFUSED, 1, &Bytes::from_static(kept.as_bytes())).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), kept);
        assert!(Answer::decode("account.opened", 1, &Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        for text in ["한".repeat(10_000), "é".repeat(2_049), "x".repeat(TEXT_BYTES_MAX + 1)] {
            let refusal = Refusal::new(&text, &text);
            assert!(refusal.text.len() <= TEXT_BYTES_MAX && refusal.text.ends_with('…'));
            assert!(refusal.text.len() > TEXT_BYTES_MAX - 8);
            assert!(refusal.code.len() <= CODE_BYTES_MAX);
        }
        let whole = "x".repeat(TEXT_BYTES_MAX);
        assert_eq!(Refusal::new("", &whole).text, whole);
        assert_eq!(Refusal::new("a\0b", "c\0d"), Refusal { code: "a b".into(), text: "c d".into() });
    }
}
