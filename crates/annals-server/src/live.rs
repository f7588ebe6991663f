//! `GET /v1/events/live`: the log as server-sent events, first the stored ones, then live ones.
//!
//! ```text
//! id: 7@0f8fad5b-d9cb-469f-a165-70867728950e
//! data: {"position":7,"stream":"account-42",…}
//! ```
//!
//! - L1  The id of a message is the witness of its event, so a client that reconnects with `Last-Event-ID`
//!   misses no event, and a client whose history was lost is refused. If the log loses events that an open
//!   stream has sent, the stream ends with the message `other-history` and sends no event that took their
//!   positions.
//! - L2  The next page is read after the client has received the last one, and is made once for all clients
//!   at the same place (`live_pages.rs`). A client that does not read is disconnected (`flow.rs`) and resumes
//!   where it was.
//! - L3  An id without data advances a client past events that its filter skips, and gives it a place to
//!   resume from before the first event.
//! - L4  The stream ends when the server shuts down, when there is no room for its next page, when the store
//!   fails, and when its token is removed or has other rights.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Bytes, LogRead, Position, Query, Witness};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::access::Access;
use crate::app::App;
use crate::live_pages::{LivePage, NoPage, PAGE_EVENTS};
use crate::metrics::Subscriber;
use crate::params::Params;
use crate::problem::Problem;
use crate::room::overloaded;
use crate::token::{self, Token};

/// The maximum pause before a keep-alive is sent.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Streams the events after a position, without an end.
pub(crate) async fn live(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref());
    let after = params.one::<Token>("after")?;
    let query = params.query()?;
    params.finish()?;
    access.rights.read_query(&query)?;
    // Checked now: a stream that fails right after its start would make the client reconnect again and again.
    LogRead::forward(Position::FIRST).matching(query.clone()).validate(&app.limits)?;
    let query = Arc::new(query);
    // A browser reconnects with the same URL, so `Last-Event-ID` takes precedence over `after`.
    let (field, after) = match headers.get("last-event-id") {
        Some(value) => ("Last-Event-ID", Some(last_event_id(value)?)),
        None => ("after", after),
    };
    let head = access.log.head().await?;
    let position = match after {
        Some(token) => token.position(&*access.log, field).await?,
        None => head,
    };
    if position > head {
        let problem =
            format!("is {position}, but the newest event is at position {head}: this is another log");
        return Err(Problem::invalid(field, problem));
    }
    let Ok(permit) = Arc::clone(&app.live_streams).try_acquire_owned() else {
        return Err(overloaded("there are too many live streams"));
    };
    // The client's own witness: one that is read now could be of another history than the checked one.
    let here = match after.and_then(Token::witness) {
        Some(witness) => witness,
        None => token::of_log(&*access.log, access.place(position).await?, &[]).await?,
    };
    let subscriber = app.metrics.subscriber();
    let feed = Feed {
        app,
        access,
        query,
        seen: here,
        sent: here,
        limit: PAGE_EVENTS,
        ended: false,
        _subscriber: subscriber,
        _permit: permit,
    };
    let first = Bytes::from(format!("retry: 1000\nid: {here}\n\n"));
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
        // A proxy that buffers would delay events.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn last_event_id(value: &HeaderValue) -> Result<Token, Problem> {
    let text = value.to_str().unwrap_or("…");
    text.trim().parse().map_err(|_| {
        Problem::invalid(
            "Last-Event-ID",
            format!("`{text}` is not an id of a live stream, such as `42@UUID`"),
        )
    })
}

