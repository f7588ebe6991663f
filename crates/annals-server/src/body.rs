//! The body of a request: checks of its type, size, rate and JSON.
//!
//! - B1  A body must arrive at a minimum average rate: a client that sends a few bytes now and then does not
//!       occupy a handler.
//! - B2  All bodies together share one limit.
//! - B3  A body that holds room does not wait for more: all that `Content-Length` announces is taken at once,
//!   before the body is read, and a body without it is refused when there is no more. So there is no deadlock
//!   between bodies.
//! - B4  On shutdown, a body that does not arrive soon is refused, and nothing of it is executed.

use std::ops::Deref;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;

use crate::app::App;
use crate::problem::Problem;
use crate::room::{SMALL_BYTES, Taken, overloaded};
use annals_json::syntax_error;

/// The period over which the rate of a body is measured.
const WINDOW: Duration = Duration::from_secs(30);
/// The interval of the check whether others wait for room.
const LOOK: Duration = Duration::from_secs(5);
/// The minimum rate in bytes per second.
const RATE_MIN: u64 = 16 << 10;
/// How long a body may still take after a shutdown begins.
const STOPPING_MAX: Duration = Duration::from_secs(2);
/// Room is taken in steps of this many bytes.
const STEP_BYTES: usize = 256 << 10;
/// The maximum number of bytes that are allocated because a client announced them.
const BELIEVED_BYTES: usize = 1 << 20;
/// While others wait for room, a body must arrive fast enough to fill the room that it holds within this
/// time.
const TAKEN_MAX: Duration = Duration::from_secs(120);

/// A received body. It keeps its room until it is dropped, when the request has been handled.
pub(crate) struct Received {
    bytes: Vec<u8>,
    _taken: Taken,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a JSON body.
pub(crate) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    check_head(app, headers)?;
    tokio::select! {
        received = receive(app, headers, body) => received,
        () = stopped(app) => {
            let detail = "the server is shutting down, and the body did not arrive in time; nothing was done";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting-down", detail))
        }
    }
}

fn check_head(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = format!("the content type is `{given}`; send application/json");
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail);
        return Err(problem.with("field", "Content-Type"));
    }
    if let Some(coding) = packed(headers) {
        let detail = format!("the body is compressed ({coding}); send it uncompressed");
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail);
        return Err(problem.with("field", "Content-Encoding"));
    }
    match announced(headers) {
        Some(length) if length > app.body_bytes_max => Err(too_large(app)),
        _ => Ok(()),
    }
}

/// The coding with which the body is compressed, if it is.
fn packed(headers: &HeaderMap) -> Option<String> {
    let codings = |name| headers.get_all(name).into_iter();
    let content = codings(header::CONTENT_ENCODING).map(|value| (value, "identity"));
    let transfer = codings(header::TRANSFER_ENCODING).map(|value| (value, "chunked"));
    content.chain(transfer).find_map(|(value, plain)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        value.split(',').map(str::trim).find(|one| !one.eq_ignore_ascii_case(plain)).map(str::to_owned)
    })
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

fn too_large(app: &App) -> Problem {
    let detail = format!("the body is larger than {} bytes", app.body_bytes_max);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
}

async fn receive(app: &App, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    let mut bytes = Vec::with_capacity(announced(headers).unwrap_or(0).min(BELIEVED_BYTES));
    let (mut taken, mut room) = match announced(headers).filter(|length| *length > SMALL_BYTES) {
        Some(length) => (app.bodies.take(length).await?, length),
        None => (Taken::default(), SMALL_BYTES),
    };
    let mut pace = Pace::new();
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::select! {
            biased;
            piece = pieces.next() => piece,
            () = tokio::time::sleep_until(pace.look) => {
                pace.check(app, room)?;
                continue;
            }
        };
        let piece = match piece {
            None => return Ok(Received { bytes, _taken: taken }),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Err(Problem::invalid("body", format!("broke off: {error}"))),
        };
        if piece.len() > app.body_bytes_max - bytes.len() {
            return Err(too_large(app));
        }
        while bytes.len() + piece.len() > room {
            let more = match app.bodies.try_take(STEP_BYTES) {
                Some(more) => more,
                None if room == SMALL_BYTES => {
                    let more = app.bodies.take(STEP_BYTES).await?;
                    // Nothing was read while this waited for room, so the measurement restarts.
                    pace = Pace::new();
                    more
                }
                None => {
                    let why = "bodies of other requests take all the room that there is, and this one did not announce \
                               its `Content-Length`";
                    return Err(overloaded(why));
                }
            };
            taken.add(more);
            room += STEP_BYTES;
        }
        pace.received += piece.len() as u64;
        pace.recently += piece.len() as u64;
        bytes.extend_from_slice(&piece);
    }
}

