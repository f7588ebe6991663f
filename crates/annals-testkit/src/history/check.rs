//! Checks whether one order explains a history.
//!
//! The log gives the order of the committed appends; a place in it is a number of whole appends. A committed
//! append has its place. Every other request must have one too: not before anything that was answered before
//! it was made, and not after anything that was requested after it was answered. The check takes the requests
//! in the order in which they were made and assigns to each the earliest place at which the model agrees with
//! the response. This finds the places if there are any, because an earlier place never restricts a later
//! request.

use annals_core::{
    Appended, Direction, Error, LogPage, LogRead, NewEvent, Position, RecordedEvent, Result, StreamId,
    StreamPage, StreamRead, Timestamp, Version, Violated, Violation,
};

use super::model::{self, Verdict};
use super::{Asked, Step};

/// Checks a history against the log that it left. With `faults`, the store may have been unable to write.
///
/// # Panics
/// If no order explains it.
pub(super) fn check(log: &[RecordedEvent], steps: &[Step], faults: bool) {
    check_log(log);
    let order = Order::of(log);
    let written = written(log, &order, steps, faults);
    let mut places: Vec<usize> = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        if faults && says_nothing(step) {
            // If it is in the log, `written` has found it there; its response determines no place.
            places.push(0);
            continue;
        }
        let before = steps[..index].iter().zip(&places).filter(|(other, _)| other.answer < step.call);
        let low = before.map(|(_, place)| *place).max().unwrap_or(0);
        let behind = written.iter().enumerate().filter(|(_, writer)| steps[**writer].call > step.answer);
        let high = behind.map(|(append, _)| append).min().unwrap_or(written.len());
        let place = (low..=high).find(|place| explains(log, &order, *place, step));
        let Some(place) = place else {
            panic!(
                "no moment between request and answer explains this step; it was between {low} and {high} \
                 appends into the log, where the model says {:#?}\n{step:#?}",
                verdicts(log, &order, low..=high, step)
            )
        };
        // A committed append is visible to every later request.
        places.push(if is_written(step) { place + 1 } else { place });
    }
}

fn verdicts(
    log: &[RecordedEvent],
    order: &Order,
    places: std::ops::RangeInclusive<usize>,
    step: &Step,
) -> Vec<Verdict> {
    match &step.asked {
        Asked::Append(append, _) => {
            places.map(|place| model::judge(order.prefix(log, place), append)).collect()
        }
        _ => Vec::new(),
    }
}

/// Checks the log alone: positions and versions without gaps, complete appends, times that never decrease.
fn check_log(log: &[RecordedEvent]) {
    let mut time = Timestamp::MIN;
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.position(), Position::new(index as u64 + 1), "positions have no gaps");
        let before = model::version(&log[..index], event.stream());
        assert_eq!(event.version(), before.next(), "versions of `{}` have no gaps", event.stream());
        assert!(event.recorded_at() >= time, "recorded time decreases at position {}", event.position());
        time = event.recorded_at();
    }
    for run in log.chunk_by(|a, b| a.append() == b.append()) {
        assert_eq!(run[0].append(), run[0].position(), "an append is named by its first position");
        assert!(
            run[1..].iter().all(|event| event.idempotency_key().is_none()),
            "a key stands on the first event"
        );
        assert!(
            run.iter().all(|event| event.recorded_at() == run[0].recorded_at()),
            "an append has one time"
        );
    }
}

/// The end of each append of the log: `ends[n]` events are in the first n appends.
struct Order {
    ends: Vec<usize>,
}

impl Order {
    fn of(log: &[RecordedEvent]) -> Self {
        let mut ends = vec![0];
        for run in log.chunk_by(|a, b| a.append() == b.append()) {
            ends.push(ends[ends.len() - 1] + run.len());
        }
        Self { ends }
    }

    /// The log after this many appends.
    fn prefix<'a>(&self, log: &'a [RecordedEvent], place: usize) -> &'a [RecordedEvent] {
        &log[..self.ends[place]]
    }
}

