//! The aggregates of the directory: a tenant, with the place of its log and the target of a move; and a
//! place, with its owner.

use annals_core::{Aggregate, Context, Decide, Decision, emit, no_events, reject};
use serde::{Deserialize, Serialize};

/// The place of a tenant's log, and the target of its move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tenant {
    pub at: Option<String>,
    pub to: Option<String>,
}

#[derive(annals_macros::Event, Serialize, Deserialize, Clone, Debug)]
#[event(prefix = "tenant")]
pub(super) enum Routing {
    Placed { at: String },
    MoveBegun { to: String },
    Moved { to: String },
}

/// A command to the directory.
#[derive(Clone, Debug)]
pub(super) enum Move {
    Place { at: String },
    Begin { to: String },
    Finish { from: String, to: String },
}

/// Why the directory refuses a command.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoRoute(pub String);

impl Aggregate for Tenant {
    const NAME: &'static str = "tenant";
    type Event = Routing;

    fn initial(_: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, event: &Routing) {
        match event {
            Routing::Placed { at } => self.at = Some(at.clone()),
            Routing::MoveBegun { to } => self.to = Some(to.clone()),
            Routing::Moved { to } => (self.at, self.to) = (Some(to.clone()), None),
        }
    }
}

impl Decide<Move> for Tenant {
    type Error = NoRoute;

    fn decide(&self, command: &Move, _: &Context) -> Decision<Self, NoRoute> {
        match (command, &self.at, &self.to) {
            (Move::Place { at }, None, _) => emit(Routing::Placed { at: at.clone() }),
            (Move::Place { at }, Some(there), None) if at == there => no_events(),
            (Move::Place { .. }, Some(there), _) => {
                reject(NoRoute(format!("has its log at {there} already")))
            }
            (_, None, _) => reject(NoRoute("is not known: add it first".to_owned())),
            (Move::Begin { to }, Some(at), None) if to == at => no_events(),
            (Move::Begin { to }, Some(_), None) => emit(Routing::MoveBegun { to: to.clone() }),
            (Move::Begin { to }, Some(_), Some(under_way)) if to == under_way => no_events(),
            // A move to the current place cancels the move in progress.
            (Move::Begin { to }, Some(at), Some(_)) if to == at => {
                emit(Routing::MoveBegun { to: to.clone() })
            }
            (Move::Begin { .. }, Some(at), Some(under_way)) => reject(NoRoute(format!(
                "is being moved to {under_way}: finish that first, or call it off by moving it to {at}"
            ))),
            (Move::Finish { from, to }, Some(at), Some(under_way)) if from == at && to == under_way => {
                emit(Routing::Moved { to: to.clone() })
            }
            (Move::Finish { to, .. }, Some(at), None) if to == at => no_events(),
            (Move::Finish { .. }, Some(_), _) => {
                reject(NoRoute("was moved by another caller in the meantime".to_owned()))
            }
        }
    }
}

/// A place, by its address, with its owner as an earlier version recorded it. It is no longer written,
/// because each place records its owner itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub of: Option<String>,
}

#[derive(annals_macros::Event, Serialize, Deserialize, Clone, Debug)]
#[event(prefix = "place")]
pub(super) enum Placing {
    Taken { tenant: String },
}

impl Aggregate for Place {
    const NAME: &'static str = "place";
    type Event = Placing;

    fn initial(_: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, Placing::Taken { tenant }: &Placing) {
        self.of = Some(tenant.clone());
    }
}