/// The rate at which a body arrives.
struct Pace {
    since: Instant,
    received: u64,
    /// Bytes received since the last check.
    recently: u64,
    look: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), received: 0, recently: 0, look: Instant::now() + LOOK }
    }

    /// Refuses a body that is too slow over the last [`WINDOW`], or over the last [`LOOK`] if others wait for
    /// room. `room` is the number of bytes that this body holds.
    fn check(&mut self, app: &App, room: usize) -> Result<(), Problem> {
        let lasted = self.since.elapsed();
        let over = lasted >= WINDOW;
        let too_slow = over && self.received < RATE_MIN * lasted.as_secs();
        let rate =
            if app.bodies.is_short() { RATE_MIN.max(room as u64 / TAKEN_MAX.as_secs()) } else { RATE_MIN };
        let in_the_way = app.bodies.is_short() && self.recently < rate * LOOK.as_secs();
        if too_slow || in_the_way {
            let detail = format!(
                "{} bytes of the body came in {} seconds; it must come at {rate} bytes a second",
                self.received,
                lasted.as_secs()
            );
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail));
        }
        if over {
            (self.since, self.received) = (Instant::now(), 0);
        }
        (self.look, self.recently) = (Instant::now() + LOOK, 0);
        Ok(())
    }
}

/// Completes [`STOPPING_MAX`] after a shutdown begins.
async fn stopped(app: &App) {
    app.stopped().await;
    tokio::time::sleep(STOPPING_MAX).await;
}

/// Parses JSON. An error has its path below `root`, its line and its column.
pub(crate) fn json<'de, T: Deserialize<'de>>(body: &'de [u8], root: &str) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = (error.inner().line(), error.inner().column());
        located(Problem::from(syntax_error(&error, root)), place)
    })?;
    json.end().map_err(|error| {
        located(
            Problem::invalid("body", format!("does not end where its JSON does: {error}")),
            (error.line(), error.column()),
        )
    })?;
    Ok(value)
}

/// Adds the line and column to a problem.
pub(crate) fn located(problem: Problem, (line, column): (usize, usize)) -> Problem {
    problem.with("line", line).with("column", column)
}

