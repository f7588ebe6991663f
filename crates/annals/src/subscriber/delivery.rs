//! The second argument of a handler, beside the event.

use std::sync::Arc;

use annals_core::{Aggregate, CommandOf};

use crate::repository::{CommandBuilder, Delivered, Repository};
use crate::shared::Shared;

/// The delivery of one event to one subscriber.
///
/// Commands of a repository obtained from it are caused by the event. The event becomes their predecessor;
/// process and initiator are those of the event, unless others are set; and however often the event is
/// delivered, a command is executed once for this subscriber: its first outcome is kept, even if that is a
/// refusal.
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

    /// How often the event has been delivered to this subscriber since it was started, this time included. If
    /// the process ended during an attempt, the event is delivered again with 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A repository whose commands are caused by the event. It belongs to this delivery: do not keep it for
    /// commands that are unrelated to the event.
    ///
    /// If the event leads to several commands for one aggregate, distinguish them: `.once("refund")`.
    /// Otherwise the second is refused.
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        self.with(&Repository::new(self.shared.clone()))
    }

    /// As [`repository`](Self::repository), based on an existing repository, with its snapshots and its
    /// cache.
    pub fn with<A: Aggregate>(&self, repository: &Repository<A>) -> Repository<A> {
        repository.delivered(self.delivered.clone())
    }

    /// Executes a command caused by the event, with [`repository`](Self::repository).
    pub fn execute<A, C>(&self, id: impl Into<String>, command: C) -> CommandBuilder<A, C>
    where
        A: Aggregate,
        C: CommandOf<A>,
    {
        self.repository().execute(id, command)
    }
}