/// Whether the store could not write, so that the response is not a decision.
fn says_nothing(step: &Step) -> bool {
    use Error::{Closed, Indeterminate, Poisoned, Unavailable};
    matches!(&step.asked, Asked::Append(_, Err(Closed | Indeterminate(_) | Poisoned(_) | Unavailable(_))))
}

fn is_written(step: &Step) -> bool {
    matches!(&step.asked, Asked::Append(_, Ok(done)) if !done.duplicate)
}

/// For each append of the log, the step that wrote it: exactly one, whose events are in the log as they were
/// sent. With `faults` it may be one whose outcome is unknown.
fn written(log: &[RecordedEvent], order: &Order, steps: &[Step], faults: bool) -> Vec<usize> {
    let mut writers: Vec<Option<usize>> = vec![None; order.ends.len() - 1];
    for (index, step) in steps.iter().enumerate() {
        let Asked::Append(append, Ok(done)) = &step.asked else { continue };
        if done.duplicate {
            continue;
        }
        let start = usize::try_from(done.first.get() - 1).expect("a small log");
        let place = order.ends.binary_search(&start);
        let place = place.unwrap_or_else(|_| panic!("{done:?} begins inside another append"));
        assert!(place < writers.len(), "{done:?} was acknowledged and is not in the log");
        let run = &log[start..order.ends[place + 1]];
        assert_eq!(found(run), sent(append), "what was acknowledged is what stands in the log");
        assert_eq!(*done, Appended::of(run, false), "the outcome is what stands in the log");
        assert_eq!(run[0].idempotency_key(), append.key, "the key is recorded");
        assert_eq!(writers[place].replace(index), None, "two appends were given the same place");
    }
    for place in 0..writers.len() {
        if writers[place].is_none() && faults {
            let run = &log[order.ends[place]..order.ends[place + 1]];
            let wrote = |(index, step): (usize, &Step)| match &step.asked {
                Asked::Append(append, Err(Error::Indeterminate(_))) if !writers.contains(&Some(index)) => {
                    sent(append) == found(run) && append.key == run[0].idempotency_key()
                }
                _ => false,
            };
            writers[place] = steps.iter().enumerate().position(wrote);
        }
    }
    let unclaimed = |place: usize| panic!("no step wrote the append at {:?}", log[order.ends[place]]);
    writers
        .into_iter()
        .enumerate()
        .map(|(place, writer)| writer.unwrap_or_else(|| unclaimed(place)))
        .collect()
}

fn sent(append: &annals_core::Append) -> Vec<(StreamId, NewEvent)> {
    append.writes.iter().map(|write| (write.stream.clone(), write.event.clone())).collect()
}

fn found(run: &[RecordedEvent]) -> Vec<(StreamId, NewEvent)> {
    run.iter().map(|event| (event.stream_id(), event.to_new())).collect()
}

/// Whether a store with the first `place` appends returns the response of this step.
fn explains(log: &[RecordedEvent], order: &Order, place: usize, step: &Step) -> bool {
    let seen = order.prefix(log, place);
    match &step.asked {
        Asked::Append(append, answer) => match (model::judge(seen, append), answer) {
            (Verdict::Written, Ok(done)) => !done.duplicate && done.first.get() == seen.len() as u64 + 1,
            (Verdict::Duplicate(original), Ok(done)) => *done == original,
            (Verdict::Reused(first), Err(Error::Reused(reused))) => reused.first == first,
            (Verdict::Invalid, Err(Error::Invalid(_))) => true,
            (Verdict::Refused(violated), answer) => refused_so(log, append, &violated, answer),
            _ => false,
        },
        Asked::Outcome(key, answer) => model::outcome(seen, key) == *answer,
        Asked::Log(read, page) => page_says(seen, read, page),
        Asked::Stream(read, page) => stream_page_says(seen, read, page),
    }
}

