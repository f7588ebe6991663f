//! The parameters of a query string: a handler takes each known one by name, and any other is refused.
//!
//! If a misspelt filter were ignored, the response would contain more than was requested, so a handler calls
//! [`Params::finish`] after it has taken every known name. The stream in a path ([`StreamInPath`]) and the
//! texts of headers are parsed here too.

use std::str::FromStr;

use annals_core::{
    Category, Direction, EventId, EventStore, EventType, Invalid, Position, Query, QueryItem, StreamId, Tag,
    Text, Version, Witness,
};
use axum::extract::{FromRequestParts, Path, RawQuery};
use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::links;
use crate::problem::Problem;
use crate::token::Token;

/// The maximum number of events or streams on one page.
pub(crate) const LIMIT_MAX: usize = 1_000;
/// The default number of events or streams on a page.
const LIMIT_DEFAULT: usize = 100;

/// The stream in the path of a request.
pub(crate) struct StreamInPath(pub(crate) StreamId);

impl<S: Send + Sync> FromRequestParts<S> for StreamInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = name.map_err(|_| Problem::invalid("stream", "is not UTF-8"))?;
        Ok(Self(StreamId::new(name)?))
    }
}

/// The stream given by the parameter `name`, and the query string without it: for names that cannot be the
/// end of a path.
pub(crate) fn named_stream(query: Option<&str>) -> Result<(StreamInPath, RawQuery), Problem> {
    let mut params = Params::of(query);
    let name = params.one::<StreamId>("name")?.ok_or_else(|| Problem::invalid("name", "is missing"))?;
    if !params.utf8 {
        return Err(Problem::invalid("query string", "is not UTF-8"));
    }
    let rest = form_urlencoded::Serializer::new(String::new()).extend_pairs(params.rest).finish();
    Ok((StreamInPath(name), RawQuery(Some(rest))))
}

/// The parameters that have not been taken yet.
pub(crate) struct Params {
    rest: Vec<(String, String)>,
    known: Vec<&'static str>,
    utf8: bool,
}

impl Params {
    /// The parameters of this query string.
    pub(crate) fn of(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        // The pairs have replacement characters for invalid UTF-8, and would become other names.
        let utf8 = percent_encoding::percent_decode_str(query).decode_utf8().is_ok();
        Self { rest: pairs.into_owned().collect(), known: Vec::new(), utf8 }
    }

    /// The parameters of a form. Empty fields are ignored.
    pub(crate) fn without_empty(query: Option<&str>) -> Self {
        let mut params = Self::of(query);
        params.rest.retain(|(_, value)| !value.is_empty());
        params
    }

