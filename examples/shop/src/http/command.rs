//! The parts of a request: the command, its caller, and the required event of a query.

use annals::{Aggregate, CommandBuilder, Seen, Timestamp};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use serde::Deserialize;

use super::Problem;
use crate::form::{FieldError, Form, FromForm};

/// A command from the body of a request.
#[derive(Debug)]
pub struct Checked<C>(pub C);

impl<C: FromForm, S: Send + Sync> FromRequest<S> for Checked<C> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|refused| Problem::new(refused.status(), "body", refused.body_text()))?;
        // A command without fields needs no body.
        let json = if body.is_empty() { Ok(serde_json::json!({})) } else { serde_json::from_slice(&body) };
        let json = json.map_err(|error| {
            Problem::invalid(vec![FieldError {
                field: "body".into(),
                problem: format!("is not JSON: {error}"),
            }])
        })?;
        Form::check(json).map(Self).map_err(Problem::invalid)
    }
}

/// The data about a command beside its content.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The initiator.
    pub by: Option<String>,
    /// The key under which it is executed once: the header `Idempotency-Key`.
    pub key: Option<String>,
    /// The time of occurrence, if it is not now: for history that is recorded later.
    pub at: Option<Timestamp>,
    /// The session of the calling member, as sent by the client: `Authorization: Bearer …`.
    pub session: Option<String>,
}

impl Caller {
    /// An anonymous caller with this key.
    pub fn once(key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// The same caller, with this time of occurrence.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.at = Some(time);
        self
    }

    /// Sets these options of a command.
    pub fn says<A: Aggregate, C>(&self, mut command: CommandBuilder<A, C>) -> CommandBuilder<A, C> {
        if let Some(by) = &self.by {
            command = command.by(by.as_str());
        }
        if let Some(key) = &self.key {
            command = command.once(key);
        }
        if let Some(time) = self.at {
            command = command.occurred_at(time);
        }
        command
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let key = parts.headers.get("idempotency-key").map(|key| {
            let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= 200);
            key.map(str::to_owned).ok_or_else(|| {
                let problem = "is not 1 to 200 visible ASCII characters".into();
                Problem::invalid(vec![FieldError { field: "Idempotency-Key".into(), problem }])
            })
        });
        let session = parts.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let session = session.and_then(|header| header.strip_prefix("Bearer ")).map(str::to_owned);
        Ok(Self { key: key.transpose()?, session, ..Self::default() })
    }
}

/// The event that the result of a query must include: `?at_least=42@UUID` waits until the rows show that
/// event, `?at_least=42` until they show position 42.
#[derive(Clone, Copy, Debug)]
pub struct AtLeast(pub Seen);

impl<S: Send + Sync> FromRequestParts<S> for AtLeast {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Asked {
            #[serde(default)]
            at_least: Seen,
        }
        let invalid = |problem| Problem::invalid(vec![FieldError { field: "at_least".into(), problem }]);
        let asked = Query::<Asked>::from_request_parts(parts, state).await;
        let Query(asked) = asked.map_err(|refused| invalid(refused.body_text()))?;
        Ok(Self(asked.at_least))
    }
}

/// The requested part of a list: `?limit=50&offset=100`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Page {
    /// The number of entries; 50 by default, at most 500.
    #[serde(default = "fifty")]
    pub limit: u32,
    /// The number of entries to skip.
    #[serde(default)]
    pub offset: u32,
}

fn fifty() -> u32 {
    50
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: fifty(), offset: 0 }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(page) = Query::<Self>::from_request_parts(parts, state).await.map_err(|refused| {
            let problem = refused.body_text();
            Problem::invalid(vec![FieldError { field: "limit".into(), problem }])
        })?;
        Ok(Self { limit: page.limit.min(500), ..page })
    }
}
