//! The execution of a command: load, decide, append; repeated after a conflict.
//!
//! - A1  The key is looked up before the decision, and an earlier outcome is read by `again`. So a retried
//!   withdrawal returns its first outcome, even if there is no money left by now.
//! - A2  Decided events keep their ids while their append is retried. So an append of unknown outcome can be
//!       sent again (G5).
//! - A3  A refusal is based on a state that was read from the store after the command was received, never on
//!   a cached one alone.
//! - A4  An event that cannot be read back or folded is not written (see `encoded`). If the code of the
//!   aggregate panics, the command fails, and nothing is written.
//! - A5  The condition of the append is the event on which it was decided, not only its version. So nothing
//!   is appended that was decided on lost events, even if other events are at their versions now.
//! - A6  A command with a key ends with its outcome in the log: with events, or with an answer (see
//!       `answer`).
//!
//! Next: `annals_core::EventStore::append`.

use std::time::Duration;

use annals_core::{
    Aggregate, Append, Appended, Backoff, Conflict, Decide, Error, EventId, Expected, KeyReuse, NewEvent,
    StreamId, StreamRead, Version, Violated, Violation,
};

use super::again::Done;
use super::encoded::Encoded;
use super::execute::Mode;
use super::key::Keys;
use super::{Answer, CommandBuilder, Committed, ExecuteError, Refusal};
use crate::HandlerError;
use crate::codec::Beside;
use crate::failure::caught;
use crate::fold::{Folded, LoadError};

/// Pauses between attempts after a conflict.
const AFTER_CONFLICT: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
/// Pauses between attempts while the store is unavailable.
const WHILE_AWAY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

pub(super) struct Attempt<A: Aggregate, C> {
    execute: CommandBuilder<A, C>,
    stream: StreamId,
    keys: Option<Keys>,
    beside: Beside,
    /// Whether the state was read from the store after the command was received.
    looked_up: bool,
    retries_left: u32,
    conflicts: u32,
    failures: u32,
}

/// The append of a decision.
struct Prepared<A: Aggregate> {
    /// The stream of the aggregate, or that of its answers.
    into: StreamId,
    new: Vec<NewEvent>,
    /// The events as read back, and the state after them; `None` for an answer.
    after: Option<(Vec<A::Event>, A)>,
}

/// The result of an append.
enum Sent {
    /// The events of this command are in the log.
    Written(Appended),
    /// An append with the same key was committed before.
    Duplicate(Appended),
    Conflict(Box<Conflict>),
}

