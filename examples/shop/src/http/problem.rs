//! The response to a failed request: a problem document (RFC 9457).
//!
//! ```text
//! {"type":"urn:annals:shop:invalid","title":"The request is invalid","status":400,"code":"invalid",
//!  "detail":"…","errors":[{"field":"items[0].quantity","problem":"is 0, the least is 1"}]}
//! ```
//!
//! Programs match on `code`. The status for each code of a refusal is in the `rest.rs` of its service; a
//! refusal that is returned again for a repeated key has the same status. Errors of the store are returned as
//! the server itself returns them.

use std::borrow::Cow;

use annals::contract::refusal_code;
use annals::{ExecuteError, LoadError, ViewError};
use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::form::FieldError;

/// The response to a failed request.
#[derive(Debug)]
pub struct Problem(Content);

#[derive(Debug)]
enum Content {
    Here { status: StatusCode, code: Cow<'static, str>, detail: String, errors: Vec<FieldError> },
    ByTheStore(Box<annals_server::Problem>),
}

impl Problem {
    /// A problem with this status, code and explanation.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl ToString) -> Self {
        Self(Content::Here { status, code: code.into(), detail: detail.to_string(), errors: Vec::new() })
    }

    /// The problem of invalid fields.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let lines: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.problem)).collect();
        Self(Content::Here {
            status: StatusCode::BAD_REQUEST,
            code: "invalid".into(),
            detail: lines.join("; "),
            errors,
        })
    }

    /// The problem of something that does not exist.
    pub fn not_found(what: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", what)
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match &self.0 {
            Content::Here { status, .. } => *status,
            Content::ByTheStore(problem) => problem.status(),
        }
    }

    /// The description of the problem, for people.
    pub fn detail(&self) -> &str {
        match &self.0 {
            Content::Here { detail, .. } => detail,
            Content::ByTheStore(problem) => problem.detail(),
        }
    }
}

impl From<annals::Error> for Problem {
    fn from(error: annals::Error) -> Self {
        Self(Content::ByTheStore(Box::new(error.into())))
    }
}

/// Why a service refuses commands.
pub(crate) trait Refusals: std::error::Error + 'static {
    /// The status of the refusal with this code.
    fn status(code: &str) -> StatusCode;
}

impl<R: Refusals> From<R> for Problem {
    fn from(refused: R) -> Self {
        let code = refusal_code(&refused);
        Self::new(R::status(&code), code, refused)
    }
}

/// A refusal of the domain has its own code; all other errors are not from the domain.
impl<R: Refusals> From<ExecuteError<R>> for Problem {
    fn from(error: ExecuteError<R>) -> Self {
        match error {
            ExecuteError::Rejected(refused) => refused.into(),
            ExecuteError::RefusedBefore { refusal, .. } => {
                Self::new(R::status(&refusal.code), refusal.code, refusal.text)
            }
            ExecuteError::Store(error) => error.into(),
            error @ (ExecuteError::Conflict { .. } | ExecuteError::Exists { .. }) => {
                Self::new(StatusCode::CONFLICT, "conflict", error)
            }
            error @ ExecuteError::Missing { .. } => Self::not_found(error),
            error => broken(&error),
        }
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store(error) => error.into(),
            error => broken(&error),
        }
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::NotStarted(_) | ViewError::Behind { .. } | ViewError::Rebuilding { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "behind", error)
            }
            ViewError::OtherHistory { .. } => Self::new(StatusCode::CONFLICT, "other-history", error),
            ViewError::Store(error) => error.into(),
            error => broken(&error),
        }
    }
}

/// An internal error: the details are in the log of the server, not in the response.
fn broken(error: &dyn std::error::Error) -> Problem {
    tracing::error!("{}", annals::contract::chain(error));
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "see the log of the server for details")
}

/// The response to a method that a path does not support.
pub(crate) async fn no_such_method(method: Method) -> Problem {
    let detail = format!("{method} is not supported here; see the header Allow");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

/// The document.
#[derive(Serialize)]
struct Document {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: Cow<'static, str>,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, detail, errors) = match self.0 {
            Content::Here { status, code, detail, errors } => (status, code, detail, errors),
            Content::ByTheStore(problem) => return problem.into_response(),
        };
        let title = match status {
            StatusCode::BAD_REQUEST => "The request is invalid",
            StatusCode::UNAUTHORIZED => "Nobody is signed in",
            StatusCode::NOT_FOUND => "There is nothing here",
            StatusCode::METHOD_NOT_ALLOWED => "This cannot be done here",
            StatusCode::PAYLOAD_TOO_LARGE => "The request is too large",
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => "The shop refuses",
            StatusCode::SERVICE_UNAVAILABLE => "Not yet; ask again",
            _ => "Something went wrong in the shop",
        };
        let kind = format!("urn:annals:shop:{code}");
        let document = Document { kind, title, status: status.as_u16(), code, detail, errors };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
