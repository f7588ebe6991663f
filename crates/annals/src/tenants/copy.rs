//! Copies the events of a log behind those that the copy has.

use std::pin::Pin;
use std::task::Poll;

use annals_core::{
    Append, Appended, Clock, Error, EventStore, Invalid, LogRead, Position, RecordedEvent, Result, Timestamp,
    Write,
};

/// Events that are read at once.
const PAGE: usize = 1_000;

/// The clock of a copy: a time that was recorded is never beyond it.
pub(super) struct Unbounded;

impl Clock for Unbounded {
    fn now(&self) -> Timestamp {
        Timestamp::MAX
    }
}

/// Copies what is missing up to this position. `told` is how far the copy goes. A copy that goes further has been written to
/// since it was complete.
pub(super) async fn copy(
    source: &dyn EventStore,
    target: &dyn EventStore,
    up_to: Position,
    mut told: impl FnMut(Position),
) -> Result<()> {
    let mut copied = target.head().await?;
    same(source, target, copied.min(up_to)).await?;
    told(copied.min(up_to));
    let (mut next, mut held) = (copied.next(), Vec::new());
    while copied < up_to {
        let page = source.read_log(LogRead::forward(next).limit(PAGE)).await?;
        next = page.next;
        held.extend(page.events);
        let whole = whole_appends(&mut held, page.end);
        let appends = whole.iter().map(|events| target.append(append(events)));
        for (appended, events) in in_order(appends.collect()).await.into_iter().zip(&whole) {
            let appended = appended?;
            if appended.first != events[0].position || appended.duplicate {
                let problem = format!("has the event {} at {}", events[0].position, appended.first);
                return Err(Invalid::new("the copy", problem).into());
            }
            copied = appended.last;
        }
        told(copied);
    }
    same(source, target, up_to).await
}

type Appending<'a> = Pin<Box<dyn Future<Output = Result<Appended>> + Send + 'a>>;

/// Hands all of these in, one behind the other, and waits for all.
async fn in_order(mut appends: Vec<Appending<'_>>) -> Vec<Result<Appended>> {
    let mut answers: Vec<Option<Result<Appended>>> = appends.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (append, answer) in appends.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            if let Poll::Ready(answered) = append.as_mut().poll(context) {
                *answer = Some(answered);
            }
        }
        match answers.iter().all(Option::is_some) {
            true => Poll::Ready(answers.iter_mut().filter_map(Option::take).collect()),
            false => Poll::Pending,
        }
    })
    .await
}

/// Whether both have the same event there.
async fn same(source: &dyn EventStore, target: &dyn EventStore, at: Position) -> Result<()> {
    if at == Position::ZERO {
        return Ok(());
    }
    let read = LogRead::forward(at).limit(1);
    let (one, other) = (source.read_log(read.clone()).await?, target.read_log(read).await?);
    if one.events.first() == other.events.first() {
        return Ok(());
    }
    let problem = format!("has another event at position {at} than the log that is to be moved");
    Err(Error::from(Invalid::new("store", problem)))
}

/// Takes the events of each append out; those of the last one only if all of them are there.
fn whole_appends(held: &mut Vec<RecordedEvent>, end: bool) -> Vec<Vec<RecordedEvent>> {
    let mut appends: Vec<Vec<RecordedEvent>> = Vec::new();
    for event in held.drain(..) {
        match appends.last_mut() {
            Some(append) if append[0].append == event.append => append.push(event),
            _ => appends.push(vec![event]),
        }
    }
    if !end {
        held.extend(appends.pop().unwrap_or_default());
    }
    appends
}

fn append(events: &[RecordedEvent]) -> Append {
    Append {
        writes: events
            .iter()
            .map(|event| Write { stream: event.stream.clone(), event: event.to_new() })
            .collect(),
        key: events[0].idempotency_key.clone(),
        recorded_at: Some(events[0].recorded_at),
        ..Append::new()
    }
}
