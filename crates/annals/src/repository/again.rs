//! The first outcome of a command with a key, read from the log for a retry.

use annals_core::{
    Appended, Decide, Error, EventStore as _, Invalid, RecordedEvent, Seen, StreamId, StreamRead, Version,
};

use super::{Answer, CommandBuilder, Committed, ExecuteError};
use crate::codec;
use crate::fold::{Folded, LoadError};

/// The result of a command.
pub(super) type Done<A, C> = Result<Committed<A>, ExecuteError<<A as Decide<C>>::Error>>;

impl<A, C> CommandBuilder<A, C>
where
    A: Decide<C>,
{
    /// The result of the first execution of the command on this stream.
    pub(super) async fn first_answer(&self, stream: &StreamId, outcome: &Appended) -> Done<A, C> {
        match outcome.streams.iter().find(|(written, _)| written == stream) {
            Some(&(_, version)) => self.events_again(stream, outcome, version).await,
            None => self.without_events_again(stream, outcome).await,
        }
    }

    /// The result if the first execution appended an answer.
    async fn without_events_again(&self, of: &StreamId, outcome: &Appended) -> Done<A, C> {
        let repository = &self.repository;
        let answer = match outcome.streams.as_slice() {
            [(stream, version)] if Answer::is_stream(stream) => {
                let stored = self.appended(outcome, stream, *version).await?;
                let answer = codec::parts::<Answer>(&stored[0]).map_err(LoadError::from)?;
                answer.into_iter().find(|answer| answer.stream == *of)
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

    /// The result if the first execution appended events.
    async fn events_again(&self, of: &StreamId, outcome: &Appended, version: Version) -> Done<A, C> {
        let stored = self.appended(outcome, of, version).await?;
        let mut events = Vec::with_capacity(stored.len());
        for stored in &stored {
            events.extend(codec::parts::<A::Event>(stored).map_err(LoadError::from)?);
        }
        let state = self.repository.folded(&self.id, of, version).await?.state;
        let Seen { position, event } = outcome.into();
        Ok(Committed { state, version, position, event, events, duplicate: true })
    }

    /// The events that this append wrote to this stream, the last of which has this version; at least one.
    /// They are read from the stream, because a page of the log may come from a replica that does not have
    /// them yet.
    async fn appended(
        &self,
        outcome: &Appended,
        stream: &StreamId,
        version: Version,
    ) -> Result<Vec<RecordedEvent>, Error> {
        let mut events = Vec::new();
        let mut read = StreamRead::backward(stream, version);
        loop {
            let left = outcome.count().saturating_sub(events.len() as u64);
            let read_now = read.clone().limit(usize::try_from(left).unwrap_or(usize::MAX).clamp(1, 1_000));
            let page = self.repository.shared.store.read_stream(read_now).await?;
            let is_end = page.end || page.events.iter().any(|event| event.position() < outcome.first);
            events.extend(page.events.into_iter().filter(|event| event.position() >= outcome.first));
            if is_end || events.len() as u64 >= outcome.count() {
                break;
            }
            read.from = page.next;
        }
        events.reverse();
        match events.last() {
            Some(last) if last.version() == version && last.position() <= outcome.last => Ok(events),
            _ => {
                let problem =
                    format!("event {version} of stream `{stream}` is another one than a moment ago");
                Err(Error::Unavailable(problem.into()))
            }
        }
    }
}
