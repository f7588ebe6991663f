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
    let read = async |from: Position| source.read_log(LogRead::forward(from).limit(PAGE)).await;
    let (mut next, mut held, mut ahead) = (copied.next(), Vec::new(), None);
    while copied < up_to {
        let page = match ahead.take() {
            Some(page) => page,
            None => read(next).await?,
        };
        next = page.next;
        held.extend(page.events);
        let whole = whole_appends(&mut held, page.end);
        let appends = whole.iter().map(|events| target.append(append(events)));
        // What comes next is read while this is written.
        let reading = async { if next > up_to { Ok(None) } else { read(next).await.map(Some) } };
        let (appended, read_ahead) = tokio::join!(in_order(appends.collect()), reading);
        ahead = read_ahead?;
        for (appended, events) in appended.into_iter().zip(&whole) {
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
    // An append is in the queue of its store, or waits for room there, once it was polled: unless the runtime has the task
    // yield in the middle.
    let handed_in = tokio::task::unconstrained(std::future::poll_fn(|context| {
        let poll = |append: &mut Appending<'_>| append.as_mut().poll(context);
        Poll::Ready(appends.iter_mut().map(poll).collect::<Vec<_>>())
    }));
    let mut answers = Vec::new();
    for (answer, append) in handed_in.await.into_iter().zip(appends) {
        answers.push(match answer {
            Poll::Ready(answer) => answer,
            Poll::Pending => append.await,
        });
    }
    answers
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