/// The line and column of the byte after these.
pub(crate) fn place_after(before: &[u8]) -> (usize, usize) {
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    (1 + before.iter().filter(|&&byte| byte == b'\n').count(), before.len() - line_start + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use annals_core::{Bytes, MemoryStore};
    use axum::http::HeaderValue;
    use futures::stream;
    use tokio::sync::watch;

    use super::*;

    fn app() -> (watch::Sender<bool>, App) {
        let (stop, stopping) = watch::channel(false);
        (stop, App::plain(Arc::new(MemoryStore::new()), stopping))
    }

    /// A body that arrives in pieces of this many bytes, with this many seconds between them.
    fn body(bytes: usize, pause: u64, pieces: usize) -> Body {
        let piece = Bytes::from(vec![b' '; bytes]);
        Body::from_stream(stream::unfold(0, move |sent| {
            let piece = piece.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                (sent < pieces).then_some((Ok::<_, std::convert::Infallible>(piece), sent + 1))
            }
        }))
    }

    async fn status(app: &App, body: Body) -> (u16, u64) {
        status_of(app, body, None).await
    }

    /// The status and the duration for a body that may announce its length.
    async fn status_of(app: &App, body: Body, length: Option<usize>) -> (u16, u64) {
        let started = Instant::now();
        let json = HeaderValue::from_static("application/json");
        let mut headers: HeaderMap = [(header::CONTENT_TYPE, json)].into_iter().collect();
        headers.extend(length.map(|length| (header::CONTENT_LENGTH, HeaderValue::from(length))));
        let status =
            read(app, &headers, body).await.map_or_else(|problem| problem.status().as_u16(), |_| 200);
        (status, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_come_at_some_rate_as_a_whole() {
        let (_stop, app) = app();
        assert_eq!(status(&app, body(1, 10, usize::MAX)).await, (408, 30));
        assert_eq!(status(&app, body(1, 1_000, 1)).await, (408, 30));
        // A small body has half a minute; a large one has no limit as long as it keeps arriving.
        assert_eq!(status(&app, body(1, 9, 2)).await.0, 200);
        let (ended, seconds) = status(&app, body(40 << 10, 2, 200)).await;
        assert_eq!((ended, seconds > 300), (200, true));
        // Fast at first, then nearly stalled.
        let fast = body(1 << 20, 1, 4).into_data_stream();
        let slow = body(1, 10, usize::MAX).into_data_stream();
        assert_eq!(status(&app, Body::from_stream(fast.chain(slow))).await, (408, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_gives_way_to_one_that_needs_its_room() {
        let (_stop, app) = app();
        let rest = app.bodies.try_take((128 << 20) - (8 << 20)).unwrap();
        let stalled =
            body(5 << 20, 0, 1).into_data_stream().chain(body(1, 10, usize::MAX).into_data_stream());
        let stalled = status_of(&app, Body::from_stream(stalled), Some(6 << 20));
        let (stalled, other) = tokio::join!(stalled, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            status_of(&app, body(5 << 20, 0, 1), Some(5 << 20)).await
        });
        assert_eq!((stalled.0, other.0), (408, 200));
        assert!(stalled.1 <= 10 && other.1 <= 10, "{stalled:?} {other:?}");
        drop(rest);
        assert_eq!(app.bodies.taken(), 0);
    }

    /// Four of them fit. If each took its room in steps, all five would hold a part and wait for the others.
    #[tokio::test(start_paused = true)]
    async fn bodies_that_do_not_all_fit_do_not_wait_for_each_other() {
        let (_stop, app) = app();
        let large = || status_of(&app, body(10 << 20, 1, 3), Some(30 << 20));
        let all = futures::future::join_all((0..5).map(|_| large())).await;
        assert!(all.iter().all(|(status, seconds)| *status == 200 && *seconds < 10), "{all:?}");
        assert_eq!(app.bodies.taken(), 0);
        // Without a length the needed room is unknown: a body that finds no more room is refused, the others
        // succeed.
        let all = futures::future::join_all((0..5).map(|_| status(&app, body(10 << 20, 1, 3)))).await;
        assert!(all.iter().all(|(status, seconds)| matches!(status, 200 | 503) && *seconds < 10), "{all:?}");
        assert_eq!(all.iter().filter(|(status, _)| *status == 200).count(), 4, "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_has_taken_much_and_comes_slowly_gives_way() {
        let (_stop, app) = app();
        // At 20 KiB a second it would take an hour.
        let slow = || status_of(&app, body(20 << 10, 1, usize::MAX), Some(64 << 20));
        let (one, two, other) = tokio::join!(slow(), slow(), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            status_of(&app, body(1 << 20, 0, 1), Some(1 << 20)).await
        });
        assert_eq!((one.0, two.0, other.0), (408, 408, 200));
        assert!(other.1 <= 10, "{other:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_for_which_there_is_no_room_is_refused() {
        let (_stop, app) = app();
        let _all = app.bodies.try_take(usize::MAX).unwrap();
        assert_eq!(status(&app, body(1 << 20, 0, 1)).await, (503, 10));
        assert_eq!(status(&app, body(1 << 10, 0, 1)).await.0, 200, "a small one needs no room");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_no_body_that_does_not_come() {
        let (stop, app) = app();
        let soon = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stop.send_replace(true);
        };
        let late = body(1 << 20, 1, 100);
        let (late, in_time, ()) = tokio::join!(status(&app, late), status(&app, body(9, 1, 1)), soon);
        assert_eq!((late, in_time.0), ((503, 2), 200));
    }
}
