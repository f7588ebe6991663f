//! The keys under which commands are executed once: bound to the aggregate, and to the event that led to
//! them.
//!
//! ```text
//! account-a1/request-1                          a key of the caller; `%` and `/` in the stream are escaped
//! account-a1/caused:{cause}/{subscriber}        the event that is handled, identified by its stream and its id
//! account-a1/caused:{id}/{subscriber}           the form of earlier versions: by the id alone
//! %stream:{digest}/request-1                    of a stream whose name leaves no space for the key
//! %key:{digest}                                 if the key itself is too long
//! ```
//!
//! - K1  Valid names always make a valid key.
//! - K2  Two streams never share a key, and a caller's key never equals that of a cause: no other key has a
//!   `%` that is not followed by `2`.
//! - K3  A key that an earlier version wrote is still found.

use annals_core::{EventId, IdempotencyKey, Invalid, Position, StreamId};

/// The prefix of keys derived from a cause. A caller's key must not begin with it: it may come from outside,
/// and would be mistaken for a command caused by the event.
pub(super) const CAUSED: &str = "caused:";
/// The longest key.
const KEY_BYTES_MAX: usize = 2_048;

/// The event that led to a command.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// The stream of the event. An id is unique within its stream only.
    pub stream: StreamId,
    /// The id of the event.
    pub id: EventId,
    /// The index of the part, if it was read as several events: each part leads to commands of its own.
    pub part: u32,
    /// Its position in the log of the command; `None` if it may be of another log.
    pub position: Option<Position>,
    /// The subscriber that handles it, or empty. Two subscribers may react to one event with commands for one
    /// aggregate: both are executed. The name of a subscriber is never empty, so a command outside of any
    /// subscriber shares no key with them.
    pub subscriber: String,
    /// Whether it has already led to another command for the same aggregate.
    pub again: bool,
}

/// The keys of a command.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The key under which it is appended.
    pub key: IdempotencyKey,
    /// The key under which an earlier version would have appended it, and the position of the cause, or 0 if
    /// it is unknown: the outcome is after the cause.
    pub earlier: Option<(IdempotencyKey, Position)>,
}

impl Keys {
    /// The keys of a command for this stream, with a key of the caller or a cause; `None` if it has neither.
    pub fn of(stream: &StreamId, once: Option<&str>, cause: Option<&Cause>) -> Result<Option<Self>, Invalid> {
        let problem = |problem: String| Err(Invalid::new("idempotency key", problem));
        if let Some(once) = once {
            // The key must be valid by itself, even if it is replaced by a digest.
            IdempotencyKey::new(once)?;
        }
        Ok(match (cause, once) {
            (None, None) => None,
            (None, Some(once)) if once.starts_with(CAUSED) => {
                return problem(format!("begins with `{CAUSED}`, which is for causes"));
            }
            (None, Some(once)) => Some(Self { key: scoped(stream, once)?, earlier: None }),
            (Some(Cause { again: true, .. }), None) => {
                return problem(format!(
                    "is missing: the event has led to another command for `{stream}` already; \
                     tell them apart with `.once(..)`"
                ));
            }
            (Some(cause), once) => {
                let once = once.map_or_else(String::new, |once| format!("/{once}"));
                let caused = |id| format!("{CAUSED}{id}/{}{once}", cause.subscriber);
                // Earlier versions decoded every stored event as one.
                let earlier = (cause.part == 0).then(|| unshortened(stream, &caused(cause.id)));
                let position = cause.position.unwrap_or_default();
                Some(Self {
                    key: scoped(stream, &caused(cause.name()))?,
                    earlier: earlier.and_then(|key| Some((IdempotencyKey::new(key).ok()?, position))),
                })
            }
        })
    }
}

impl Cause {
    /// The name of the event: its stream, its id and, after the first, its part, as one id.
    fn name(&self) -> EventId {
        let mut name = self.stream.as_str().as_bytes().to_vec();
        name.push(0);
        name.extend(self.id.as_bytes());
        if self.part > 0 {
            name.extend(self.part.to_be_bytes());
        }
        EventId::from_name(&name)
    }
}

/// The key, bound to the aggregate. Characters that would make the separator ambiguous are escaped.
fn unshortened(stream: &StreamId, key: &str) -> String {
    let stream = stream.as_str().replace('%', "%25").replace('/', "%2F");
    format!("{stream}/{key}")
}

/// The key, bound to the aggregate, with digests in place of parts that are too long.
fn scoped(stream: &StreamId, key: &str) -> Result<IdempotencyKey, Invalid> {
    let whole = unshortened(stream, key);
    let digest = |text: &str| EventId::from_name(text.as_bytes());
    let key = match whole.len() {
        ..=KEY_BYTES_MAX => whole,
        _ => match format!("%stream:{}/{key}", digest(stream.as_str())) {
            shorter if shorter.len() <= KEY_BYTES_MAX => shorter,
            _ => format!("%key:{}", digest(&whole)),
        },
    };
    IdempotencyKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamId {
        StreamId::new(name).unwrap()
    }

    fn cause(of: &str, id: &[u8]) -> Cause {
        let (stream, id) = (stream(of), EventId::from_name(id));
        Cause { stream, id, part: 0, position: None, subscriber: "mails".to_owned(), again: false }
    }

    #[test]
    fn keys_of_different_streams_never_meet() {
        let key = |name: &str, key| scoped(&stream(name), key).unwrap();
        assert_eq!(key("account-a1", "request-1").as_str(), "account-a1/request-1");
        assert_ne!(key("account-a/b", "c"), key("account-a", "b/c"));
        assert_ne!(key("account-a%2Fb", "c"), key("account-a/b", "c"));
        let long = |last| key(&format!("account-{}{last}", "/".repeat(1_000)), "c");
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn whatever_names_are_acceptable_make_an_acceptable_key() {
        for stream in [stream(&"/".repeat(1_024)), stream(&"a".repeat(1_024))] {
            for once in [None, Some("1".to_owned()), Some("k".repeat(2_048))] {
                for subscriber in ["mails".to_owned(), "s".repeat(1_000)] {
                    let cause = Cause { subscriber, ..cause(&"%".repeat(1_024), b"1") };
                    assert!(Keys::of(&stream, once.as_deref(), Some(&cause)).is_ok());
                    assert!(Keys::of(&stream, once.as_deref(), None).is_ok());
                }
            }
        }
        for wrong in [String::new(), "k".repeat(2_049)] {
            assert!(Keys::of(&stream("account-a"), Some(&wrong), None).is_err());
        }
    }

    #[test]
    fn a_cause_is_identified_by_its_stream_and_its_id() {
        let key = |cause: Cause| Keys::of(&stream("total-1"), None, Some(&cause)).unwrap().unwrap();
        let (one, other) = (key(cause("account-a", b"7")), key(cause("account-b", b"7")));
        assert_ne!(one.key, other.key);
        assert_ne!(one.key, key(cause("account-a", b"8")).key);
        let id = EventId::from_name(b"7");
        assert_eq!(one.earlier.unwrap().0.as_str(), format!("total-1/caused:{id}/mails"));
    }
}
