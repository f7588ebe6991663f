//! A command on its way: load, decide, append; and again if others were faster.
//!
//! - A1  The key is looked up before anything is decided. So a withdrawal that is sent again is answered with
//!   what it led to, even when there is no money left by now.
//! - A2  Events that were decided once keep their ids while their append is repeated. So an append whose outcome
//!   is unknown can be sent again (G5).
//! - A3  A refusal is given on a state that was looked up in the store after the command came in, never on a
//!   cached one alone.
//! - A4  What cannot be read back is not written, and the state goes on with what was read back: so it is what a
//!   replay makes of the log, also where a codec loses something (a skipped field, `Some(NaN)` as `null`).
//!
//! Next: `annals_core::EventStore::append`.

use std::time::Duration;

use annals_core::{
    Aggregate, Append, Appended, Backoff, CodecError, Conflict, Decide, Error, Event, EventId, Expected,
    IdempotencyKey, LogRead, NewEvent, RecordedEvent, StreamId, Tag, Version, Violated, Violation,
};

use super::execute::Mode;
use super::{Committed, Execute, ExecuteError, Folded, LoadError};

/// Between attempts after others were faster.
const AFTER_CONFLICT: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
/// Between attempts while the store is away.
const WHILE_AWAY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

pub(super) struct Attempt<A: Aggregate, C> {
    execute: Execute<A, C>,
    stream: StreamId,
    key: Option<IdempotencyKey>,
    tags: Vec<Tag>,
    /// Whether the state at hand was looked up in the store after the command came in.
    looked_up: bool,
    retries_left: u32,
    conflicts: u32,
    failures: u32,
}

/// What an append came to.
enum Sent {
    /// Our events are in the log.
    Written(Appended),
    /// An append with the same key was carried out before.
    Duplicate(Appended),
    Conflict(Box<Conflict>),
}

/// Events as they are stored, and as they are read back.
type Encoded<A> = (Vec<NewEvent>, Vec<<A as Aggregate>::Event>);

type Answer<A, C> = Result<Committed<A>, ExecuteError<<A as Decide<C>>::Error>>;

