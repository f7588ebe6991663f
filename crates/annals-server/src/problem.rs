//! The response to a request that fails: a problem document (RFC 9457).
//!
//! ```text
//! {"type":"urn:annals:problem:invalid","title":"The request is invalid","status":400,
//!  "detail":"events[3].type is empty","code":"invalid","field":"events[3].type"}
//! ```
//!
//! Programs match on `code`: the code of the store's error, or one of the few that exist only over HTTP.
//! Only this file maps errors of the store to statuses.

use std::fmt::Display;

use annals_core::{Conflict, Error, Invalid, Reused, Version, Violated, Violation, shortened};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::auth::is_hidden;

/// The media type of a problem document.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The maximum length of an explanation in bytes: it may quote a part of the request.
const DETAIL_BYTES_MAX: usize = 8 << 10;

/// The problem of a failed request, which is sent as the response.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    more: Map<String, Value>,
    violations: Option<Box<RawValue>>,
}

impl Problem {
    /// A problem with this status, code and explanation.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = shortened(detail.into(), DETAIL_BYTES_MAX);
        Self { status, code, detail, field: None, more: Map::new(), violations: None }
    }

    /// A problem with this part of the request.
    pub fn invalid(field: impl Into<String>, problem: impl Display) -> Self {
        Invalid::new(field, problem.to_string()).into()
    }

    /// A problem with a part of the request that contradicts another part, although each is valid alone.
    pub fn contradiction(field: impl Into<String>, problem: impl Display) -> Self {
        Self::invalid(field, problem).with_status(StatusCode::UNPROCESSABLE_ENTITY)
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The same problem with this status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Whether the request was refused because a page of another site may have made it.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.code, "foreign-host" | "foreign-origin")
    }

    /// Whether the request needs a token and has no known one.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.code == "unauthenticated"
    }

    /// The explanation, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The same problem with one more member.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.more.insert(member.to_owned(), value.into());
        self
    }

    /// The problem for an error of a store.
    pub fn of(error: &Error) -> Self {
        let code = error.code();
        let status = match error {
            Error::Conflict(conflict) => return Self::of_conflict(conflict),
            Error::Invalid(invalid) => return Self::from(invalid.clone()),
            Error::Reused(reused) => return Self::of_reused(reused),
            Error::Unavailable(_)
            | Error::Unusable(_)
            | Error::NoStore(_)
            | Error::Closed
            | Error::Indeterminate(_)
            | Error::Poisoned(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // With its causes: "the store is unavailable" alone does not explain the error.
        Self::new(status, code, error.chain())
    }

    /// The same problem with another explanation.
    #[must_use]
    pub fn explained(mut self, detail: impl Into<String>) -> Self {
        self.detail = shortened(detail.into(), DETAIL_BYTES_MAX);
        self
    }

    /// The short, fixed name of this kind of problem, for people.
    pub fn title(&self) -> &'static str {
        match self.code {
            "conflict" => "A condition of the append does not hold",
            "invalid" => "The request is invalid",
            "reused" => "The key or the ids belong to another append",
            "unauthenticated" => "A token is needed",
            "forbidden" => "The token has no right to this",
            "foreign-form" => "The form is not one of this server",
            "foreign-host" => "The server does not answer under this name",
            "foreign-origin" => "The request was sent by a page of another site",
            "other-history" => "The log has another history",
            "overloaded" => "The server has no room for this at the moment",
            "unavailable" => "The store is unavailable",
            "unusable" => "The store cannot be used as it is",
            "no-store" => "There is no store",
            "closed" => "The store is closed",
            "unreadable" => "The stored data cannot be read",
            "indeterminate" => "The outcome of the append is unknown",
            "poisoned" => "The store takes no appends until it is opened again",
            "damaged" => "The store is damaged",
            "shutting-down" => "The server is shutting down",
            "not-found" => "There is nothing here",
            "method-not-allowed" => "The method is not allowed here",
            "backup-failed" => "The backup failed",
            "busy" => "The operation is already in progress",
            "too-large" => "The request is too large",
            "too-slow" => "The request took too long to arrive",
            "failed" => "The command failed",
            "stopped" => "The command was stopped before it was done",
            "unsupported-media-type" => "The body is of another type",
            _ => "Something went wrong in the server",
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "invalid", invalid.to_string());
        problem.field = Some(invalid.field);
        problem
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Self::of(&error);
        if !matches!(error, Error::Conflict(_) | Error::Invalid(_) | Error::Reused(_)) {
            tracing::error!(code = problem.code, "{}", problem.detail);
        }
        problem
    }
}

