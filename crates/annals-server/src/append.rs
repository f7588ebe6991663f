//! `POST /v1/streams/{stream}` and `POST /v1/append`: the endpoints that append events.
//!
//! Both build one [`Append`] and pass it to the store through [`run_append`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{
    Append, Appended, Category, Condition, Error, EventId, EventStore, EventType, Expected, IdempotencyKey,
    Invalid, KeyReuse, Limits, Query, QueryItem, StreamId, Tag, Text, Write, refuse_reserved,
};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::app::App;
use crate::expected::{self, Expectation, ExpectedVersion, Part, append_under_one};
use crate::params::{Params, StreamInPath, named_stream, text_header};
use crate::problem::Problem;
use crate::token::Token;
use crate::{body, links, paging};
use annals_json::{Incoming, List, Object, Unreadable, bounded, present};

/// Appends events to one stream.
pub(crate) async fn to_stream(
    State(app): State<Arc<App>>,
    access: Access,
    StreamInPath(stream): StreamInPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(query.as_deref()).finish()?;
    let expectation = Expectation::of(&headers)?;
    let conditions = expectation.conditions(&*access.log, &stream)?;
    let key = key_header(&headers)?;
    let body = body::read(&app, &headers, body).await?;
    let mut events = Vec::new();
    let incoming: List<Object<Incoming<'_>>> =
        bounded(lists_bytes_max(&app.limits), || body::json(&body, "events"))?;
    for (index, Object(event)) in incoming.0.into_iter().enumerate() {
        if event.stream.as_ref().is_some_and(|named| **named != *stream.as_str()) {
            let problem = format!("is not `{stream}`; for several streams there is /v1/append");
            return Err(Problem::invalid(format!("events[{index}].stream"), problem));
        }
        events.push(event.into_event().map_err(|wrong| unreadable(&body, index, &wrong))?);
    }
    let append =
        Append { key, key_reuse: reuse_header(&headers)?, ..Append::to(stream, Expected::Any, events) };
    run_append(&app, &access, append, conditions, |error| expectation.refused(error)).await
}

/// Appends events to the stream that the parameter `name` names.
pub(crate) async fn to_named(
    app: State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (stream, query) = named_stream(query.as_deref())?;
    to_stream(app, access, stream, query, headers, body).await
}

/// Appends events to one or several streams, under conditions.
pub(crate) async fn to_streams(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(query.as_deref()).finish()?;
    expected::refuse_all(&headers)?;
    let named_by_header = key_header(&headers)?;
    let text = body::read(&app, &headers, body).await?;
    let Object::<Request<'_>>(request) = bounded(lists_bytes_max(&app.limits), || body::json(&text, ""))?;
    let named_by_body = request.key.map(|key| IdempotencyKey::new(&*key)).transpose();
    let key =
        match (named_by_header, named_by_body.map_err(|invalid| Problem::invalid("key", invalid.problem))?) {
            (Some(header), Some(body)) if header != body => {
                return Err(Problem::contradiction("key", "differs from the header Idempotency-Key"));
            }
            (header, body) => header.or(body),
        };
    let mut append = Append { key, key_reuse: reuse_header(&headers)?, ..Append::new() };
    for (index, Object(mut event)) in request.events.0.into_iter().enumerate() {
        let Some(stream) = event.stream.take() else {
            return Err(Problem::invalid(format!("events[{index}].stream"), "is missing"));
        };
        let stream = StreamId::new(&*stream).map_err(|invalid| in_event(index, invalid))?;
        let event = event.into_event().map_err(|wrong| unreadable(&text, index, &wrong))?;
        append.writes.push(Write { stream, event });
    }
    for (index, Object(condition)) in request.conditions.0.into_iter().enumerate() {
        append.conditions.push(condition.into_condition(&*access.log, index)?);
    }
    let parts = append.conditions.iter().enumerate();
    let parts: Vec<Part> = parts.map(|(index, condition)| Part::of_condition(index, condition)).collect();
    run_append(&app, &access, append, Vec::new(), |error| {
        expected::refused(error, |condition| &parts[condition])
    })
    .await
}