impl<A, C> Attempt<A, C>
where
    A: Decide<C>,
    C: Send + Sync + 'static,
{
    pub fn new(execute: Execute<A, C>) -> Result<Self, ExecuteError<A::Error>> {
        let stream = StreamId::of(A::NAME, &execute.id)?;
        let key = execute.key()?.map(|key| scoped(&stream, &key)).transpose()?;
        let tags = execute.tags()?;
        let looked_up = execute.repository.cache.is_none();
        let retries_left = execute.repository.retries;
        Ok(Self { execute, stream, key, tags, looked_up, retries_left, conflicts: 0, failures: 0 })
    }

    pub async fn run(mut self) -> Answer<A, C> {
        let repository = self.execute.repository.clone();
        let _turn = repository.shared.turns.take(&self.stream).await;
        let done = self.carry_out().await;
        if !matches!(done, Ok(_) | Err(ExecuteError::Rejected(_))) {
            repository.forget(&self.stream);
        }
        done
    }

    async fn carry_out(&mut self) -> Answer<A, C> {
        if let Some(outcome) = self.earlier_outcome().await? {
            return self.answer_again(outcome).await;
        }
        let mut folded = self.load().await?;
        loop {
            let events = self.judge(&mut folded).await?;
            if events.is_empty() {
                return Ok(self.committed(folded, events).await);
            }
            let (new_events, events) = self.encode(&events)?;
            let last = new_events.last().map(|event| event.id);
            match self.send(folded.version, new_events).await? {
                Sent::Written(appended) => {
                    for event in &events {
                        folded.state.evolve(event);
                    }
                    (folded.version, folded.position, folded.last) =
                        (appended.version(), appended.last, last);
                    folded.since.get_or_insert(appended.recorded_at);
                    return Ok(self.committed(folded, events).await);
                }
                Sent::Duplicate(outcome) => return self.answer_again(outcome).await,
                Sent::Conflict(conflict) => self.learn(&mut folded, *conflict).await?,
            }
        }
    }

    /// What the command led to before, if it has a key and was carried out.
    async fn earlier_outcome(&mut self) -> Result<Option<Appended>, ExecuteError<A::Error>> {
        let Some(key) = self.key.clone() else { return Ok(None) };
        let store = self.execute.repository.shared.store.clone();
        loop {
            match store.outcome(&key).await {
                Err(Error::Unavailable(_)) if self.wait().await => {}
                answer => return Ok(answer?),
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

    /// What the command leads to. Whatever is not a change is said of a state that was looked up only.
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
        if let Some(expected) = self.execute.at.filter(|expected| *expected != actual) {
            return Err(ExecuteError::Conflict { stream, expected, actual });
        }
        match self.execute.mode {
            Mode::Create if actual > Version::ZERO => return Err(ExecuteError::Exists { stream, actual }),
            Mode::Update if actual == Version::ZERO => return Err(ExecuteError::Missing { stream }),
            _ => {}
        }
        let context = self.execute.context(self.execute.repository.shared.clock.now());
        let decision = folded.state.decide(&self.execute.command, &context);
        decision.map(|events| events.0).map_err(ExecuteError::Rejected)
    }

    /// Takes what others wrote since; or everything anew, if the stream is shorter than what was folded.
    async fn look_up(&mut self, folded: &mut Folded<A>) -> Result<(), ExecuteError<A::Error>> {
        self.looked_up = true;
        let repository = self.execute.repository.clone();
        let store = &*repository.shared.store;
        let actual = loop {
            // What was taken before the store went away is taken once: the rest follows on it.
            match folded.catch_up(store, &self.stream, Version::MAX).await {
                Err(LoadError::Store(Error::Unavailable(_))) if self.wait().await => {}
                answer => break answer?,
            }
        };
        if actual < folded.version {
            repository.forget(&self.stream);
            *folded = repository.folded(&self.execute.id, &self.stream, Version::MAX).await?;
        }
        Ok(())
    }

    fn encode(&self, events: &[A::Event]) -> Result<Encoded<A>, ExecuteError<A::Error>> {
        let encode = |event| self.encode_one(event);
        let encoded: Result<_, _> = events.iter().map(encode).collect();
        encoded.map_err(|cause| ExecuteError::Unwritable { stream: self.stream.clone(), cause })
    }

    fn encode_one(&self, event: &A::Event) -> Result<(NewEvent, A::Event), CodecError> {
        let (event_type, data) = (event.event_type(), event.encode()?);
        // JSON writes some values that it cannot read, such as a number that is none.
        let read_back = A::Event::decode(event_type, event.schema_version(), &data)?;
        let mut new = NewEvent::new(event_type, data).map_err(|invalid| CodecError::Encode {
            event_type: event_type.to_owned(),
            cause: Box::new(invalid),
        })?;
        new.schema_version = event.schema_version();
        new.metadata = self.execute.metadata.clone();
        new.occurred_at = self.execute.occurred_at;
        for tag in event.tags()?.into_iter().chain(self.tags.iter().cloned()) {
            new = new.with_tag(tag);
        }
        Ok((new, read_back))
    }

    /// Appends, and does so again while the store is away or does not know what became of it.
    async fn send(
        &mut self,
        version: Version,
        events: Vec<NewEvent>,
    ) -> Result<Sent, ExecuteError<A::Error>> {
        let first = events[0].id;
        let mut append = Append::to(&self.stream, Expected::Exact(version), events);
        append.key.clone_from(&self.key);
        let store = self.execute.repository.shared.store.clone();
        let mut unknown = None;
        loop {
            let error = match store.append(append.clone()).await {
                Ok(appended) if !appended.duplicate => return Ok(Sent::Written(appended)),
                Ok(appended) if unknown.is_none() => return Ok(Sent::Duplicate(appended)),
                // After an unknown outcome, the first append may turn out to be our own.
                Ok(appended) => match self.begins_with(&appended, first).await {
                    Ok(true) => return Ok(Sent::Written(appended)),
                    Ok(false) => return Ok(Sent::Duplicate(appended)),
                    Err(error) => error,
                },
                Err(Error::Conflict(conflict)) => return Ok(Sent::Conflict(conflict)),
                Err(error) => error,
            };
            let again = matches!(error, Error::Unavailable(_) | Error::Indeterminate(_));
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
            // Whatever a later attempt met, the outcome of an earlier one is still unknown.
            return Err(ExecuteError::Store(unknown.expect("it is set in every branch that comes here")));
        }
    }

    async fn begins_with(&self, appended: &Appended, id: EventId) -> Result<bool, Error> {
        let read = LogRead::forward(appended.first).limit(1);
        let page = self.execute.repository.shared.store.read_log(read).await?;
        Ok(page.events.first().is_some_and(|event| event.id == id))
    }

    /// Takes the events that were missed, unless it is enough.
    async fn learn(
        &mut self,
        folded: &mut Folded<A>,
        conflict: Conflict,
    ) -> Result<(), ExecuteError<A::Error>> {
        let is_lost = |violation: &Violation| matches!(violation.violated, Violated::History { .. });
        if conflict.violations.iter().any(is_lost) {
            return self.start_over(folded).await;
        }
        let Some((violation, actual)) = stream_violation(conflict, &self.stream) else {
            let cause = "the store refused a condition that was not asked for".into();
            return Err(ExecuteError::Store(Error::Unavailable(cause)));
        };
        if self.execute.at.is_some() || self.retries_left == 0 {
            let (stream, expected) = (self.stream.clone(), folded.version);
            return Err(ExecuteError::Conflict { stream, expected, actual });
        }
        self.retries_left -= 1;
        self.conflicts += 1;
        if self.conflicts > 1 {
            // What came with the conflict is old after the wait.
            tokio::time::sleep(AFTER_CONFLICT.before(self.conflicts - 1)).await;
            return self.look_up(folded).await;
        }
        if violation.violated.is_stale() && violation.unseen_complete {
            for event in &violation.unseen {
                folded.take(event)?;
            }
            Ok(())
        } else {
            self.look_up(folded).await
        }
    }

    /// Loads the aggregate again, after the log has lost events that may be in the state at hand.
    async fn start_over(&mut self, folded: &mut Folded<A>) -> Result<(), ExecuteError<A::Error>> {
        let repository = self.execute.repository.clone();
        repository.forget(&self.stream);
        let expected = folded.version;
        *folded = repository.folded(&self.execute.id, &self.stream, Version::MAX).await?;
        self.looked_up = true;
        if self.execute.at.is_some() || self.retries_left == 0 {
            let (stream, actual) = (self.stream.clone(), folded.version);
            return Err(ExecuteError::Conflict { stream, expected, actual });
        }
        self.retries_left -= 1;
        Ok(())
    }

    async fn committed(&self, mut folded: Folded<A>, events: Vec<A::Event>) -> Committed<A> {
        self.execute.repository.keep(&self.stream, &mut folded).await;
        let Folded { state, version, position, .. } = folded;
        Committed { state, version, position, events, duplicate: false }
    }

    /// What the command led to the first time.
    async fn answer_again(&self, outcome: Appended) -> Answer<A, C> {
        let repository = &self.execute.repository;
        let written = outcome.streams.iter().find(|(stream, _)| *stream == self.stream);
        let Some(&(_, version)) = written else {
            let problem = format!("was used for another stream than `{}`", self.stream);
            return Err(annals_core::Invalid::new("idempotency key", problem).into());
        };
        let mut events = Vec::new();
        let mut from = outcome.first;
        while from <= outcome.last {
            let left = usize::try_from(outcome.last.get() - from.get() + 1).unwrap_or(usize::MAX);
            let page =
                repository.shared.store.read_log(LogRead::forward(from).limit(left.min(1_000))).await?;
            for stored in page.events.iter().filter(|stored| stored.stream == self.stream) {
                if stored.position <= outcome.last {
                    events.push(read::<A>(stored)?);
                }
            }
            if page.next <= from {
                break;
            }
            from = page.next;
        }
        let state = repository.folded(&self.execute.id, &self.stream, version).await?.state;
        Ok(Committed { state, version, position: outcome.last, events, duplicate: true })
    }

    /// Waits for the store to come back, unless it is enough.
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

/// The caller's key, bound to the aggregate. The characters that could blur the border are escaped.
fn scoped(stream: &StreamId, key: &str) -> Result<IdempotencyKey, annals_core::Invalid> {
    let stream = stream.as_str().replace('%', "%25").replace('/', "%2F");
    IdempotencyKey::new(format!("{stream}/{key}"))
}

fn stream_violation(conflict: Conflict, of: &StreamId) -> Option<(Violation, Version)> {
    conflict.violations.into_iter().find_map(|violation| match &violation.violated {
        Violated::Version { stream, actual, .. } if stream == of => {
            let actual = *actual;
            Some((violation, actual))
        }
        _ => None,
    })
}

fn read<A: Aggregate>(stored: &RecordedEvent) -> Result<A::Event, LoadError> {
    A::Event::decode(stored.event_type.as_str(), stored.schema_version, &stored.data).map_err(|cause| {
        LoadError::Unreadable {
            stream: stored.stream.clone(),
            version: stored.version,
            position: stored.position,
            cause,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_streams_never_meet() {
        let key = |stream: &str, key| scoped(&StreamId::new(stream).unwrap(), key).unwrap();
        assert_eq!(key("account-a1", "request-1").as_str(), "account-a1/request-1");
        assert_ne!(key("account-a/b", "c"), key("account-a", "b/c"));
        assert_ne!(key("account-a%2Fb", "c"), key("account-a/b", "c"));
    }
}