impl Problem {
    fn of_conflict(conflict: &Conflict) -> Self {
        let mut problem = Self::new(StatusCode::CONFLICT, "conflict", conflict.to_string());
        problem = problem.with("stale", conflict.is_stale());
        if let Some(actual) = actual_version(conflict) {
            problem = problem.with("actual_version", actual.get());
        }
        let violations: Vec<_> = conflict.violations.iter().map(ViolationJson::of).collect();
        let text = serde_json::value::to_raw_value(&violations);
        problem.violations = Some(text.expect("a violation has only text for keys, so it is JSON"));
        problem
    }

    fn of_reused(reused: &Reused) -> Self {
        if is_hidden(reused) {
            let what =
                if reused.key.is_some() { "the key belongs" } else { "the ids of these events belong" };
            let detail = format!("{what} to an append that this token may not see; nothing was written");
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, "reused", detail);
        }
        let detail = format!("{reused}; nothing was written");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "reused", detail)
            .with("first_position", reused.first.get())
            .with("stream", reused.stream.as_str())
            .with("differs", reused.field.as_str())
    }
}

/// The actual version of the one stream whose expected version is violated; `None` if there are several or
/// none.
fn actual_version(conflict: &Conflict) -> Option<Version> {
    let mut actual = conflict.violations.iter().filter_map(|violation| match &violation.violated {
        Violated::Version { actual, .. } => Some(*actual),
        _ => None,
    });
    let only = actual.next()?;
    actual.next().is_none().then_some(only)
}

/// A violated condition as JSON.
#[derive(serde::Serialize)]
struct ViolationJson<'a> {
    condition: usize,
    #[serde(flatten)]
    violated: Map<String, Value>,
    unseen: Vec<annals_json::Embedded<'a>>,
    unseen_complete: bool,
}

impl<'a> ViolationJson<'a> {
    fn of(violation: &'a Violation) -> Self {
        let violated = match &violation.violated {
            Violated::Version { stream, expected, actual } => {
                let expected =
                    expected.version().map_or(json!(expected.to_string()), |seen| json!(seen.get()));
                json!({"stream": stream.as_str(), "expected": expected, "actual": actual.get()})
            }
            Violated::NoMatch { after, position } => {
                json!({"after": after.get(), "position": position.get()})
            }
            other => json!({"detail": other.to_string()}),
        };
        let Value::Object(violated) = violated else { unreachable!("each arm is an object") };
        Self {
            condition: violation.condition,
            violated,
            unseen: violation.unseen.iter().map(annals_json::Embedded).collect(),
            unseen_complete: violation.unseen_complete,
        }
    }
}

/// The problem document.
#[derive(serde::Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violations: Option<&'a RawValue>,
}

impl Problem {
    /// The problem document as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let document = Document {
            kind: format!("urn:annals:problem:{}", self.code),
            title: self.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            field: self.field.as_deref(),
            more: &self.more,
            violations: self.violations.as_deref(),
        };
        serde_json::to_vec(&document).expect("a problem has only text for keys, so it is JSON")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json();
        let mut response = (self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        // Retrying does not help until an operator changes something.
        let needs_somebody = matches!(self.code, "unusable" | "no-store");
        if self.status == StatusCode::SERVICE_UNAVAILABLE && !needs_somebody {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"annals\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.more.get("field").is_some_and(|field| field == "Content-Encoding") {
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        // For `browsers.rs`, without members that may be large.
        response.extensions_mut().insert(Self { violations: None, more: Map::new(), ..self });
        response
    }
}