/// Validates the append and passes it to the store, under one of the conditions in `any_of` if there are any.
/// Responds with the outcome.
async fn run_append(
    app: &App,
    access: &Access,
    append: Append,
    any_of: Vec<Condition>,
    refused: impl FnOnce(Error) -> Problem,
) -> Result<Response, Problem> {
    let each = Limits {
        append_bytes_max: usize::MAX,
        query_names_max: usize::MAX,
        query_bytes_max: usize::MAX,
        ..app.limits
    };
    append.validate(&each)?;
    // Parts that are valid alone may exceed a limit together, which no API description can express: 422.
    append.validate(&app.limits).map_err(|invalid| Problem::contradiction(invalid.field, invalid.problem))?;
    for (index, write) in append.writes.iter().enumerate() {
        refuse_reserved("stream", write.stream.as_str())
            .and_then(|()| refuse_reserved("type", write.event.event_type.as_str()))
            .map_err(|invalid| in_event(index, invalid))?;
    }
    let asked = any_of.iter().chain(&append.conditions).cloned().collect();
    access.rights.append(&Append { conditions: asked, ..append.clone() })?;
    let written: Vec<_> = append.writes.iter().map(|write| (write.stream.clone(), write.event.id)).collect();
    let outcome = append_under_one(&*access.log, append, any_of).await;
    app.metrics.appended(&outcome);
    let appended = outcome.map_err(|error| match error {
        // The request is well-formed: the store refuses it because of what it holds.
        Error::Invalid(invalid) => Problem::from(invalid).with_status(StatusCode::UNPROCESSABLE_ENTITY),
        error => refused(error),
    })?;
    let [(stream, version), ..] = appended.streams.as_slice() else {
        unreachable!("an append writes at least one stream");
    };
    let status = if appended.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let written = if appended.duplicate { access.recorded(&appended).await? } else { written };
    let answer = Answer::of(&appended, &written);
    let tag = format!("\"{}\"", answer.streams[0].witness);
    let body = match appended.duplicate {
        // An executed append must get its response. A duplicate can be sent again when there is room, and a
        // short request with the key of a large append has a large response.
        true => paging::json(&answer, app.sending.take_if_large(answer.bytes()).await?),
        false => axum::Json(answer).into_response(),
    };
    if appended.streams.len() > 1 {
        return Ok((status, body).into_response());
    }
    let first = version.get() - (appended.count() - 1);
    let location = links::with(&links::api_stream(stream), "from", first);
    let location = links::with(&location, "limit", appended.count());
    let headers = [(header::ETAG, tag), (header::LOCATION, location)];
    Ok((status, headers, body).into_response())
}

/// The outcome of an append as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    version: u64,
    first_position: u64,
    last_position: u64,
    witness: String,
    recorded_at: String,
    duplicate: bool,
    streams: Vec<Written<'a>>,
}

/// A written stream, and its version after the append.
#[derive(Serialize)]
struct Written<'a> {
    stream: &'a str,
    version: u64,
    witness: String,
}

impl<'a> Answer<'a> {
    /// Its approximate size as JSON, in bytes.
    fn bytes(&self) -> usize {
        let streams = self.streams.iter().map(|written| written.stream.len() + 128);
        256 + streams.sum::<usize>()
    }

    /// The outcome of an append whose events have these streams and ids, in order.
    fn of(appended: &'a Appended, written: &[(StreamId, EventId)]) -> Self {
        let newest: HashMap<_, _> = written.iter().map(|(stream, id)| (stream, *id)).collect();
        let streams = appended.streams.iter();
        Self {
            version: appended.version().get(),
            first_position: appended.first.get(),
            last_position: appended.last.get(),
            witness: appended.witness().to_string(),
            recorded_at: appended.recorded_at.fixed(),
            duplicate: appended.duplicate,
            streams: streams
                .map(|(stream, version)| Written {
                    stream: stream.as_str(),
                    version: version.get(),
                    witness: Token::of_version(*version, newest[stream]).to_string(),
                })
                .collect(),
        }
    }
}

/// The body of `POST /v1/append`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(borrow)]
    events: List<Object<Incoming<'a>>>,
    #[serde(default, borrow)]
    conditions: List<Object<ConditionJson<'a>>>,
    /// `null` is refused: the append would run without the key that the client meant to send.
    #[serde(default, borrow, deserialize_with = "present")]
    key: Option<Cow<'a, str>>,
}