/// The live stream of one client.
struct Feed {
    app: Arc<App>,
    access: Access,
    query: Arc<Query>,
    /// The place after which the next page begins.
    seen: Witness,
    /// The last id that was sent.
    sent: Witness,
    /// The number of events that the next page should have.
    limit: usize,
    /// Whether the last message was sent.
    ended: bool,
    _subscriber: Subscriber,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    /// The next piece of the stream; `None` when it ends.
    async fn next(&mut self) -> Option<Bytes> {
        if self.app.is_stopping() || self.ended {
            return None;
        }
        let (app, access) = (Arc::clone(&self.app), self.access.clone());
        let page = tokio::select! {
            () = app.stopped() => return None,
            () = app.gate.revoked(access.token()) => {
                tracing::info!("a live stream ends: its token is gone or has other rights");
                return None;
            }
            page = tokio::time::timeout(SILENCE_MAX, self.next_events()) => page,
        };
        match page {
            Ok(Ok(messages)) => Some(messages),
            Ok(Err(NoPage::Overloaded(problem))) => {
                tracing::warn!("a live stream ends: {}", problem.detail());
                None
            }
            Ok(Err(NoPage::Failed(error))) => {
                tracing::warn!(code = error.code(), "a live stream ends: {}", error.chain());
                None
            }
            Ok(Err(NoPage::Lost)) => Some(self.lost()),
            Ok(Err(NoPage::NotYet)) | Err(_) => Some(self.sign_of_life()),
        }
    }

    /// The next page that has an event.
    async fn next_events(&mut self) -> Result<Bytes, NoPage> {
        loop {
            let pages = &self.app.live_pages;
            let (log, shown) = (&*self.access.log, &self.access.rights.read);
            let cell = pages.page(log, shown, self.seen, &self.query, self.limit).await?;
            let page = cell.get().ok_or(NoPage::NotYet)?;
            (self.seen, self.limit) = (page.through, page.limit);
            if let Some(last) = page.last {
                self.sent = last;
                return Ok(LivePage::messages(cell));
            }
        }
    }

    /// A keep-alive: the id of the place that was reached, or a comment if the client already has it.
    fn sign_of_life(&mut self) -> Bytes {
        if self.seen == self.sent {
            return Bytes::from_static(b": alive\n\n");
        }
        self.sent = self.seen;
        Bytes::from(format!("id: {}\n\n", self.seen))
    }

    /// The last message: the log has lost events that were sent to the client. A client that reconnects with
    /// the id of one is refused with the same problem, but an `EventSource` does not show the body of a
    /// refusal.
    fn lost(&mut self) -> Bytes {
        self.ended = true;
        tracing::warn!("a live stream ends: the log does not have the event {} any more", self.seen);
        let problem = token::lost("Last-Event-ID", self.seen);
        let mut message = b"event: other-history\ndata: ".to_vec();
        message.extend_from_slice(&problem.to_json());
        message.extend_from_slice(b"\n\n");
        Bytes::from(message)
    }
}

#[cfg(test)]
mod tests {
    use annals_core::{
        Append, Appended, Direction, EventStore, Expected, IdempotencyKey, LogPage, MemoryStore, NewEvent,
        Position, StoreId, StreamId, StreamInfo, StreamList, StreamPage, StreamRead,
    };
    use axum::body::BodyDataStream;
    use futures::StreamExt as _;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::watch;

    use super::*;
    use crate::access::{Principal, Right};

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
            self.1.fetch_add(u64::from(read.direction == Direction::Forward), Ordering::SeqCst);
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

    /// An app over a log with this many events.
    async fn app_over(events: usize) -> (Arc<Counted>, watch::Sender<bool>, Arc<App>) {
        let store = Arc::new(Counted::default());
        let events = (0..events).map(|_| NewEvent::new("opened", "{}").expect("the type is plain"));
        let stream = StreamId::new("a").expect("the name is plain");
        store.append(Append::to(&stream, Expected::Any, events)).await.expect("memory takes it");
        let (stop, stopping) = watch::channel(false);
        let app = App::plain(Arc::clone(&store) as Arc<dyn EventStore>, stopping);
        (store, stop, Arc::new(app))
    }

