//! The committer: gathers the appends that came in while the last group was committed, and writes them
//! together.
//!
//! - K1  A group shares a transaction, not a fate: if the reason for which it is not written may be one of
//!       its appends, it is divided until that append is alone, and only that one gets the error.
//! - K2  Of an append that came in before the log was found to have lost events, a condition that names a
//!       version or a position is violated, unless the append is in the log already: what it was decided on
//!       may be gone.
//! - K3  Once every caller of a group has gone, what the database does for it is ended.
//!
//! One task a store, one connection. It ends when the store is dropped, after what came in before. Appends of
//! other processes meet its own at the lock of the log, nowhere else. Next below: `stage`.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{
    Append, Appended, Clock, Condition, Conflict, Error, EventStore, IdempotencyKey, LogRead, Position,
    QueryItem, RecordedEvent, Result, Witness, Write,
};
use annals_state::{InlineProjection, Inlines};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::inline::{self, Undone};
use crate::stage::Outcome;
use crate::writer::Writer;
use crate::{Batch, Database, Failure, Lineage, Pending, Progress, Staged, Tail};

/// Most appends of a group.
const GROUP_APPENDS_MAX: usize = 1_024;
/// A group has no more than this many bytes, unless one append has.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// A group has no more names in the queries of its conditions than this, unless one append has: they are
/// looked up under the lock of the log.
const GROUP_NAMES_MAX: usize = 1_024;
/// What an event takes beside what is counted.
const EVENT_BYTES: usize = 512;
/// How often the name of a stream is written with an event, at the most.
const STREAM_TIMES: usize = 5;
/// What a tag takes beside its name, which is written twice.
const TAG_BYTES: usize = 32;
/// Bytes of appends that may wait. A larger append waits until nothing else does.
const QUEUE_KIB: u32 = 256 << 10;

/// Carries out the appends of one store. Dropped, it finishes what was handed to it.
pub struct Committer {
    queue: mpsc::UnboundedSender<Request>,
    lineage: Arc<Lineage>,
    room: Arc<Semaphore>,
    task: JoinHandle<()>,
}

struct Request {
    append: Arc<Append>,
    kib: u32,
    /// Names in the queries of its conditions.
    names: usize,
    /// How often the log was known to have lost events when it came in.
    losses: u64,
    answer: oneshot::Sender<Result<Answer, Failure>>,
    _permit: OwnedSemaphorePermit,
}

/// What the caller of an append gets.
enum Answer {
    Written(Appended),
    Other(Outcome),
}

impl Committer {
    /// Starts to commit appends to this database, in a task of the runtime that this is called on; with the
    /// rows of the projections that are registered here. A group has at most `group_bytes_max` bytes
    /// ([`weight`]), unless one append has more.
    pub fn start(
        database: impl Database,
        clock: Arc<dyn Clock>,
        progress: Progress,
        inlines: Inlines,
        group_bytes_max: usize,
    ) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        let kib_max = u32::try_from(group_bytes_max >> 10).unwrap_or(u32::MAX);
        let lineage = database.lineage().clone();
        let task = tokio::spawn(run(Writer::new(database), clock, progress, inlines, requests, kib_max));
        Self { queue, lineage, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)), task }
    }

    /// Carries out an append that passed [`Append::validate`]. `store` answers what has to be read of the log
    /// once it is known what became of the append.
    ///
    /// # Errors
    /// As [`EventStore::append`].
    pub async fn append<S: EventStore>(&self, store: &S, append: Append) -> Result<Appended> {
        let append = Arc::new(append);
        let losses = self.lineage.losses();
        match self.submit(append.clone(), losses).await? {
            Answer::Written(appended) => Ok(appended),
            Answer::Other(outcome) => answer(store, &append, outcome).await,
        }
    }

    /// Finishes what was handed in and ends. Appends that come later are refused.
    pub async fn close(self) {
        drop(self.queue);
        if self.task.await.is_err() {
            tracing::error!("the committer has panicked");
        }
    }

    async fn submit(&self, append: Arc<Append>, losses: u64) -> Result<Answer> {
        let kib = kib(&append);
        let permit = self.room.clone().acquire_many_owned(kib).await;
        let permit = permit.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        let names = names(&append);
        let request = Request { append, kib, names, losses, answer, _permit: permit };
        self.queue.send(request).map_err(|_| Error::Closed)?;
        let answered = answered.await;
        let answered =
            answered.map_err(|_| Error::Indeterminate("the store was closed before it answered".into()))?;
        Ok(answered?)
    }
}

/// Bytes that an append takes on its way to the database, or less.
pub fn weight(append: &Append) -> usize {
    let conditions = append.conditions.iter().map(|condition| match condition {
        Condition::Version { stream, .. } | Condition::Newest { stream, .. } => {
            STREAM_TIMES * stream.as_str().len()
        }
        _ => 0,
    });
    let key = append.key.as_ref().map_or(0, |key| key.as_str().len());
    conditions.chain(append.writes.iter().map(weight_of_event)).sum::<usize>() + key
}

