//! `GET /v1/events/live`: the log as server-sent events, first those stored, then live.
//!
//! ```text
//! id: 7
//! data: {"position":7,"stream":"account-42",…}
//! ```
//!
//! - L1  The id of a message is its position, so a client that reconnects with `Last-Event-ID` misses nothing.
//! - L2  The next page is read from the store when the client has taken the last one: a slow client holds
//!   one page, however far behind it is.
//! - L3  An id without data moves a client on past events that its filter passed over, and gives it a place
//!   to resume from before the first event.
//! - L4  The stream ends when the server shuts down.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Bytes, LogPage, Position, Subscription};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;

use crate::app::App;
use crate::event_json;
use crate::metrics::Subscriber;
use crate::params::Params;
use crate::problem::Problem;

/// How long nothing is sent before a sign of life is.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Most events of one piece of the stream.
const PAGE_EVENTS: usize = 100;

/// Sends events after a position, for ever.
pub(crate) async fn live(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let after = params.one::<Position>("after")?;
    let query = params.query()?;
    params.finish()?;
    // A browser that reconnects repeats the address, so where it got to comes before where it began.
    let (field, after) = match headers.get("last-event-id") {
        Some(value) => ("Last-Event-ID", Some(last_event_id(value)?)),
        None => ("after", after),
    };
    let head = app.store.head().await?;
    let after = after.unwrap_or(head);
    if after > head {
        let problem = format!("is {after}, but the newest event is at position {head}: this is another log");
        return Err(Problem::invalid(field, problem));
    }
    let subscription = Subscription::new(Arc::clone(&app.store), after, query).page_limit(PAGE_EVENTS);
    let subscriber = app.metrics.subscriber();
    let feed = Feed { app, subscription, told: after, _subscriber: subscriber };
    let first = Bytes::from(format!("retry: 1000\nid: {after}\n\n"));
    let pieces = stream::unfold((feed, Some(first)), async |(mut feed, first)| {
        let piece = match first {
            Some(first) => first,
            None => feed.next().await?,
        };
        Some((Ok::<_, Infallible>(piece), (feed, None)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that buffer would hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn last_event_id(value: &HeaderValue) -> Result<Position, Problem> {
    let text = value.to_str().unwrap_or("…");
    text.trim().parse().map_err(|_| Problem::invalid("Last-Event-ID", format!("`{text}` is not a position")))
}

/// One client's place in the log.
struct Feed {
    app: Arc<App>,
    subscription: Subscription,
    /// The last id that the client was told.
    told: Position,
    _subscriber: Subscriber,
}

impl Feed {
    /// The next piece of the stream; nothing when it ends.
    async fn next(&mut self) -> Option<Bytes> {
        if self.app.is_stopping() {
            return None;
        }
        let app = Arc::clone(&self.app);
        let page = tokio::select! {
            () = app.stopped() => return None,
            page = tokio::time::timeout(SILENCE_MAX, self.next_events()) => page,
        };
        match page {
            Ok(Ok(page)) => Some(self.messages(&page)),
            Ok(Err(error)) => {
                tracing::warn!(code = error.code(), "a live stream ends: {}", error.chain());
                None
            }
            Err(_silence) => Some(self.sign_of_life()),
        }
    }

    /// The next page that has an event.
    async fn next_events(&mut self) -> annals_core::Result<LogPage> {
        loop {
            let page = self.subscription.next_page().await?;
            if !page.events.is_empty() {
                return Ok(page);
            }
        }
    }

    fn messages(&mut self, page: &LogPage) -> Bytes {
        let mut bytes = Vec::new();
        for event in &page.events {
            bytes.extend_from_slice(format!("id: {}\ndata: ", event.position).as_bytes());
            bytes.extend_from_slice(&event_json::line(event));
            bytes.extend_from_slice(b"\n\n");
            self.told = event.position;
        }
        bytes.into()
    }

    /// A comment; with the place that the client has come to, if that has moved unseen.
    fn sign_of_life(&mut self) -> Bytes {
        let here = self.subscription.checkpoint();
        if here > self.told {
            self.told = here;
            return Bytes::from(format!("id: {here}\n\n"));
        }
        Bytes::from_static(b": alive\n\n")
    }
}