    async fn body(app: &Arc<App>, query: &str) -> BodyDataStream {
        let query = RawQuery(Some(query.to_owned()));
        let answer = live(
            State(Arc::clone(app)),
            Access::to(app, Right::Read, Principal::Anybody),
            query,
            HeaderMap::new(),
        )
        .await;
        answer.expect("the request is right").into_body().into_data_stream()
    }

    /// The live stream of a log with this many events.
    async fn live_over(events: usize, query: &str) -> (Arc<Counted>, watch::Sender<bool>, BodyDataStream) {
        let (store, stop, app) = app_over(events).await;
        let body = body(&app, query).await;
        (store, stop, body)
    }

    /// The position in an id.
    fn place(piece: &str) -> &str {
        piece.split_once("id: ").and_then(|(_, id)| id.split_once('@')).expect("the piece has an id").0
    }

    async fn next(body: &mut BodyDataStream) -> Option<String> {
        let piece = body.next().await?.expect("a piece cannot fail");
        Some(String::from_utf8(piece.to_vec()).expect("events are text"))
    }

    #[tokio::test]
    async fn the_next_page_is_read_when_the_last_one_was_taken() {
        let (store, _stop, mut body) = live_over(10 * PAGE_EVENTS, "after=0").await;
        next(&mut body).await.unwrap();
        for page in 1..=10 {
            let piece = next(&mut body).await.unwrap();
            assert_eq!(piece.matches("data: ").count(), PAGE_EVENTS);
            assert_eq!(store.1.load(Ordering::SeqCst), page, "a page is read when the last one was taken");
        }
    }

    #[tokio::test]
    async fn a_page_is_rendered_once_for_all_readers_at_its_position() {
        let (store, _stop, app) = app_over(PAGE_EVENTS).await;
        let mut bodies = Vec::new();
        for _ in 0..10 {
            bodies.push(body(&app, "after=0&category=a").await);
        }
        let mut sent = Vec::new();
        for body in &mut bodies {
            body.next().await.unwrap().unwrap();
            sent.push(body.next().await.unwrap().unwrap());
        }
        assert_eq!(store.1.load(Ordering::SeqCst), 1, "one page is read");
        assert!(sent.iter().all(|piece| piece.as_ptr() == sent[0].as_ptr()), "and it is one in memory");
        let taken = app.sending.taken();
        assert!(taken > 0 && taken <= sent[0].len() + 1_024, "it takes room once: {taken} bytes");
        drop(bodies);
        assert_eq!(app.sending.taken(), taken, "what has not been sent keeps its room");
        drop(sent);
        assert_eq!(app.sending.taken(), 0, "the room is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_there_is_no_room_for_its_next_page() {
        let (_store, _stop, app) = app_over(PAGE_EVENTS).await;
        let all = app.sending.try_take(usize::MAX).unwrap();
        let mut body = body(&app, "after=0").await;
        assert_eq!(place(&next(&mut body).await.unwrap()), "0");
        assert_eq!(next(&mut body).await, None);
        drop(all);
    }

    #[tokio::test]
    async fn the_number_of_streams_is_limited() {
        let (_store, _stop, app) = app_over(1).await;
        let mut bodies = Vec::new();
        for _ in 0..app.bounds.live_streams {
            bodies.push(body(&app, "after=0").await);
        }
        let again = || {
            let access = Access::to(&app, Right::Read, Principal::Anybody);
            live(State(Arc::clone(&app)), access, RawQuery(None), HeaderMap::new())
        };
        assert_eq!(again().await.unwrap_err().status(), 503);
        drop(bodies.pop());
        assert!(again().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_the_place_that_was_reached_and_then_by_a_comment() {
        let (_store, _stop, mut body) = live_over(7, "after=0&type=none").await;
        let first = next(&mut body).await.unwrap();
        assert!(first.starts_with("retry: 1000\nid: 0@"), "{first}");
        assert_eq!(place(&next(&mut body).await.unwrap()), "7");
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