fn weight_of_event(write: &Write) -> usize {
    let (event, metadata) = (&write.event, &write.event.metadata);
    let tags = event.tags.iter().map(|tag| in_json(tag.as_str()) + tag.as_str().len() + TAG_BYTES);
    let own = metadata.own.iter().map(|(key, value)| in_json(key) + in_json(value) + TAG_BYTES);
    let named = [&metadata.process, &metadata.initiator, &metadata.predecessor, &metadata.trace];
    let named = named.into_iter().flatten().map(|text| text.len());
    let names = STREAM_TIMES * write.stream.as_str().len();
    event.data.len() + EVENT_BYTES + names + tags.chain(own).chain(named).sum::<usize>()
}

/// How many names are in the queries of an append's conditions.
fn names(append: &Append) -> usize {
    let queries = append.conditions.iter().filter_map(|condition| match condition {
        Condition::NoMatch { query, .. } => Some(&query.items),
        _ => None,
    });
    let of_item = |item: &QueryItem| {
        let single = [
            item.category.is_some(),
            item.process.is_some(),
            item.initiator.is_some(),
            item.id.is_some(),
            item.predecessor.is_some(),
        ];
        item.types.len() + item.tags.len() + single.into_iter().filter(|is_there| *is_there).count()
    };
    queries.flatten().map(of_item).sum()
}

/// How long a text is in JSON.
fn in_json(text: &str) -> usize {
    let long = |byte| match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    text.bytes().map(long).sum()
}

fn kib(append: &Append) -> u32 {
    u32::try_from(weight(append) >> 10).unwrap_or(u32::MAX).clamp(1, QUEUE_KIB)
}

/// Reads what the answer to an append says beside what became of it.
async fn answer<S: EventStore>(store: &S, append: &Append, outcome: Outcome) -> Result<Appended> {
    match outcome {
        Outcome::Keyed(first) => {
            let key = append.key.as_ref().expect("it was found by its key");
            let outcome = outcome_at(store, first, key).await?;
            let lost = || Error::Unavailable("the log has lost events since the key was found in it".into());
            outcome.ok_or_else(lost)?.checked(store, append).await
        }
        Outcome::Repeated(first) => {
            let events = events(store, first, append.writes.len()).await?;
            Appended::of(&events, true).checked(store, append).await
        }
        Outcome::Invalid(invalid) => Err(invalid.into()),
        Outcome::Refused(violated) => {
            let conflict = Conflict::explain(store, &append.conditions, violated).await?;
            Err(Error::Conflict(Box::new(conflict)))
        }
        Outcome::Written { .. } => unreachable!("what was written is answered by the committer"),
    }
}

/// Events that are read at once to see how far an append goes: most have few.
const OUTCOME_EVENTS: usize = 16;

/// The outcome of the append that was found by this key to begin at this position, marked as a duplicate.
/// `None` if the log has lost it since, and has another one there or none.
///
/// # Errors
/// As the store's reads.
pub async fn outcome_at<S: EventStore>(
    store: &S,
    first: Position,
    key: &IdempotencyKey,
) -> Result<Option<Appended>> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    loop {
        let read = LogRead::forward(first.plus(events.len() as u64)).limit(OUTCOME_EVENTS);
        let mut page = store.read_log(read).await?;
        let of_append = page.events.iter().take_while(|event| event.append() == first).count();
        let ended = page.end || of_append < page.events.len();
        page.events.truncate(of_append);
        let is_first = events.is_empty();
        events.extend(page.events);
        let Some(begin) = events.first().filter(|begin| begin.idempotency_key().as_ref() == Some(key)) else {
            return Ok(None);
        };
        // After the page was read, so that it is of the history of the pages before.
        if !is_first && !Witness::of(begin).holds(store).await? {
            return Ok(None);
        }
        if ended {
            return Ok(Some(Appended::of(&events, true)));
        }
    }
}

/// That many events from this position on, in as many pages as it takes.
async fn events<S: EventStore>(store: &S, first: Position, count: usize) -> Result<Vec<RecordedEvent>> {
    let mut events: Vec<RecordedEvent> = Vec::with_capacity(count);
    while events.len() < count {
        let next = first.plus(events.len() as u64);
        let page = store.read_log(LogRead::forward(next).limit(count - events.len())).await?;
        if page.events.is_empty() {
            return Err(Error::Unavailable(format!("the event at position {next} is not there").into()));
        }
        events.extend(page.events);
    }
    Ok(events)
}

async fn run(
    mut writer: Writer<impl Database>,
    clock: Arc<dyn Clock>,
    progress: Progress,
    inlines: Inlines,
    mut requests: mpsc::UnboundedReceiver<Request>,
    kib_max: u32,
) {
    let mut first = requests.recv().await;
    while let Some(request) = first.take() {
        let (mut group, mut kib, mut names) = (Vec::new(), 0, 0);
        let mut next = Some(request);
        while let Some(request) = next.take() {
            let is_too_much = kib + request.kib > kib_max || names + request.names > GROUP_NAMES_MAX;
            if !group.is_empty() && is_too_much {
                first = Some(request);
                break;
            }
            // Appends whose callers no longer wait are not written.
            if !request.answer.is_closed() {
                kib += request.kib;
                names += request.names;
                group.push(request);
            }
            if group.len() < GROUP_APPENDS_MAX {
                next = requests.try_recv().ok();
            }
        }
        execute(&mut writer, &*clock, &progress, &inlines.all(), group).await;
        if first.is_none() {
            first = requests.recv().await;
        }
    }
}

