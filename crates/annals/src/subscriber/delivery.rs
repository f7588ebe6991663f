//! What a handler sees beside the event.

use std::sync::Arc;

use annals_core::{Aggregate, CommandOf};

use crate::repository::{CommandBuilder, Delivered, Repository};
use crate::shared::Shared;

/// The delivery of one event to one subscriber.
///
/// A repository that is taken from it gives commands because of the event. The event becomes the predecessor; process and
/// initiator are its own, unless something else is said; and however often the event is delivered, the command is executed once
/// for this subscriber: what it led to the first time stands, also if that was a refusal.
#[derive(Clone)]
pub struct Delivery {
    pub(super) shared: Arc<Shared>,
    pub(super) delivered: Arc<Delivered>,
    pub(super) attempt: u32,
}

impl Delivery {
    /// The same delivery for another part of the event.
    pub(super) fn of_part(&self, part: u32) -> Self {
        Self { delivered: Delivered::of_part(&self.delivered, part), ..self.clone() }
    }

    /// The name of the subscriber.
    pub fn subscriber(&self) -> &str {
        &self.delivered.subscriber
    }

    /// How often the event has been delivered to this subscriber since it was started, this time included. An
    /// event whose handling was cut short by the end of the process comes again with 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The aggregates of one kind, which are given commands because of the event. It is for this delivery: do not keep it for
    /// commands that have nothing to do with the event.
    ///
    /// If the event leads to several commands for one aggregate, tell them apart: `.once("refund")`. Otherwise
    /// the second is refused.
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        self.with(&Repository::new(self.shared.clone()))
    }

    /// The same with a repository of one's own, with its snapshots and its cache.
    pub fn with<A: Aggregate>(&self, repository: &Repository<A>) -> Repository<A> {
        repository.delivered(self.delivered.clone())
    }

    /// Gives a command to an aggregate because of the event: that of [`repository`](Self::repository).
    pub fn execute<A, C>(&self, id: impl Into<String>, command: C) -> CommandBuilder<A, C>
    where
        A: Aggregate,
        C: CommandOf<A>,
    {
        self.repository().execute(id, command)
    }
}
