//! The access of a request: the log, the principal, its rights and the right of the route. [`Access`] is an
//! extractor, and the only way for a handler to access the log.
//!
//! Every route names its [`Right`] in the table of `routes.rs`; [`admit`] wraps each handler and admits
//! requests with that right.
//!
//! - R1  The log of a handler shows only the events that the token may read, and accepts only the appends
//!   that it may make (`auth/scoped.rs`): a handler that omits a check finds no events instead of all.
//! - R2  The token is in `Authorization: Bearer` or in the console's cookie. The cookie is accepted for reads
//!   only, so no page of another site can make a browser change anything with it.

use std::sync::Arc;

use annals_core::{Appended, Error, EventId, EventStore, LogRead, Position, Result, StreamId};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::auth::{Categories, Forbidden, Known, Rights, Scoped};
use crate::problem::Problem;

/// The right that a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// None: the response discloses nothing of the log.
    Open,
    /// To read events.
    Read,
    /// To append events.
    Append,
    /// To read the server's metrics.
    Metrics,
    /// To request a backup.
    Backup,
}

/// The sender of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Any sender: the server has no tokens, and every request has all rights.
    Anybody,
    /// A sender without a known token.
    Nobody,
    /// The holder of this token.
    Token(Known),
}

/// The access of a request.
#[derive(Clone)]
pub(crate) struct Access {
    /// The log, as the principal may see it.
    pub(crate) log: Arc<dyn EventStore>,
    /// The rights of the principal.
    pub(crate) rights: Arc<Rights>,
    /// The sender of the request.
    pub(crate) principal: Principal,
    /// The right that the route needs.
    pub(crate) right: Right,
    /// The token, if it came in the console's cookie.
    cookie: Option<Arc<str>>,
    /// The whole log.
    whole: Arc<dyn EventStore>,
}

/// The cookie that holds a token for the console.
pub(crate) const COOKIE: &str = "annals-token";

impl Access {
    /// The access of a request with this method and these headers on a route that needs this right.
    ///
    /// # Errors
    /// [`Problem`] 401 if a token is needed and no known one is given, 403 if the token does not have the
    /// right.
    pub(crate) fn of(app: &App, right: Right, method: &Method, headers: &HeaderMap) -> Result<Self, Problem> {
        let principal = match presented(method, headers) {
            _ if app.gate.is_open() => Principal::Anybody,
            Err(problem) if right != Right::Open => return Err(problem),
            Ok(None) | Err(_) => Principal::Nobody,
            Ok(Some(token)) => match app.gate.find(token) {
                Some(known) => Principal::Token(known),
                None if right == Right::Open => Principal::Nobody,
                None => return Err(unauthenticated("the token is not known")),
            },
        };
        let mut access = Self::to(app, right, principal);
        access.cookie =
            cookie(headers, COOKIE).filter(|_| !headers.contains_key(header::AUTHORIZATION)).map(Arc::from);
        match (&access.principal, access.has(right)) {
            (_, true) => Ok(access),
            (Principal::Nobody, false) => Err(unauthenticated("no token was given")),
            _ => {
                let verb = format!("{right:?}").to_lowercase();
                Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    format!("the token has no right to {verb}"),
                ))
            }
        }
    }

    pub(crate) fn to(app: &App, right: Right, principal: Principal) -> Self {
        let rights = Arc::new(match &principal {
            Principal::Anybody => Rights::all(),
            Principal::Nobody => Rights::none(),
            Principal::Token(known) => known.rights().clone(),
        });
        let whole = app.log();
        let log = match rights.is_whole() {
            true => Arc::clone(&whole),
            false => Arc::new(Scoped::new(Arc::clone(&whole), Arc::clone(&rights))) as Arc<dyn EventStore>,
        };
        Self { log, rights, principal, right, cookie: None, whole }
    }

    fn has(&self, right: Right) -> bool {
        match right {
            Right::Open => true,
            Right::Read => !self.rights.read.is_none(),
            Right::Append => !self.rights.append.is_none(),
            Right::Metrics => self.rights.metrics,
            Right::Backup => self.rights.backup,
        }
    }

    /// The token, if there is one.
    pub(crate) fn token(&self) -> Option<&Known> {
        match &self.principal {
            Principal::Token(known) => Some(known),
            Principal::Anybody | Principal::Nobody => None,
        }
    }

    /// The name of the token and the token, if it came in the console's cookie.
    pub(crate) fn signed_in(&self) -> Option<(&str, &str)> {
        self.token().map(Known::name).zip(self.cookie.as_deref())
    }

    /// The last position up to this one at which the principal sees an event: in a log of some categories
    /// there are gaps.
    pub(crate) async fn place(&self, position: Position) -> Result<Position> {
        if self.rights.read == Categories::All {
            return Ok(position);
        }
        let found = self.log.read_log(LogRead::backward(position).limit(1)).await?;
        Ok(found.events.first().map_or(Position::ZERO, |event| event.position()))
    }

    /// The streams and ids of the events of an earlier append, whose outcome the principal was given. They
    /// are read from the whole log, so a token that may append but not read gets them too.
    pub(crate) async fn recorded(&self, appended: &Appended) -> Result<Vec<(StreamId, EventId)>> {
        let mut events = Vec::new();
        let mut from = appended.first;
        while from <= appended.last {
            let left = usize::try_from(appended.last.get() - from.get() + 1).unwrap_or(usize::MAX);
            let page = self.whole.read_log(LogRead::forward(from).to(appended.last).limit(left)).await?;
            if page.events.is_empty() {
                let cause = format!("the event at position {from} cannot be read at the moment");
                return Err(Error::Unavailable(cause.into()));
            }
            events.extend(page.events.into_iter().map(|event| (event.stream_id(), event.id())));
            from = appended.first.plus(events.len() as u64);
        }
        Ok(events)
    }
}

impl From<Forbidden> for Problem {
    fn from(forbidden: Forbidden) -> Self {
        let detail = forbidden.to_string();
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail).with("field", forbidden.field)
    }
}

/// The problem of a request that needs a token.
pub(crate) fn unauthenticated(why: &str) -> Problem {
    let detail = format!("{why}; send `Authorization: Bearer TOKEN`, or sign in at /login");
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
}

/// The token that a request presents.
fn presented<'h>(method: &Method, headers: &'h HeaderMap) -> Result<Option<&'h str>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(value) = given.next() {
        let (scheme, token) =
            value.to_str().ok().and_then(|text| text.trim().split_once(' ')).unwrap_or_default();
        if given.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthenticated("Authorization is not one token"));
        }
        return Ok(Some(token.trim()));
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    Ok(cookie(headers, COOKIE).filter(|_| is_read))
}

/// The value of a cookie.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| value)
}

/// Admits a request that has the right of its route.
pub(crate) async fn admit(
    State((app, right)): State<(Arc<App>, Right)>,
    mut request: Request,
    next: Next,
) -> Response {
    match Access::of(&app, right, request.method(), request.headers()) {
        Ok(access) => {
            if let Some(token) = access.token() {
                tracing::debug!(token = token.name(), right = ?access.right, "admitted");
            }
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Admits a request to a mounted program if it may read the whole log and, unless it is a read, append to the
/// whole log: the pages of the program belong to no category.
pub(crate) async fn admit_whole(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let right = if is_read { Right::Read } else { Right::Append };
    match Access::of(&app, right, request.method(), request.headers()) {
        Ok(access) if access.rights.is_whole() || is_read && access.rights.read == Categories::All => {
            next.run(request).await
        }
        Ok(_) => {
            let detail = "this is for tokens of all categories";
            Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().expect("`admit` runs before every handler"))
    }
}
