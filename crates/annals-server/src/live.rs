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

#[cfg(test)]
mod tests {
    use annals_core::{
        Append, Appended, EventStore, Expected, IdempotencyKey, Limits, LogRead, MemoryStore, NewEvent,
        StoreId, StreamId, StreamInfo, StreamList, StreamPage, StreamRead,
    };
    use axum::body::BodyDataStream;
    use futures::StreamExt as _;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::watch;

    use super::*;
    use crate::metrics::Metrics;

    /// A store that counts the pages that are read from it.
    #[derive(Default)]
    struct Counted(MemoryStore, AtomicU64);

    #[async_trait::async_trait]
    impl EventStore for Counted {
        fn id(&self) -> StoreId {
            self.0.id()
        }
        async fn append(&self, append: Append) -> annals_core::Result<Appended> {
            self.0.append(append).await
        }
        async fn read_log(&self, read: LogRead) -> annals_core::Result<LogPage> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.read_log(read).await
        }
        async fn read_stream(&self, read: StreamRead) -> annals_core::Result<StreamPage> {
            self.0.read_stream(read).await
        }
        async fn list_streams(&self, list: StreamList) -> annals_core::Result<Vec<StreamInfo>> {
            self.0.list_streams(list).await
        }
        async fn outcome(&self, key: &IdempotencyKey) -> annals_core::Result<Option<Appended>> {
            self.0.outcome(key).await
        }
        async fn head(&self) -> annals_core::Result<Position> {
            self.0.head().await
        }
        async fn wait(&self, after: Position) -> annals_core::Result<Position> {
            self.0.wait(after).await
        }
    }

    /// The live stream over a log of so many events.
    async fn live_over(events: usize, query: &str) -> (Arc<Counted>, watch::Sender<bool>, BodyDataStream) {
        let store = Arc::new(Counted::default());
        let events = (0..events).map(|_| NewEvent::new("opened", "{}").expect("the type is plain"));
        let stream = StreamId::new("a").expect("the name is plain");
        store.append(Append::to(&stream, Expected::Any, events)).await.expect("memory takes it");
        let (stop, stopping) = watch::channel(false);
        let app = App {
            store: Arc::clone(&store) as Arc<dyn EventStore>,
            limits: Limits::default(),
            body_bytes_max: 0,
            metrics: Metrics::new(Vec::new()),
            upkeep: None,
            hosts: crate::guard::Hosts { loopback: true, named: Vec::new() },
            backing_up: Arc::default(),
            links: Vec::new(),
            stopping,
        };
        let query = RawQuery(Some(query.to_owned()));
        let answer = live(State(Arc::new(app)), query, HeaderMap::new()).await.expect("the request is right");
        (store, stop, answer.into_body().into_data_stream())
    }

    async fn next(body: &mut BodyDataStream) -> Option<String> {
        let piece = body.next().await?.expect("a piece cannot fail");
        Some(String::from_utf8(piece.to_vec()).expect("events are text"))
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_costs_one_page() {
        let (store, _stop, mut body) = live_over(10 * PAGE_EVENTS, "after=0").await;
        next(&mut body).await.unwrap();
        for page in 1..=10 {
            let piece = next(&mut body).await.unwrap();
            assert_eq!(piece.matches("data: ").count(), PAGE_EVENTS);
            assert_eq!(store.1.load(Ordering::SeqCst), page, "a page is read when the last one was taken");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_the_place_that_was_reached_and_then_by_a_comment() {
        let (_store, _stop, mut body) = live_over(7, "after=0&type=none").await;
        assert_eq!(next(&mut body).await.unwrap(), "retry: 1000\nid: 0\n\n");
        assert_eq!(next(&mut body).await.unwrap(), "id: 7\n\n");
        assert_eq!(next(&mut body).await.unwrap(), ": alive\n\n");
    }

    #[tokio::test]
    async fn a_shutdown_ends_a_stream_that_waits_and_one_that_is_behind() {
        for events in [1, 10 * PAGE_EVENTS] {
            let (_store, stop, mut body) = live_over(events, "after=0").await;
            next(&mut body).await.unwrap();
            next(&mut body).await.unwrap();
            stop.send_replace(true);
            assert_eq!(next(&mut body).await, None);
        }
    }
}
