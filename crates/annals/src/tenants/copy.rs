//! Copies the events of a log that the copy does not have yet.

use std::pin::Pin;
use std::task::Poll;

use annals_core::{
    Append, Appended, Clock, Error, EventStore, Invalid, LogPage, LogRead, Position, RecordedEvent, Result,
    Timestamp, Witness, Write,
};

/// Events that are read at once.
const PAGE: usize = 1_000;

/// The clock of a copy: no recorded time is later.
pub(super) struct Unbounded;

impl Clock for Unbounded {
    fn now(&self) -> Timestamp {
        Timestamp::MAX
    }
}

/// Copies the missing events up to this position, and reports the position reached to `told`. A target that
/// extends beyond `up_to` has taken appends since it was complete.
pub(super) async fn copy(
    source: &dyn EventStore,
    target: &dyn EventStore,
    up_to: Position,
    mut report: impl FnMut(Position),
) -> Result<()> {
    let mut copied = target.head().await?;
    same(source, target, copied.min(up_to)).await?;
    report(copied.min(up_to));
    // Each page is of a log that has the events read before it.
    let read = async |from: Position, seen: Witness| -> Result<LogPage> {
        let page = source.read_log_after(LogRead::forward(from).to(up_to).limit(PAGE), seen).await?;
        page.filter(|page| !page.events.is_empty()).ok_or_else(lost)
    };
    let mut seen = match copied < up_to {
        true => Witness::at(target, copied).await?.filter(|_| copied > Position::ZERO),
        false => None,
    }
    .unwrap_or(Witness::origin(source.id()));
    let (mut next, mut held, mut ahead) = (copied.next(), Vec::new(), None);
    while copied < up_to {
        let page = match ahead.take() {
            Some(page) => page,
            None => read(next, seen).await?,
        };
        next = page.next;
        seen = page.events.last().map_or(seen, Witness::of);
        held.extend(page.events);
        let whole = whole_appends(&mut held, page.end);
        let appends = whole.iter().map(|events| target.append(append(events)));
        // The next page is read while this one is written.
        let reading = async { if next > up_to { Ok(None) } else { read(next, seen).await.map(Some) } };
        let (appended, read_ahead) = tokio::join!(in_order(appends.collect()), reading);
        ahead = read_ahead?;
        for (appended, events) in appended.into_iter().zip(&whole) {
            let appended = appended?;
            if appended.first != events[0].position() || appended.duplicate {
                let problem = format!("has the event {} at {}", events[0].position(), appended.first);
                return Err(Invalid::new("the copy", problem).into());
            }
            copied = appended.last;
        }
        report(copied);
    }
    same(source, target, up_to).await
}

/// The error for a log whose history differs from the copied events.
fn lost() -> Error {
    Error::Unavailable("the log that is moved has lost events meanwhile; begin the move again".into())
}

type Appending<'a> = Pin<Box<dyn Future<Output = Result<Appended>> + Send + 'a>>;

/// Submits these appends in order, and waits for all of them.
async fn in_order(mut appends: Vec<Appending<'_>>) -> Vec<Result<Appended>> {
    // Once polled, an append is in the queue of its store, or waits for space there. Unconstrained, because
    // otherwise the runtime could make the task yield between two polls.
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

/// Fails unless both logs have the same event at this position.
async fn same(source: &dyn EventStore, target: &dyn EventStore, at: Position) -> Result<()> {
    if at == Position::ZERO {
        return Ok(());
    }
    let read = LogRead::forward(at).to(at);
    let (one, other) = (source.read_log(read.clone()).await?, target.read_log(read).await?);
    if one.events.first() == other.events.first() {
        return Ok(());
    }
    let problem = format!("has another event at position {at} than the log that is to be moved");
    Err(Error::from(Invalid::new("store", problem)))
}

/// Takes out the events of each append; those of the last append only if it is known to be complete.
fn whole_appends(held: &mut Vec<RecordedEvent>, end: bool) -> Vec<Vec<RecordedEvent>> {
    let mut appends: Vec<Vec<RecordedEvent>> = Vec::new();
    for event in held.drain(..) {
        match appends.last_mut() {
            Some(append) if append[0].append() == event.append() => append.push(event),
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
            .map(|event| Write { stream: event.stream_id(), event: event.to_new() })
            .collect(),
        key: events[0].idempotency_key(),
        recorded_at: Some(events[0].recorded_at()),
        ..Append::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use annals_core::{Expected, MemoryStore, NewEvent, StreamId};
    use annals_testkit::failover::Failover;

    use super::*;

    fn noted() -> Append {
        let event = NewEvent::new("thing.noted", "{}").expect("the name is good");
        Append::to(StreamId::new("thing-1").expect("the name is good"), Expected::Any, [event])
    }

    #[tokio::test]
    async fn a_log_that_loses_events_is_not_copied_to_its_end_and_beyond() {
        for then in [0, 3, 8] {
            let source = Failover::new();
            for _ in 0..10 {
                source.append(noted()).await.expect("it is taken");
            }
            let head = source.head().await.expect("it is read");
            let target = MemoryStore::with(annals_core::Limits::default(), Arc::new(Unbounded));
            copy(&*source, &target, Position::new(6), |_| {}).await.expect("it is copied");
            source.lose(Position::new(4), (0..then).map(|_| noted())).await;
            let copied = tokio::time::timeout(Duration::from_secs(20), copy(&*source, &target, head, |_| {}));
            copied.await.expect("it ends").expect_err("the log has another history");
        }
    }

    #[tokio::test]
    async fn a_log_that_is_read_from_a_replica_that_is_behind_is_copied_to_its_end() {
        let source = Failover::new();
        for _ in 0..10 {
            source.append(noted()).await.expect("it is taken");
        }
        let replica = source.replica(Position::new(6)).await;
        let open: annals_sql::OpenReplica = Arc::new(move || {
            let replica: Arc<dyn EventStore> = replica.clone();
            Box::pin(async move { Ok(replica) })
        });
        let source = annals_sql::Replicated::open(source, open).await.expect("both have one log");
        let target = MemoryStore::with(annals_core::Limits::default(), Arc::new(Unbounded));
        copy(&source, &target, Position::new(10), |_| {}).await.expect("it is copied");
        assert_eq!(target.head().await.expect("it is read"), Position::new(10));
    }

    #[tokio::test]
    async fn a_log_shorter_than_announced_is_an_error() {
        let source = Failover::new();
        for _ in 0..5 {
            source.append(noted()).await.expect("it is taken");
        }
        let target = MemoryStore::with(annals_core::Limits::default(), Arc::new(Unbounded));
        let copied = copy(&*source, &target, Position::new(10), |_| {});
        let copied = tokio::time::timeout(Duration::from_secs(20), copied).await.expect("it ends");
        assert!(matches!(copied, Err(Error::Unavailable(_))), "{copied:?}");
    }
}