/// The maximum memory of the lists in a body, in bytes: at least what an append within the limits needs.
fn lists_bytes_max(limits: &Limits) -> usize {
    let tags = limits.event_tags_max.saturating_mul(size_of::<Cow<'_, str>>());
    let event = tags.saturating_add(size_of::<Object<Incoming<'_>>>());
    let items = limits.query_items_max.saturating_mul(size_of::<Object<ItemJson<'_>>>());
    let condition = items.saturating_add(size_of::<Object<ConditionJson<'_>>>());
    let names = limits.query_names_max.saturating_mul(size_of::<Cow<'_, str>>());
    let events = limits.append_events_max.saturating_mul(event);
    let conditions = limits.append_conditions_max.saturating_mul(condition);
    events.saturating_add(conditions).saturating_add(names)
}

/// A condition: on a stream (`stream` and `expected`), or on the log (`query` and `after`). `null` is refused
/// instead of being taken for a missing member: a client that lost a value must not get another condition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionJson<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    stream: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    expected: Option<ExpectedVersion>,
    #[serde(default, borrow, deserialize_with = "present")]
    query: Option<List<Object<ItemJson<'a>>>>,
    #[serde(default, deserialize_with = "present")]
    after: Option<Token>,
}

/// One alternative of a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemJson<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    category: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    types: List<Cow<'a, str>>,
    #[serde(default, borrow)]
    tags: List<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    process: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    initiator: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    predecessor: Option<Cow<'a, str>>,
}

impl ConditionJson<'_> {
    /// Converts this to a condition. The store compares a token in it when it decides on the append.
    fn into_condition(self, store: &dyn EventStore, index: usize) -> Result<Condition, Problem> {
        let field = |field: &str| format!("conditions[{index}].{field}");
        let within = |invalid: Invalid| Problem::invalid(field(&invalid.field), invalid.problem);
        match self {
            Self { stream: Some(stream), expected: Some(expected), query: None, after: None } => {
                let stream = StreamId::new(&*stream).map_err(within)?;
                expected.into_condition(store, stream, &field("expected"))
            }
            Self { stream: None, expected: None, query: Some(items), after: Some(after) } => {
                let items = items.0.into_iter().enumerate().map(|(index, Object(item))| {
                    item.into_item().map_err(|invalid| {
                        Invalid::new(format!("query[{index}].{}", invalid.field), invalid.problem)
                    })
                });
                let query = Query { items: items.collect::<Result<_, _>>().map_err(within)? };
                Ok(Condition::NoMatch { query, after: after.seen() })
            }
            Self { stream: Some(_), expected: None, .. } => {
                Err(Problem::invalid(field("expected"), "is missing"))
            }
            Self { query: Some(_), after: None, .. } => Err(Problem::invalid(field("after"), "is missing")),
            _ => {
                let problem = "and `expected`, or `query` and `after`: give one pair of them";
                Err(Problem::invalid(field("stream"), problem))
            }
        }
    }
}

impl ItemJson<'_> {
    fn into_item(self) -> Result<QueryItem, Invalid> {
        let text = |text: Option<Cow<'_, str>>| text.map(|text| Text::from(text.into_owned()));
        Ok(QueryItem {
            category: self.category.map(|name| Category::new(&*name)).transpose()?,
            types: names("types", &self.types.0, |name| EventType::new(name))?,
            tags: names("tags", &self.tags.0, |name| Tag::new(name))?,
            process: text(self.process),
            initiator: text(self.initiator),
            id: self.id.map(|id| id.parse()).transpose()?,
            predecessor: text(self.predecessor),
        })
    }
}

/// Checks each name of a list.
fn names<T>(
    field: &str,
    texts: &[Cow<'_, str>],
    check: impl Fn(&str) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let names = texts.iter().enumerate().map(|(index, text)| {
        check(text).map_err(|invalid| Invalid::new(format!("{field}[{index}]"), invalid.problem))
    });
    names.collect()
}

/// The problem of an invalid event in this body, with its line and column if they are known.
fn unreadable(body: &[u8], index: usize, wrong: &Unreadable<'_>) -> Problem {
    let problem = in_event(index, wrong.invalid.clone());
    let Some(place) = wrong.place else { return problem };
    // `place` is a slice of the body, because the event was deserialized without a copy.
    let offset = (place.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    match body.get(..offset) {
        Some(before) => body::located(problem, body::place_after(before)),
        None => problem,
    }
}

fn in_event(index: usize, invalid: Invalid) -> Problem {
    Problem::invalid(format!("events[{index}].{}", invalid.field), invalid.problem)
}

fn key_header(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let text = text_header(headers, "idempotency-key")?;
    // Clients and proxies disagree on the encoding of other characters in headers, and a key that is decoded
    // differently is another key.
    if text.is_some_and(|text| !text.bytes().all(|byte| matches!(byte, b' '..=b'~'))) {
        let problem =
            "has other characters than those of ASCII; give such a key as `key` in the body of /v1/append";
        return Err(Problem::invalid("Idempotency-Key", problem));
    }
    let key = text.map(IdempotencyKey::new).transpose();
    key.map_err(|invalid| Problem::invalid("Idempotency-Key", invalid.problem))
}

/// How to treat a key that was used before.
fn reuse_header(headers: &HeaderMap) -> Result<KeyReuse, Problem> {
    match text_header(headers, "idempotency-reuse")? {
        None | Some("refuse") => Ok(KeyReuse::Refuse),
        Some("original") => Ok(KeyReuse::Original),
        Some(other) => {
            Err(Problem::invalid("Idempotency-Reuse", format!("`{other}` is not `refuse` or `original`")))
        }
    }
}