    /// The first value of a parameter, without taking it; empty if there is none.
    pub(crate) fn first(&self, name: &str) -> String {
        self.rest.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// Takes all values of a parameter that may be repeated.
    pub(crate) fn many(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.rest.extract_if(.., |(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// Takes the value of a parameter that may be given once.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.many(name);
        if values.len() > 1 {
            return Err(Problem::invalid(name, "is given more than once"));
        }
        Ok(values.pop())
    }

    /// Takes and parses the value of a parameter that may be given once.
    pub(crate) fn one<T: FromStr<Err = Invalid>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Problem> {
        self.text(name)?.map(|text| named(name, text.parse())).transpose()
    }

    /// Takes the requested number of events or streams.
    pub(crate) fn limit(&mut self) -> Result<usize, Problem> {
        let Some(text) = self.text("limit")? else { return Ok(LIMIT_DEFAULT) };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| {
            Problem::invalid("limit", format!("`{text}` is not a number from 1 to {LIMIT_MAX}"))
        })
    }

    /// Takes the direction of a read; forward by default.
    pub(crate) fn direction(&mut self) -> Result<Direction, Problem> {
        self.direction_or(Direction::Forward)
    }

    /// Takes the direction of a read: `direction` if it is given, otherwise the one that `after` or `before`
    /// implies.
    pub(crate) fn direction_or(&mut self, default: Direction) -> Result<Direction, Problem> {
        let given = |name: &str| self.rest.iter().any(|(key, _)| key == name);
        let (after, before) = (given("after"), given("before"));
        match self.text("direction")?.as_deref() {
            None if after => Ok(Direction::Forward),
            None if before => Ok(Direction::Backward),
            None => Ok(default),
            Some("forward") => Ok(Direction::Forward),
            Some("backward") => Ok(Direction::Backward),
            Some(other) => {
                Err(Problem::invalid("direction", format!("`{other}` is not `forward` or `backward`")))
            }
        }
    }

    /// Takes the filter of a read.
    pub(crate) fn query(&mut self) -> Result<Query, Problem> {
        let types = self.many("type").into_iter().map(|name| named("type", EventType::new(name)));
        let tags = self.many("tag").into_iter().map(|name| named("tag", Tag::new(name)));
        let item = QueryItem {
            types: types.collect::<Result<_, _>>()?,
            tags: tags.collect::<Result<_, _>>()?,
            category: self.one::<Category>("category")?,
            process: self.text("process")?.map(Text::from),
            initiator: self.text("initiator")?.map(Text::from),
            id: self.one::<EventId>("id")?,
            predecessor: self.text("predecessor")?.map(Text::from),
        };
        Ok(if item.is_all() { Query::all() } else { Query::item(item) })
    }

    /// Takes the start of a read in this direction: `from`, inclusive, or `after` (forward) or `before`
    /// (backward).
    ///
    /// # Errors
    /// [`Problem`] if one is not a token, if more than one is given, or if one belongs to the other
    /// direction. The last two are 422: each parameter may be valid alone, and an API description cannot
    /// express how they depend on each other.
    pub(crate) fn start(&mut self, direction: Direction) -> Result<Start, Problem> {
        let mut given: Option<(&'static str, Token)> = None;
        for name in ["from", "after", "before"] {
            let Some(token) = self.one::<Token>(name)? else { continue };
            if let Some((other, _)) = given {
                let problem = format!("is given beside `{other}`; give one of `from`, `after` and `before`");
                return Err(Problem::contradiction(name, problem));
            }
            let (other_way, way) = match direction {
                Direction::Forward => ("before", "forward"),
                Direction::Backward => ("after", "backward"),
            };
            if name == other_way {
                return Err(Problem::contradiction(name, format!("cannot be the start of a {way} read")));
            }
            given = Some((name, token));
        }
        Ok(Start { direction, given })
    }

    /// Refuses parameters that were not taken, and invalid UTF-8.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if !self.utf8 {
            return Err(Problem::invalid("query string", "is not UTF-8"));
        }
        let Some((name, _)) = self.rest.first() else { return Ok(()) };
        let problem = match self.known.as_slice() {
            [] => "is not a known parameter; there are no parameters".to_owned(),
            known => format!("is not a known parameter; the known parameters are {}", known.join(", ")),
        };
        Err(Problem::invalid(name, problem))
    }
}

/// The start of a read, before it is checked against the store.
pub(crate) struct Start {
    direction: Direction,
    given: Option<(&'static str, Token)>,
}

impl Start {
    /// Whether the client gave a start.
    pub(crate) fn is_given(&self) -> bool {
        self.given.is_some()
    }

    /// The position or version to read from, inclusive, unchecked.
    pub(crate) fn number(&self) -> u64 {
        match (self.given, self.direction) {
            (None, Direction::Forward) => Position::FIRST.get(),
            (None, Direction::Backward) => Position::MAX.get(),
            (Some(("after", token)), _) => token.number().saturating_add(1),
            (Some(("before", token)), _) => token.number().saturating_sub(1),
            (Some((_, token)), _) => token.number(),
        }
    }

    /// Checks that the log has the event that the client named, if it named one, and returns it.
    ///
    /// Call this after the page was read: only then is the page known to be of the client's history.
    pub(crate) async fn check_position(&self, store: &dyn EventStore) -> Result<Option<Witness>, Problem> {
        let Some((field, token)) = self.given else { return Ok(None) };
        token.position(store, field).await?;
        Ok(token.witness())
    }

    /// Checks that the stream has the event that the client named, if it named one.
    pub(crate) async fn check_version(
        &self,
        store: &dyn EventStore,
        stream: &StreamId,
    ) -> Result<(), Problem> {
        let Some((field, token)) = self.given else { return Ok(()) };
        token.version(store, stream, field).await.map(drop)
    }

    /// The position to read from, inclusive, checked.
    pub(crate) async fn position(self, store: &dyn EventStore) -> Result<Position, Problem> {
        self.check_position(store).await?;
        Ok(Position::new(self.number()))
    }

    /// The version of this stream to read from, inclusive, checked.
    pub(crate) async fn version(self, store: &dyn EventStore, stream: &StreamId) -> Result<Version, Problem> {
        self.check_version(store, stream).await?;
        Ok(Version::new(self.number()))
    }
}

/// The text of a header that may be given once.
pub(crate) fn text_header<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Problem::invalid(links::header_name(name), "is given more than once"));
    }
    let Some(value) = first else { return Ok(None) };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Problem::invalid(links::header_name(name), "is not UTF-8")),
    }
}

fn named<T>(name: &'static str, value: Result<T, Invalid>) -> Result<T, Problem> {
    value.map_err(|invalid| Problem::invalid(name, invalid.problem))
}