fn refused_so(
    log: &[RecordedEvent],
    append: &annals_core::Append,
    violated: &[(usize, Violated)],
    answer: &Result<Appended>,
) -> bool {
    let Err(Error::Conflict(conflict)) = answer else { return false };
    let named = conflict.violations.iter().map(|violation| (violation.condition, &violation.violated));
    named.eq(violated.iter().map(|(index, violated)| (*index, violated)))
        && conflict.violations.iter().all(|violation| carries_unseen(log, append, violation))
}

/// Whether a violation contains what its caller has not seen. Events that match a query are read after the
/// decision, so newer ones may be among them.
fn carries_unseen(log: &[RecordedEvent], append: &annals_core::Append, violation: &Violation) -> bool {
    let unseen = violation.unseen.iter();
    let condition = &append.conditions[violation.condition];
    if append.conditions[..violation.condition].contains(condition) && !violation.unseen_complete {
        // The same condition is explained once.
        return violation.unseen.is_empty();
    }
    match (&violation.violated, condition) {
        (Violated::Version { stream, expected, actual }, _) => {
            let seen = expected.version().unwrap_or(Version::MAX);
            let missed = log.iter().filter(|event| event.stream() == *stream);
            unseen.eq(missed.filter(|event| event.version() > seen && event.version() <= *actual))
        }
        (Violated::NoMatch { after, .. }, annals_core::Condition::NoMatch { query, .. }) => {
            let mut matching = log.iter().filter(|event| event.position() > *after && query.matches(event));
            !violation.unseen.is_empty() && unseen.map(Some).all(|event| matching.next() == event)
        }
        (Violated::History { .. }, annals_core::Condition::NoMatch { .. }) => {
            violation.unseen.is_empty() && !violation.unseen_complete
        }
        _ => false,
    }
}

/// Whether a store with these events returns this page for a read. It may stop early, and then reports that.
fn page_says(seen: &[RecordedEvent], read: &LogRead, page: &LogPage) -> bool {
    let head = seen.len() as u64;
    let last = head.min(read.to.get());
    let (next, from) = (page.next.get(), read.from.get());
    let looked_at: Vec<&RecordedEvent> = match read.direction {
        Direction::Forward => seen
            .iter()
            .filter(|event| event.position() >= read.from && event.position() < page.next)
            .collect(),
        Direction::Backward => seen
            .iter()
            .rev()
            .filter(|event| event.position() <= read.from && event.position() > page.next)
            .collect(),
    };
    let end = match read.direction {
        Direction::Forward => next > last,
        Direction::Backward => next == 0,
    };
    let beyond = match read.direction {
        Direction::Forward => next > from.max(last + 1),
        Direction::Backward => next > from.min(last),
    };
    let meant =
        looked_at.into_iter().filter(|event| event.position() <= read.to && read.query.matches(event));
    page.head.get() == head && page.end == end && !beyond && meant.eq(page.events.iter())
}

/// Like [`page_says`], for one stream.
fn stream_page_says(seen: &[RecordedEvent], read: &StreamRead, page: &StreamPage) -> bool {
    let events: Vec<&RecordedEvent> = seen.iter().filter(|event| event.stream() == read.stream).collect();
    let version = Version::new(events.len() as u64);
    let events: Vec<&RecordedEvent> = events.into_iter().filter(|event| event.version() <= read.to).collect();
    let (meant, end): (Vec<&RecordedEvent>, bool) = match read.direction {
        Direction::Forward => (
            events
                .into_iter()
                .filter(|event| event.version() >= read.from && event.version() < page.next)
                .collect(),
            page.next > version.min(read.to),
        ),
        Direction::Backward => (
            events
                .into_iter()
                .rev()
                .filter(|e| e.version() <= read.from && e.version() > page.next)
                .collect(),
            page.next == Version::ZERO,
        ),
    };
    page.version == version && page.end == end && meant.into_iter().eq(page.events.iter())
}