impl<A, C> Attempt<A, C>
where
    A: Decide<C>,
    C: Send + Sync + 'static,
{
    pub fn new(execute: CommandBuilder<A, C>) -> Result<Self, ExecuteError<A::Error>> {
        let stream = execute.repository.stream(&execute.id)?;
        let keys = execute.keys(&stream)?;
        let (metadata, occurred_at) = (execute.metadata.clone(), execute.occurred_at);
        let beside = Beside { metadata, occurred_at, tags: execute.tags()? };
        let looked_up = execute.repository.cache.is_none();
        let retries_left = execute.repository.retries;
        Ok(Self { execute, stream, keys, beside, looked_up, retries_left, conflicts: 0, failures: 0 })
    }

    pub async fn run(mut self) -> Done<A, C> {
        let repository = self.execute.repository.clone();
        let _turn = repository.shared.stream_locks.acquire(&self.stream).await;
        let done = self.run_command().await;
        if done.as_ref().is_err_and(|error| !error.is_refusal()) {
            repository.forget(&self.stream);
        }
        done
    }

    async fn run_command(&mut self) -> Done<A, C> {
        if let Some(outcome) = self.earlier_outcome().await? {
            return self.first_answer(outcome).await;
        }
        let mut folded = self.load().await?;
        loop {
            let decided = self.judge(&mut folded).await;
            let Some(Prepared { into, new, after }) = self.prepare(&folded, &decided)? else {
                return Ok(self.committed(folded, decided?).await);
            };
            let last = new.last().map(|event| event.id);
            match self.send(&folded, into, new).await? {
                Sent::Written(appended) => {
                    let Some((read, state)) = after else {
                        return Ok(self.committed(folded, decided?).await);
                    };
                    (folded.state, folded.last) = (state, last);
                    (folded.version, folded.position) = (appended.version(), appended.last);
                    folded.since.get_or_insert(appended.recorded_at);
                    return Ok(self.committed(folded, read).await);
                }
                Sent::Duplicate(outcome) => return self.first_answer(outcome).await,
                Sent::Conflict(conflict) => self.learn(&mut folded, *conflict).await?,
            }
        }
    }

    /// The outcome of an earlier execution of the command, if it has a key.
    async fn earlier_outcome(&mut self) -> Result<Option<Appended>, ExecuteError<A::Error>> {
        let Some(Keys { key, earlier }) = self.keys.clone() else { return Ok(None) };
        let store = self.execute.repository.shared.store.clone();
        let of_earlier = async || match &earlier {
            // An outcome before the cause belongs to another event with the same id.
            Some((key, cause)) => {
                let outcome = store.outcome(key).await?;
                Ok(outcome.filter(|outcome| outcome.first > *cause))
            }
            None => Ok(None),
        };
        loop {
            match tokio::try_join!(store.outcome(&key), of_earlier()) {
                Err(Error::Unavailable(_)) if self.wait().await => {}
                answer => {
                    let (outcome, earlier) = answer?;
                    return Ok(outcome.or(earlier));
                }
            }
        }
    }

    /// The result of the first execution of the command.
    async fn first_answer(&mut self, outcome: Appended) -> Done<A, C> {
        loop {
            match self.execute.first_answer(&self.stream, &outcome).await {
                Err(ExecuteError::Store(Error::Unavailable(_))) if self.wait().await => {}
                done => return done,
            }
        }
    }

    async fn load(&mut self) -> Result<Folded<A>, ExecuteError<A::Error>> {
        let repository = self.execute.repository.clone();
        loop {
            match repository.current(&self.execute.id, &self.stream).await {
                Err(LoadError::Store(Error::Unavailable(_))) if self.wait().await => {}
                answer => return Ok(answer?),
            }
        }
    }

    /// Decides on the command. A decision without events, or a refusal, is returned only for a state that was
    /// read from the store (A3).
    async fn judge(&mut self, folded: &mut Folded<A>) -> Result<Vec<A::Event>, ExecuteError<A::Error>> {
        loop {
            match self.decide(folded) {
                Ok(events) if !events.is_empty() => return Ok(events),
                answer if self.looked_up => return answer,
                _ => self.look_up(folded).await?,
            }
        }
    }

    fn decide(&self, folded: &Folded<A>) -> Result<Vec<A::Event>, ExecuteError<A::Error>> {
        let (stream, actual) = (self.stream.clone(), folded.version);
        let on_another = self.execute.on.is_some_and(|event| folded.last != Some(event));
        if let Some(expected) = self.execute.at.filter(|expected| *expected != actual || on_another) {
            return Err(ExecuteError::Conflict { stream, expected, actual });
        }
        match self.execute.mode {
            Mode::Create if actual > Version::ZERO => return Err(ExecuteError::Exists { stream, actual }),
            Mode::Update if actual == Version::ZERO => return Err(ExecuteError::Missing { stream }),
            _ => {}
        }
        let context = self.execute.context(self.execute.repository.shared.clock.now());
        let decision = caught(|| Ok(folded.state.decide(&self.execute.command, &context)));
        let decision = decision.map_err(|panic| self.panicked(&panic))?;
        decision.map(|events| events.0).map_err(ExecuteError::Rejected)
    }

    /// Applies the events of other writers, or folds the stream again if the log has another history than the
    /// folded one.
    async fn look_up(&mut self, folded: &mut Folded<A>) -> Result<(), ExecuteError<A::Error>> {
        self.looked_up = true;
        let repository = self.execute.repository.clone();
        let store = &*repository.shared.store;
        let same_history = loop {
            // Events applied before the store became unavailable are kept: the next attempt continues after
            // them.
            match folded.catch_up(store, &self.stream, Version::MAX).await {
                Err(LoadError::Store(Error::Unavailable(_))) if self.wait().await => {}
                answer => break answer?,
            }
        };
        if !same_history {
            repository.other_history(&self.stream);
            *folded = self.load().await?;
        }
        Ok(())
    }

    /// The append of this decision: its events, or, if it has none and the command has a key, an answer.
    /// `None` if it appends nothing.
    fn prepare(
        &self,
        folded: &Folded<A>,
        decided: &Result<Vec<A::Event>, ExecuteError<A::Error>>,
    ) -> Result<Option<Prepared<A>>, ExecuteError<A::Error>> {
        let unwritable = |cause| ExecuteError::Unwritable { stream: self.stream.clone(), cause };
        let refusal = match decided {
            Ok(events) if !events.is_empty() => {
                let Encoded { new, read, state } =
                    Encoded::of(&folded.state, events, &self.beside).map_err(unwritable)?;
                return Ok(Some(Prepared { into: self.stream.clone(), new, after: Some((read, state)) }));
            }
            Ok(_) => None,
            Err(ExecuteError::Rejected(refusal)) => Some(refusal),
            Err(_) => return Ok(None),
        };
        if self.keys.is_none() {
            return Ok(None);
        }
        let refusal =
            caught(|| Ok(refusal.map(Refusal::of::<A, C>))).map_err(|panic| self.panicked(&panic))?;
        let answer = Answer::new(&self.stream, folded.version, folded.last, refusal);
        let new = vec![answer.to_new(&self.beside).map_err(unwritable)?];
        Ok(Some(Prepared { into: Answer::stream_of(&self.stream), new, after: None }))
    }

    fn panicked(&self, panic: &HandlerError) -> ExecuteError<A::Error> {
        ExecuteError::Panicked { stream: self.stream.clone(), message: panic.to_string() }
    }

    /// Appends to this stream, on the condition that the newest folded event is still the newest of the
    /// aggregate. Retries while the store is unavailable or the outcome is unknown.
    async fn send(
        &mut self,
        folded: &Folded<A>,
        into: StreamId,
        events: Vec<NewEvent>,
    ) -> Result<Sent, ExecuteError<A::Error>> {
        let last = events[events.len() - 1].id;
        let append = Append::to(&into, Expected::Any, events);
        let mut append = match folded.last {
            Some(last) => append.after_event(&self.stream, folded.version, last),
            None => append.expecting(&self.stream, Expected::NoStream),
        };
        append.key = self.keys.as_ref().map(|keys| keys.key.clone());
        // A retried command may lead to another decision by now, but its key identifies the command.
        append.key_reuse = KeyReuse::Original;
        let store = self.execute.repository.shared.store.clone();
        let mut unknown = None;
        loop {
            let error = match store.append(append.clone()).await {
                Ok(appended) if !appended.duplicate => return Ok(Sent::Written(appended)),
                Ok(appended) if unknown.is_none() => return Ok(Sent::Duplicate(appended)),
                // After an unknown outcome, the duplicate may be of this execution's own first append.
                Ok(appended) => match self.ends_with(&appended, &into, last).await {
                    Ok(true) => return Ok(Sent::Written(appended)),
                    Ok(false) => return Ok(Sent::Duplicate(appended)),
                    Err(error) => error,
                },
                Err(Error::Conflict(conflict)) => return Ok(Sent::Conflict(conflict)),
                Err(error) => error,
            };
            let again = error.is_transient();
            if unknown.is_none() && matches!(error, Error::Indeterminate(_)) {
                unknown = Some(error);
                if self.wait().await {
                    continue;
                }
            } else if again && self.wait().await {
                continue;
            } else if unknown.is_none() {
                return Err(ExecuteError::Store(error));
            }
            // Whatever the error of a later attempt is, the outcome of an earlier one is still unknown.
            return Err(ExecuteError::Store(unknown.expect("it is set in every branch that comes here")));
        }
    }

    /// Whether this event is the last that the append wrote to this stream. It is read from the stream,
    /// because a page of the log may come from a replica that does not have it yet.
    async fn ends_with(&self, appended: &Appended, into: &StreamId, id: EventId) -> Result<bool, Error> {
        let Some((_, version)) = appended.streams.iter().find(|(stream, _)| stream == into) else {
            return Ok(false);
        };
        let read = StreamRead::backward(into, *version).limit(1);
        let page = self.execute.repository.shared.store.read_stream(read).await?;
        Ok(page.events.first().is_some_and(|event| event.version() == *version && event.id() == id))
    }

    /// Applies the missed events after a conflict, unless no retries are left.
    async fn learn(
        &mut self,
        folded: &mut Folded<A>,
        conflict: Conflict,
    ) -> Result<(), ExecuteError<A::Error>> {
        let stale = conflict.is_stale();
        // If the log has lost events, a store may refuse although the stream is as expected: then no folded
        // event is certain, and all of them are read again.
        let (violation, actual) = match stream_violation(conflict, &self.stream) {
            Some((violation, actual)) => (Some(violation), actual),
            None if stale => (None, folded.version),
            None => {
                let cause = "the store reported a violated condition that the append does not have".into();
                return Err(ExecuteError::Store(Error::Internal(cause)));
            }
        };
        if violation.is_none() {
            self.execute.repository.other_history(&self.stream);
        }
        if self.execute.at.is_some() || self.retries_left == 0 {
            let (stream, expected) = (self.stream.clone(), folded.version);
            return Err(ExecuteError::Conflict { stream, expected, actual });
        }
        self.retries_left -= 1;
        self.conflicts += 1;
        if self.conflicts > 1 {
            // The unseen events of the conflict are stale after the pause.
            tokio::time::sleep(AFTER_CONFLICT.before(self.conflicts - 1)).await;
            return self.look_up(folded).await;
        }
        match violation.filter(|violation| violation.violated.is_stale() && violation.unseen_complete) {
            Some(violation) => {
                violation.unseen.iter().try_for_each(|event| folded.take(event)).map_err(Into::into)
            }
            None => self.look_up(folded).await,
        }
    }

    async fn committed(&self, mut folded: Folded<A>, events: Vec<A::Event>) -> Committed<A> {
        self.execute.repository.keep(&self.stream, &mut folded).await;
        let Folded { state, version, position, last: event, .. } = folded;
        Committed { state, version, position, event, events, duplicate: false }
    }

    /// Pauses while the store is unavailable. Returns `false` if no retries are left.
    async fn wait(&mut self) -> bool {
        if self.retries_left == 0 {
            return false;
        }
        self.retries_left -= 1;
        self.failures += 1;
        tokio::time::sleep(WHILE_AWAY.before(self.failures)).await;
        true
    }
}

fn stream_violation(conflict: Conflict, of: &StreamId) -> Option<(Violation, Version)> {
    conflict.violations.into_iter().find_map(|violation| match &violation.violated {
        Violated::Version { stream, actual, .. } | Violated::Newest { stream, actual, .. }
            if stream == of =>
        {
            let actual = *actual;
            Some((violation, actual))
        }
        _ => None,
    })
}
