//! The options of a command, and its result.

use std::future::IntoFuture;
use std::pin::Pin;

use annals_core::{
    Aggregate, Context, Decide, EventId, EventMetadata, Invalid, Position, Seen, StreamId, Tag, Text,
    Timestamp, Version,
};

use super::attempt::Attempt;
use super::key::{Cause, Keys};
use super::{ExecuteError, Loaded, Repository};
use crate::Recorded;

/// The result of an executed command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<A: Aggregate> {
    /// The aggregate after the command.
    pub state: A,
    /// Its version after the command.
    pub version: Version,
    /// The position of its newest event at that version, which a view must have reached to show the effect of
    /// the command.
    pub position: Position,
    /// The id of that event. `None` if the aggregate has no events yet.
    pub event: Option<EventId>,
    /// The decided events. Empty if the aggregate decided that nothing happens.
    pub events: Vec<A::Event>,
    /// Whether the command had been executed before, and this is the result of the first execution.
    pub duplicate: bool,
}

/// The event that a view must have reached to show the effect of the command: `view.at_least(&committed)`.
impl<A: Aggregate> From<&Committed<A>> for Seen {
    fn from(committed: &Committed<A>) -> Self {
        Self { position: committed.position, event: committed.event }
    }
}

/// A command with its options; `.await` executes it.
#[must_use = "a command does nothing until it is awaited"]
pub struct CommandBuilder<A: Aggregate, C> {
    pub(super) repository: Repository<A>,
    pub(super) id: String,
    pub(super) command: C,
    pub(super) mode: Mode,
    pub(super) at: Option<Version>,
    /// The newest event that the aggregate must have at that version.
    pub(super) on: Option<EventId>,
    pub(super) metadata: EventMetadata,
    pub(super) tags: Vec<String>,
    pub(super) occurred_at: Option<Timestamp>,
    pub(super) once: Option<String>,
    pub(super) cause: Option<Cause>,
}

/// Whether the aggregate must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Either,
    Create,
    Update,
}

impl<A: Aggregate, C> CommandBuilder<A, C> {
    pub(super) fn new(repository: Repository<A>, id: String, command: C) -> Self {
        Self {
            repository,
            id,
            command,
            mode: Mode::Either,
            at: None,
            on: None,
            metadata: EventMetadata::default(),
            tags: Vec::new(),
            occurred_at: None,
            once: None,
            cause: None,
        }
    }

    pub(super) fn creating(mut self) -> Self {
        self.mode = Mode::Create;
        self
    }

    pub(super) fn updating(mut self) -> Self {
        self.mode = Mode::Update;
        self
    }

    /// The initiator of the command: `user:7`.
    pub fn by(mut self, initiator: impl Into<Text>) -> Self {
        self.metadata.initiator = Some(initiator.into());
        self
    }

    /// The business process that it belongs to.
    pub fn process(mut self, process: impl Into<Text>) -> Self {
        self.metadata.process = Some(process.into());
        self
    }

    /// Executes the command once: a retry with the same key, for this aggregate, returns the first outcome.
    /// Events are returned again, even if the command would be refused by now; a refusal remains a refusal
    /// ([`ExecuteError::RefusedBefore`]), and a decision without events remains one, even if the command
    /// would have an effect by now. An error that is not an outcome (a conflict, a failure, an outage) does
    /// not use the key.
    #[doc(alias("idempotency key", "deduplication"))]
    pub fn once(mut self, key: impl Into<String>) -> Self {
        self.once = Some(key.into());
        self
    }

    /// The event that led to this command. It becomes the predecessor; process and initiator are those of the
    /// event, unless others are set; and the command is executed once for it, however often the event is
    /// delivered.
    ///
    /// If one event leads to several commands for the same aggregate, distinguish them: `.once("refund")`.
    pub fn caused_by<E>(self, event: &Recorded<E>) -> Self {
        let (stream, id) = (event.stream_id(), event.id());
        // Without a position, because the event may be from another log than that of the command.
        let part = event.part;
        let cause = Cause { stream, id, part, position: None, subscriber: String::new(), again: false };
        self.caused(cause, &event.metadata())
    }

    pub(crate) fn caused(mut self, cause: Cause, by: &EventMetadata) -> Self {
        let metadata = &mut self.metadata;
        metadata.predecessor = Some(Text::from(cause.id.to_string()));
        metadata.process = metadata.process.take().or_else(|| by.process.clone());
        metadata.initiator = metadata.initiator.take().or_else(|| by.initiator.clone());
        metadata.trace = metadata.trace.take().or_else(|| by.trace.clone());
        self.cause = Some(cause);
        self
    }

    /// Executes the command only if the aggregate is at this version, without retries.
    pub fn at_version(mut self, version: impl Into<Version>) -> Self {
        self.at = Some(version.into());
        self
    }

    /// Executes the command only if the aggregate is unchanged since it was loaded, without retries. In
    /// contrast to [`at_version`](Self::at_version) this also detects another history of the log: after a
    /// restore or a failover that has lost events, another event may have the same version.
    pub fn unchanged_since(mut self, loaded: &Loaded<A>) -> Self {
        (self.at, self.on) = (Some(loaded.version), loaded.event);
        self
    }

    /// Trace context, as in the W3C header `traceparent`.
    pub fn trace(mut self, trace: impl Into<Text>) -> Self {
        self.metadata.trace = Some(trace.into());
        self
    }

    /// Adds a pair to the metadata of the events.
    pub fn meta(mut self, key: impl Into<Text>, value: impl Into<Text>) -> Self {
        self.metadata.own.insert(key.into(), value.into());
        self
    }

    /// The time of occurrence, if it is not now: for history that is recorded later.
    pub fn occurred_at(mut self, time: Timestamp) -> Self {
        self.occurred_at = Some(time);
        self
    }

    /// A tag for the events, in addition to their own.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// The context of the decision.
    pub(super) fn context(&self, now: Timestamp) -> Context {
        let mut context = Context::at(now);
        context.process.clone_from(&self.metadata.process);
        context.initiator.clone_from(&self.metadata.initiator);
        context.predecessor.clone_from(&self.metadata.predecessor);
        context
    }

    /// The keys under which the command is executed once.
    pub(super) fn keys(&self, stream: &StreamId) -> Result<Option<Keys>, Invalid> {
        Keys::of(stream, self.once.as_deref(), self.cause.as_ref())
    }

    pub(super) fn tags(&self) -> Result<Vec<Tag>, Invalid> {
        self.tags.iter().map(Tag::new).collect()
    }
}

impl<A, C> IntoFuture for CommandBuilder<A, C>
where
    A: Decide<C>,
    C: Send + Sync + 'static,
{
    type Output = Result<Committed<A>, ExecuteError<A::Error>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Attempt::new(self)?.run().await })
    }
}
