//! Changes several aggregates in one append, so that all changes are written or none.
//!
//! Normally one command changes one aggregate. If a change involves several, first consider whether they are
//! one aggregate, or whether it is two steps. If it is neither, each aggregate decides on
//! its own state, and the append is refused if one of them has changed since:
//!
//! ```text
//! let mut together = Together::new(&annals, "register", caller);
//! together.decide::<Member, _>(&id, &register).await?;
//! together.decide::<MailAddress, _>(&digest, &claim).await?;
//! together.commit().await?                             // if it is stale: decide again
//! ```

use annals::contract::Condition;
use annals::{
    Annals, Append, Appended, Clock, CodecError, Context, Decide, Error, Event, ExecuteError, Expected,
    IdempotencyKey, Metadata, NewEvent, StreamId, SystemClock,
};

use crate::http::Caller;

/// The number of attempts in case of conflicts.
pub(crate) const ATTEMPTS: u32 = 16;

/// Decisions to append together.
pub(crate) struct Together<'a> {
    annals: &'a Annals,
    caller: &'a Caller,
    append: Append,
}

/// The outcome of the decisions.
pub(crate) enum Outcome {
    /// They are in the log, or were before.
    Written(Appended),
    /// One of the aggregates has changed: decide again.
    Stale,
    /// There are no events to append.
    Nothing,
}

impl<'a> Together<'a> {
    /// Starts without decisions. `scope` distinguishes the caller's key from the same key in other
    /// operations.
    pub fn new(annals: &'a Annals, scope: &str, caller: &'a Caller) -> Result<Self, Error> {
        let mut append = Append::new();
        if let Some(key) = &caller.key {
            append.key = Some(IdempotencyKey::new(format!("{scope}/{key}"))?);
        }
        Ok(Self { annals, caller, append })
    }

    /// The earlier outcome, if the caller's key has been used.
    pub async fn before(&self) -> Result<Option<Appended>, Error> {
        match &self.append.key {
            Some(key) => self.annals.store().outcome(key).await,
            None => Ok(None),
        }
    }

    /// Adds the decision of an aggregate, at most once for each. Returns the state on which it decided.
    pub async fn decide<A, C>(&mut self, id: &str, command: &C) -> Result<A, ExecuteError<A::Error>>
    where
        A: Decide<C>,
    {
        let loaded = self.annals.repository::<A>().load(id).await?;
        let stream = StreamId::of(A::NAME, id)?;
        assert!(!self.has_decided(&stream), "an aggregate decides once, as its state does not move on");
        let mut context = Context::at(SystemClock.now());
        context.initiator = self.caller.by.as_deref().map(Into::into);
        let decided = loaded.state.decide(command, &context).map_err(ExecuteError::Rejected)?;
        // Folded before the append, because an event cannot be removed from the log.
        let (mut after, mut events) = (loaded.state.clone(), Vec::new());
        for event in &decided.0 {
            let (new, read) = self
                .encode(event)
                .map_err(|cause| ExecuteError::Unwritable { stream: stream.clone(), cause })?;
            after.evolve(&read);
            events.push(new);
        }
        // An aggregate without events must be unchanged too.
        let append = std::mem::take(&mut self.append);
        self.append = match loaded.event {
            Some(newest) => {
                append.and_to(&stream, Expected::Any, events).after_event(&stream, loaded.version, newest)
            }
            None => append.and_to(&stream, Expected::NoStream, events),
        };
        Ok(loaded.state)
    }

    fn has_decided(&self, aggregate: &StreamId) -> bool {
        self.append.conditions.iter().any(|condition| match condition {
            Condition::Version { stream, .. } | Condition::Newest { stream, .. } => stream == aggregate,
            _ => false,
        })
    }

    /// The event to append, and the same event as read back.
    fn encode<E: Event>(&self, event: &E) -> Result<(NewEvent, E), CodecError> {
        let (event_type, data) = (event.event_type(), event.encode()?);
        let read = E::decode(event_type, event.schema_version(), &data)?;
        let new = NewEvent::new(event_type, data);
        let mut new = new.map_err(|invalid| CodecError::Encode {
            event_type: event_type.to_owned(),
            cause: Box::new(invalid),
        })?;
        (new.schema_version, new.content_type) = (event.schema_version(), E::content_type(event_type));
        new.tags = event.tags()?;
        new.occurred_at = self.caller.at;
        let initiator = self.caller.by.as_deref().map(Into::into);
        Ok((new.with_metadata(Metadata { initiator, ..Metadata::default() }), read))
    }

    /// Appends the decisions.
    pub async fn commit(self) -> Result<Outcome, Error> {
        if self.append.writes.is_empty() {
            return Ok(Outcome::Nothing);
        }
        match self.annals.store().append(self.append).await {
            Ok(appended) => Ok(Outcome::Written(appended)),
            Err(Error::Conflict(conflict)) if conflict.is_stale() => Ok(Outcome::Stale),
            Err(error) => Err(error),
        }
    }
}
