//! `GET /v1/streams/{stream}`, `GET /v1/streams` and `GET /v1/events`: the endpoints that read a page of
//! events or streams.

use std::sync::Arc;

use annals_consume::reached;
use annals_core::{
    Category, Direction, EventStore, LogPage, LogRead, Position, StreamId, StreamInfo, StreamList,
    StreamRead, Version, Witness,
};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::access::Access;
use crate::app::App;
use crate::etag;
use crate::paging;
use crate::params::{Params, StreamInPath, named_stream};
use crate::problem::Problem;
use crate::token::{self, Token};
use annals_json::Embedded;

/// A page of one stream. A stream that does not exist has version 0 and no events.
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    access: Access,
    StreamInPath(stream): StreamInPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let direction = params.direction()?;
    let start = params.start(direction)?;
    let (to, limit) = (params.one::<Token>("to")?, params.limit()?);
    params.finish()?;
    access.rights.read_stream(&stream)?;
    let from = Version::new(start.number());
    let last = to.map_or(Version::MAX, |to| Version::new(to.number()));

    let read = StreamRead { direction, ..StreamRead::forward(&stream, from).to(last).limit(limit) };
    let read = || {
        let (store, read) = (Arc::clone(&access.log), read.clone());
        async move { store.read_stream(read).await }
    };
    let (page, taken) = paging::with_room(&app.sending, read, |page| &page.events).await?;
    // After the page was read, so that the page is of the client's history.
    start.check_version(&*access.log, &stream).await?;
    if let Some(to) = to {
        to.version(&*access.log, &stream, "to").await?;
    }
    // Events never change, so within one history a URL has one response per version of the stream.
    let newest = token::of_page(&*access.log, &stream, page.version, &page.events).await?;
    let tag = format!("\"{newest}\"");
    if etag::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let reached = match direction {
        Direction::Forward => page.next.previous().min(page.version),
        Direction::Backward => page.next.next().min(page.version),
    };
    let reached = token::of_stream(&*access.log, &stream, reached, &page.events).await?.to_string();
    let (after, before) = either(direction, reached);
    let body = StreamJson {
        stream: stream.as_str(),
        version: page.version.get(),
        events: page.events.iter().map(Embedded).collect(),
        next: page.next.get(),
        after,
        before,
        end: page.end,
    };
    Ok(([(header::ETAG, tag)], paging::json(&body, taken)).into_response())
}

/// A page of the stream given by the parameter `name`.
pub(crate) async fn named(
    app: State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, query) = named_stream(query.as_deref())?;
    stream(app, access, name, query, headers).await
}

/// A page of the log.
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let direction = params.direction()?;
    let start = params.start(direction)?;
    let to = params.one::<Token>("to")?;
    let (limit, query) = (params.limit()?, params.query()?);
    params.finish()?;
    access.rights.read_query(&query)?;
    let from = Position::new(start.number());
    let last = to.map_or(Position::MAX, |to| Position::new(to.number()));
    let read = LogRead { direction, ..LogRead::forward(from).to(last).matching(query).limit(limit) };
    let page = || {
        let (store, read) = (Arc::clone(&access.log), read.clone());
        async move { store.read_log(read).await }
    };
    let (page, taken) = paging::with_room(&app.sending, page, |page| &page.events).await?;
    // After the page was read, so that the page is of the client's history.
    let known = start.check_position(&*access.log).await?;
    if let Some(to) = to {
        to.position(&*access.log, "to").await?;
    }
    if direction == Direction::Forward && from > page.head.next() {
        beyond(&*access.log, from).await?;
    }
    let place = end_of(&access, &read, &page, known).await?;
    // Within one history the response of a URL depends only on the head; the newest event of the page
    // identifies the history.
    let newest = match direction {
        Direction::Forward => place,
        Direction::Backward => page.events.first().map_or(place, Witness::of),
    };
    let tag = format!("\"{newest}+{}\"", page.head);
    if etag::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let (after, before) = either(direction, place.to_string());
    let body = LogJson {
        events: page.events.iter().map(Embedded).collect(),
        next: page.next.get(),
        after,
        before,
        end: page.end,
        head: page.head.get(),
    };
    Ok(([(header::ETAG, tag)], paging::json(&body, taken)).into_response())
}

/// The witness at the end of a page. `known` is the event at which the client starts, if it named one.
async fn end_of(
    access: &Access,
    read: &LogRead,
    page: &LogPage,
    known: Option<Witness>,
) -> Result<Witness, Problem> {
    let end = match read.direction {
        Direction::Forward => page.next.previous().min(page.head),
        Direction::Backward => page.next.next().min(page.head),
    };
    let (store, end) = (&*access.log, access.place(end).await?);
    match page.events.last().map(Witness::of).or(known) {
        Some(last) if read.direction == Direction::Forward => {
            Ok(reached(store, &read.query, last, end).await?.ok_or_else(token::changed)?)
        }
        _ => {
            let place = token::of_log(store, end, &page.events).await?;
            // An event that the log still has was never lost, and neither was any event before it.
            let newest = page.events.first().map(Witness::of).or(known).filter(|newest| *newest != place);
            match newest {
                Some(newest) if !newest.holds(store).await? => Err(token::changed().into()),
                _ => Ok(place),
            }
        }
    }
}

/// Refuses a position beyond the end of the log: the log was longer when the client got it.
async fn beyond(log: &dyn EventStore, from: Position) -> Result<(), Problem> {
    // A page may come from a replica, which may lag.
    let head = log.head().await?;
    if from <= head.next() {
        return Ok(());
    }
    let detail = format!(
        "`from` is {from}, but the newest event is at position {head}: the log was restored, or it is another log"
    );
    Err(Problem::new(StatusCode::CONFLICT, "other-history", detail)
        .with("field", "from")
        .with("head", head.get()))
}

/// The end of a page, as the parameters `after` and `before`: the one of this direction resumes there.
fn either(direction: Direction, reached: String) -> (Option<String>, Option<String>) {
    match direction {
        Direction::Forward => (Some(reached), None),
        Direction::Backward => (None, Some(reached)),
    }
}

/// A page of the names of streams.
pub(crate) async fn streams(access: Access, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let category = params.one::<Category>("category")?;
    let after = params.one::<StreamId>("after")?;
    let limit = params.limit()?;
    params.finish()?;
    if let Some(category) = &category {
        access.rights.read_category("category", category)?;
    }
    let found = access.log.list_streams(StreamList { category, after, limit }).await?;
    let body = StreamsJson {
        streams: found.iter().map(InfoJson::of).collect(),
        after: found.last().map(|info| info.stream.as_str()),
        end: found.len() < limit,
    };
    Ok(axum::Json(body).into_response())
}

#[derive(Serialize)]
struct StreamJson<'a> {
    stream: &'a str,
    version: u64,
    events: Vec<Embedded<'a>>,
    next: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    end: bool,
}

#[derive(Serialize)]
struct LogJson<'a> {
    events: Vec<Embedded<'a>>,
    next: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    end: bool,
    head: u64,
}

#[derive(Serialize)]
struct StreamsJson<'a> {
    streams: Vec<InfoJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a str>,
    end: bool,
}

/// A stream, its version and the position of its newest event.
#[derive(Serialize)]
struct InfoJson<'a> {
    stream: &'a str,
    version: u64,
    position: u64,
}

impl<'a> InfoJson<'a> {
    fn of(info: &'a StreamInfo) -> Self {
        Self { stream: info.stream.as_str(), version: info.version.get(), position: info.position.get() }
    }
}
