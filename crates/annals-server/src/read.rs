//! `GET /v1/streams/{stream}`, `GET /v1/streams` and `GET /v1/events`: events go out, a page at a time.

use std::sync::Arc;

use annals_core::{Category, Direction, StreamId, StreamInfo, StreamList, StreamRead, Version};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::app::App;
use crate::event_json::Embedded;
use crate::params::{Params, StreamInPath};
use crate::problem::Problem;

/// A page of one stream. One that does not exist has version 0 and no events.
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    StreamInPath(stream): StreamInPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let direction = params.direction()?;
    let start = if direction == Direction::Forward { Version::FIRST } else { Version::MAX };
    let from = params.one("from")?.unwrap_or(start);
    let limit = params.limit()?;
    params.finish()?;

    let read = StreamRead { stream: stream.clone(), from, direction, limit };
    let page = app.store.read_stream(read).await?;
    // Events never change, so at one version of the stream this address has one answer.
    let tag = format!("\"{}\"", page.version);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let body = StreamJson {
        stream: stream.as_str(),
        version: page.version.get(),
        events: page.events.iter().map(Embedded).collect(),
        next: page.next.get(),
        end: page.end,
    };
    Ok(([(header::ETAG, tag)], axum::Json(body)).into_response())
}

/// A page of the log.
pub(crate) async fn log(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let read = params.log_read()?;
    params.finish()?;
    let page = app.store.read_log(read).await?;
    let body = LogJson {
        events: page.events.iter().map(Embedded).collect(),
        next: page.next.get(),
        end: page.end,
        head: page.head.get(),
    };
    Ok(axum::Json(body).into_response())
}

/// A page of the names of streams.
pub(crate) async fn streams(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let category = params.one::<Category>("category")?;
    let after = params.one::<StreamId>("after")?;
    let limit = params.limit()?;
    params.finish()?;
    let found = app.store.list_streams(StreamList { category, after, limit }).await?;
    let body = StreamsJson { streams: found.iter().map(InfoJson::of).collect(), end: found.len() < limit };
    Ok(axum::Json(body).into_response())
}

#[derive(Serialize)]
struct StreamJson<'a> {
    stream: &'a str,
    version: u64,
    events: Vec<Embedded<'a>>,
    next: u64,
    end: bool,
}

#[derive(Serialize)]
struct LogJson<'a> {
    events: Vec<Embedded<'a>>,
    next: u64,
    end: bool,
    head: u64,
}

#[derive(Serialize)]
struct StreamsJson<'a> {
    streams: Vec<InfoJson<'a>>,
    end: bool,
}

/// A stream, and how far it has come.
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
