//! The expected responses of a store, computed as simply as possible: by scans of a list of events.
//!
//! It shares no rule with `annals_core::admit`, on purpose: two independent implementations must agree.

use std::collections::HashSet;

use annals_core::{
    Append, Appended, Condition, EventId, Expected, IdempotencyKey, Position, RecordedEvent, Version,
    Violated, Witness,
};

/// The response of a store to an append.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Written,
    Duplicate(Appended),
    /// The key, or the ids, are those of another append, which begins here.
    Reused(Position),
    Invalid,
    Refused(Vec<(usize, Violated)>),
}

/// The response of a store with exactly these events to this append.
pub(super) fn judge(log: &[RecordedEvent], append: &Append) -> Verdict {
    if let Some(original) = append.key.as_ref().and_then(|key| outcome(log, key)) {
        return same_or_reused(log, append, original);
    }
    if let Some(events) = already_appended(log, append) {
        return same_or_reused(log, append, Appended::of(events, true));
    }
    if reuses_an_id(log, append) {
        return Verdict::Invalid;
    }
    let violated: Vec<_> = append
        .conditions
        .iter()
        .enumerate()
        .filter_map(|(index, condition)| Some((index, violated(log, condition)?)))
        .collect();
    if violated.is_empty() { Verdict::Written } else { Verdict::Refused(violated) }
}

/// The original outcome if it is that of the same append.
fn same_or_reused(log: &[RecordedEvent], append: &Append, original: Appended) -> Verdict {
    let first = usize::try_from(original.first.get() - 1).expect("a small log");
    let last = usize::try_from(original.last.get()).expect("a small log");
    let there = log[first..last].iter();
    // The data of each random request is unique, so an event with the same data is the same event. The store
    // compares ids only where the caller gave them, and then they are equal too.
    let same = there.map(|event| (event.stream(), event.event_type(), event.data()));
    let sent = append
        .writes
        .iter()
        .map(|write| (write.stream.as_str(), write.event.event_type.as_str(), &*write.event.data));
    if same.eq(sent) { Verdict::Duplicate(original) } else { Verdict::Reused(original.first) }
}

/// The outcome of the append with this key.
pub(super) fn outcome(log: &[RecordedEvent], key: &IdempotencyKey) -> Option<Appended> {
    let first = log.iter().find(|event| event.idempotency_key().as_ref() == Some(key))?;
    let run: Vec<_> = log.iter().filter(|event| event.append() == first.append()).cloned().collect();
    Some(Appended::of(&run, true))
}

pub(super) fn version(log: &[RecordedEvent], stream: &str) -> Version {
    Version::new(log.iter().filter(|event| event.stream() == stream).count() as u64)
}

/// The events of this append, by stream and id, if they are in the log at the versions that it expects.
fn already_appended<'a>(log: &'a [RecordedEvent], append: &Append) -> Option<&'a [RecordedEvent]> {
    let wanted: Vec<(&str, EventId)> =
        append.writes.iter().map(|w| (w.stream.as_str(), w.event.id)).collect();
    let start = log.iter().position(|event| (event.stream(), event.id()) == wanted[0])?;
    let run = log.get(start..start + wanted.len())?;
    let same = run.iter().map(|event| (event.stream(), event.id())).eq(wanted);
    let before = &log[..start];
    let in_place = append.conditions.iter().all(|condition| match condition {
        Condition::Version { stream, expected } => {
            let written = run.iter().any(|event| event.stream() == *stream);
            !written || holds(*expected, version(before, stream.as_str()))
        }
        _ => true,
    });
    (same && in_place).then_some(run)
}

fn reuses_an_id(log: &[RecordedEvent], append: &Append) -> bool {
    let mut used: HashSet<(&str, EventId)> = log.iter().map(|event| (event.stream(), event.id())).collect();
    append.writes.iter().any(|write| !used.insert((write.stream.as_str(), write.event.id)))
}

fn holds(expected: Expected, actual: Version) -> bool {
    match expected {
        Expected::Any => true,
        Expected::Exists => actual > Version::ZERO,
        Expected::NoStream => actual == Version::ZERO,
        Expected::Exact(version) => actual == version,
    }
}

fn violated(log: &[RecordedEvent], condition: &Condition) -> Option<Violated> {
    match condition {
        Condition::Version { stream, expected } => {
            let actual = version(log, stream.as_str());
            let violated = Violated::Version { stream: stream.clone(), expected: *expected, actual };
            (!holds(*expected, actual)).then_some(violated)
        }
        Condition::NoMatch { query, after } => {
            if let Some(seen) = after.witness()
                && !log.iter().any(|event| Witness::of(event) == seen)
            {
                return Some(Violated::History { seen });
            }
            let after = after.position;
            let found = log.iter().find(|event| event.position() > after && query.matches(event))?;
            Some(Violated::NoMatch { after, position: found.position() })
        }
        other => panic!("the model knows no condition {other:?}"),
    }
}
