//! Several aggregates changed together: one append, so all of it happens or nothing.
//!
//! One command changes one aggregate, and for good reasons: who needs more than one at once should first look
//! whether it is not one aggregate after all, or two steps. Sometimes it is neither. Then each aggregate decides on
//! its own state, and the append holds only if none of them has changed since:
//!
//! ```text
//! let mut together = Together::new(&annals, "register", caller);
//! together.decide::<Member, _>(&id, &register).await?;
//! together.decide::<MailAddress, _>(&digest, &claim).await?;
//! together.commit().await?                             // Somebody was faster: decide again
//! ```

use annals::contract::Condition;
use annals::{
    Annals, Append, Appended, Clock, CodecError, Context, Decide, Error, Event, ExecuteError, Expected,
    IdempotencyKey, Metadata, NewEvent, StreamId, SystemClock,
};

use crate::http::Caller;

/// How often to decide again when somebody was faster.
pub(crate) const ATTEMPTS: u32 = 16;

/// Decisions that are to be appended together.
pub(crate) struct Together<'a> {
    annals: &'a Annals,
    caller: &'a Caller,
    append: Append,
}

/// What became of the decisions.
pub(crate) enum Outcome {
    /// They are in the log, or were before.
    Written(Appended),
    /// Somebody was faster: decide again.
    Stale,
    /// Nobody decided that anything happens.
    Nothing,
}

impl<'a> Together<'a> {
    /// Nothing is decided yet. `scope` keeps the caller's key apart from the same key used elsewhere.
    pub fn new(annals: &'a Annals, scope: &str, caller: &'a Caller) -> Result<Self, Error> {
        let mut append = Append::new();
        if let Some(key) = &caller.key {
            append.key = Some(IdempotencyKey::new(format!("{scope}/{key}"))?);
        }
        Ok(Self { annals, caller, append })
    }

    /// What it led to before, if the caller's key has been used.
    pub async fn before(&self) -> Result<Option<Appended>, Error> {
        match &self.append.key {
            Some(key) => self.annals.store().outcome(key).await,
            None => Ok(None),
        }
    }

    /// Lets an aggregate decide. Each aggregate at most once. Returns the state that it decided on.
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
        // Folded before it is appended: what is in the log cannot be taken out of it.
        let (mut after, mut events) = (loaded.state.clone(), Vec::new());
        for event in &decided.0 {
            let (new, read) = self
                .encode(event)
                .map_err(|cause| ExecuteError::Unwritable { stream: stream.clone(), cause })?;
            after.evolve(&read);
            events.push(new);
        }
        // Also one that decided for nothing must not have changed meanwhile.
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

    /// The event as it is appended, and as it will be read.
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

    /// Appends what was decided.
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
