//! The first answer, given again: what the key of a command led to, read from the log.

use annals_core::{
    Appended, Decide, Error, Event, EventStore as _, Invalid, LogRead, RecordedEvent, Seen, StreamId, Version,
};

use super::{Answer, Committed, Execute, ExecuteError, Folded, LoadError};

/// What a command comes to.
pub(super) type Done<A, C> = Result<Committed<A>, ExecuteError<<A as Decide<C>>::Error>>;

impl<A, C> Execute<A, C>
where
    A: Decide<C>,
{
    /// What the command for this stream led to the first time.
    pub(super) async fn first_answer(&self, stream: &StreamId, outcome: Appended) -> Done<A, C> {
        match outcome.streams.iter().find(|(written, _)| written == stream) {
            Some(&(_, version)) => self.events_again(stream, outcome, version).await,
            None => self.without_events_again(stream, &outcome).await,
        }
    }

    /// The answer, if it led to one.
    async fn without_events_again(&self, of: &StreamId, outcome: &Appended) -> Done<A, C> {
        let repository = &self.repository;
        let answer = match outcome.streams.as_slice() {
            [(stream, _)] if Answer::is_stream(stream) => {
                let page = repository.shared.store.read_log(LogRead::forward(outcome.first).limit(1)).await?;
                let Some(stored) = page.events.first() else {
                    let problem = format!("the event at position {} cannot be read yet", outcome.first);
                    return Err(Error::Unavailable(problem.into()).into());
                };
                Some(read::<Answer>(stored)?).filter(|answer| answer.stream == *of)
            }
            _ => None,
        };
        let Some(Answer { stream, version, refusal, .. }) = answer else {
            let problem = format!("was used for another stream than `{of}`");
            return Err(Invalid::new("idempotency key", problem).into());
        };
        if let Some(refusal) = refusal {
            return Err(ExecuteError::RefusedBefore { stream, refusal });
        }
        let folded = repository.folded(&self.id, of, version).await?;
        let Folded { state, version, position, last: event, .. } = folded;
        Ok(Committed { state, version, position, event, events: Vec::new(), duplicate: true })
    }

    /// The events that it led to.
    async fn events_again(&self, of: &StreamId, outcome: Appended, version: Version) -> Done<A, C> {
        let repository = &self.repository;
        let mut events = Vec::new();
        let mut from = outcome.first;
        while from <= outcome.last {
            let left = usize::try_from(outcome.last.get() - from.get() + 1).unwrap_or(usize::MAX);
            let page =
                repository.shared.store.read_log(LogRead::forward(from).limit(left.min(1_000))).await?;
            for stored in page.events.iter().filter(|stored| stored.stream == *of) {
                if stored.position <= outcome.last {
                    events.push(read::<A::Event>(stored)?);
                }
            }
            if page.next <= from {
                break;
            }
            from = page.next;
        }
        let state = repository.folded(&self.id, of, version).await?.state;
        let Seen { position, event } = (&outcome).into();
        Ok(Committed { state, version, position, event, events, duplicate: true })
    }
}

fn read<E: Event>(stored: &RecordedEvent) -> Result<E, LoadError> {
    E::decode(stored.event_type.as_str(), stored.schema_version, &stored.data).map_err(|cause| {
        LoadError::Unreadable {
            stream: stored.stream.clone(),
            version: stored.version,
            position: stored.position,
            cause,
        }
    })
}
