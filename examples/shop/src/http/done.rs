//! The answer to a command that was executed.

use annals::{Aggregate, Appended, Committed, Loaded, Seen};
use axum::Json;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The aggregate.
    pub id: String,
    /// Its version after the command.
    pub version: u64,
    /// The position of what it led to.
    pub position: u64,
    /// The same with the id of the event there: what a query must show to show the effect, `?at_least=…`. After a restore it is
    /// noticed that the log does not have that event.
    pub witness: Seen,
    /// Whether the command had been executed before, and this is what it led to then.
    pub duplicate: bool,
    #[serde(skip)]
    created: bool,
}

impl Done {
    /// What the framework says of a command to one aggregate.
    pub fn of<A: Aggregate>(id: impl AsRef<str>, committed: &Committed<A>) -> Self {
        Self {
            id: id.as_ref().to_owned(),
            version: committed.version.get(),
            position: committed.position.get(),
            witness: committed.into(),
            duplicate: committed.duplicate,
            created: false,
        }
    }

    /// What the store says of an append to several, the aggregate's stream first.
    pub fn appended(id: impl AsRef<str>, appended: &Appended) -> Self {
        Self {
            id: id.as_ref().to_owned(),
            version: appended.version().get(),
            position: appended.last.get(),
            witness: appended.into(),
            duplicate: appended.duplicate,
            created: false,
        }
    }

    /// What is the case already, so that nothing had to happen.
    pub fn already<A>(id: impl AsRef<str>, loaded: &Loaded<A>) -> Self {
        Self {
            id: id.as_ref().to_owned(),
            version: loaded.version.get(),
            position: loaded.position.get(),
            witness: loaded.into(),
            duplicate: false,
            created: false,
        }
    }

    /// The same for a command that has made something new.
    #[must_use]
    pub fn created(mut self) -> Self {
        self.created = true;
        self
    }

    /// What a view must show to show the effect.
    pub fn at(&self) -> Seen {
        self.witness
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let status = if self.created && !self.duplicate { StatusCode::CREATED } else { StatusCode::OK };
        let position = [(HeaderName::from_static("position"), self.witness.to_string())];
        (status, position, Json(self)).into_response()
    }
}