/// Writes a group and answers its requests. A group that fails is divided as long as one of its appends may
/// be the reason.
async fn execute(
    writer: &mut Writer<impl Database>,
    clock: &dyn Clock,
    progress: &Progress,
    inlines: &[Arc<dyn InlineProjection>],
    group: Vec<Request>,
) {
    let mut groups = VecDeque::from([group]);
    while let Some(mut group) = groups.pop_front() {
        group.retain(|request| !request.answer.is_closed());
        if group.is_empty() {
            continue;
        }
        let appends: Vec<_> = group.iter().map(|request| (request.append.clone(), request.losses)).collect();
        let batch = batch(&appends, writer.lineage());
        let written = tokio::select! {
            written = write(writer, clock, &batch, inlines) => written,
            () = all_gone(&mut group) => {
                writer.close();
                continue;
            }
        };
        match written {
            Ok(written) => respond(group, Ok(written), progress),
            Err(Undone::Failed(Failure::Lost(event))) => {
                writer.lineage().lost(event);
                groups.push_front(group);
            }
            // The conditions of one append may need more than a query may use. They would in either half too,
            // so appends with conditions are written alone.
            Err(Undone::Failed(Failure::Exhausted(_)))
                if group.len() > 1 && group.iter().any(|request| request.names > 0) =>
            {
                let (asking, others): (Vec<_>, Vec<_>) =
                    group.into_iter().partition(|request| request.names > 0);
                for request in asking.into_iter().rev() {
                    groups.push_front(vec![request]);
                }
                groups.push_front(others);
            }
            Err(undone) if group.len() > 1 && undone.may_be_of_one() => {
                let rest = group.split_off(group.len() / 2);
                groups.push_front(rest);
                groups.push_front(group);
            }
            Err(Undone::Failed(failure)) => respond(group, Err(failure), progress),
            Err(Undone::Refused(problem)) => {
                for request in group {
                    let _ = request.answer.send(Ok(Answer::Other(Outcome::Invalid(problem.clone()))));
                }
            }
        }
    }
}

/// These appends, each with the losses that were known when it came in, as they are to be judged now. What is
/// known of the log is looked up once: a loss that is found while the batch is written takes the known event,
/// so the batch is judged again.
fn batch<'a>(appends: &'a [(Arc<Append>, u64)], lineage: &Lineage) -> Batch<'a> {
    let known = lineage.now();
    let pending =
        |(append, losses): &'a (Arc<Append>, u64)| Pending { append, lost: known.lost_since(*losses) };
    Batch { appends: appends.iter().map(pending).collect(), known: known.newest, log: lineage.id() }
}

/// Waits until no caller of the group waits for an answer.
async fn all_gone(group: &mut [Request]) {
    for request in group {
        request.answer.closed().await;
    }
}

/// Answers all requests of a group.
fn respond(group: Vec<Request>, written: Result<(Staged<'_>, Tail), Failure>, progress: &Progress) {
    // Sending fails if the caller no longer waits; that is not an error.
    match written {
        Ok((staged, tail)) => {
            progress.passed(tail.position.plus(staged.events.len() as u64));
            let answers = staged.answers(&tail);
            for (request, answer) in group.into_iter().zip(answers) {
                let _ = request.answer.send(Ok(answer));
            }
        }
        Err(failure) => {
            for request in group {
                let _ = request.answer.send(Err(failure.clone()));
            }
        }
    }
}

impl Staged<'_> {
    fn answers(self, tail: &Tail) -> Vec<Answer> {
        let outcomes = self.outcomes().to_vec();
        let answer = |outcome| match outcome {
            Outcome::Written { start, count } => Answer::Written(self.appended(start, count, tail)),
            other => Answer::Other(other),
        };
        outcomes.into_iter().map(answer).collect()
    }
}

/// Judges the group on what is assumed and writes it; if that is not so, judges it again on what is so, under
/// the lock.
async fn write<'a>(
    writer: &mut Writer<impl Database>,
    clock: &dyn Clock,
    batch: &Batch<'a>,
    inlines: &[Arc<dyn InlineProjection>],
) -> Result<(Staged<'a>, Tail), Undone> {
    if !inlines.is_empty() {
        return inline::write(writer, clock, batch, inlines).await;
    }
    if let Some(staged) = Staged::assuming(batch, clock.now())
        && let Some(tail) = writer.write(&staged).await?
    {
        return Ok((staged, tail));
    }
    let (staged, tail) = writer.begin_locked(clock, batch).await?;
    if staged.events.is_empty() {
        writer.undo().await;
    } else {
        writer.finish(&staged, &tail).await?;
    }
    Ok((staged, tail))
}
