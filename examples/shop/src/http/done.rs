//! The answer to a command that was carried out.

use annals::{Aggregate, Appended, Committed, Loaded, Position};
use axum::Json;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What a command led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The aggregate.
    pub id: String,
    /// Its version after the command.
    pub version: u64,
    /// The position that a query must have reached to show the effect: `?at_least=…`.
    pub position: u64,
    /// Whether the command had been carried out before, and this is what it led to then.
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
            duplicate: appended.duplicate,
            created: false,
        }
    }

    /// What is the case already, so that nothing had to happen.
    pub fn already<A>(id: impl AsRef<str>, loaded: &Loaded<A>) -> Self {
        let (version, position) = (loaded.version.get(), loaded.position.get());
        Self { id: id.as_ref().to_owned(), version, position, ..Self::default() }
    }

    /// The same for a command that has made something new.
    #[must_use]
    pub fn created(mut self) -> Self {
        self.created = true;
        self
    }

    /// The position that a view must have reached to show the effect.
    pub fn at(&self) -> Position {
        Position::new(self.position)
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let status = if self.created && !self.duplicate { StatusCode::CREATED } else { StatusCode::OK };
        let position = [(HeaderName::from_static("position"), self.position.to_string())];
        (status, position, Json(self)).into_response()
    }
}
