//! The response to an executed command.

use annals::{Aggregate, Appended, Committed, Loaded, Seen};
use axum::Json;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The id of the aggregate.
    pub id: String,
    /// Its version after the command.
    pub version: u64,
    /// The position of its newest event.
    pub position: u64,
    /// The position with the id of that event, which a query must include to show the effect: `?at_least=…`.
    /// If a restore has removed the event, the query fails.
    pub witness: Seen,
    /// Whether the command had been executed before, and this is the result of the first execution.
    pub duplicate: bool,
    #[serde(skip)]
    created: bool,
}

impl Done {
    /// The result of a command on one aggregate.
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

    /// The result of an append to several streams, that of the aggregate first.
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

    /// The result of a command that had no effect, because its effect exists already.
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

    /// The same result, for a command that has created the aggregate.
    #[must_use]
    pub fn created(mut self) -> Self {
        self.created = true;
        self
    }

    /// The event that a view must include to show the effect.
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
