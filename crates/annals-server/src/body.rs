//! The body of a request: its type, its size, its time and the JSON in it are checked here.
//!
//! - B1  A body must come at some rate, as a whole: a piece now and then does not hold a handler.
//! - B2  All bodies together have one bound.
//! - B3  When the server stops, a body that is not there soon is refused: nothing of it was done.

use std::ops::Deref;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;

use crate::app::App;
use crate::event_json::syntax_error;
use crate::problem::Problem;
use crate::room::{SMALL_BYTES, Taken};

/// Over how long the rate of a body is measured.
const WINDOW: Duration = Duration::from_secs(30);
/// How often it is looked whether others wait for room.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes a second that must come at least.
const RATE_MIN: u64 = 16 << 10;
/// How long a body may still take when the server stops.
const STOPPING_MAX: Duration = Duration::from_secs(2);
/// Room is taken in steps of this many bytes.
const STEP_BYTES: usize = 256 << 10;
/// How many bytes are set aside because a client announced them.
const BELIEVED_BYTES: usize = 1 << 20;

/// A body that was received. It keeps its room until the request is answered.
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
            let detail = "the server stops, and the body was not there in time; nothing was done";
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
        let detail = format!("the body is packed ({coding}); send it as it is");
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail);
        return Err(problem.with("field", "Content-Encoding").accepting("identity"));
    }
    match announced(headers) {
        Some(length) if length > app.body_bytes_max => Err(too_large(app)),
        _ => Ok(()),
    }
}

/// The coding in which the body is packed, if it is.
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
    let (mut taken, mut room) = (Taken::default(), SMALL_BYTES);
    let mut pace = Pace::new();
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::select! {
            biased;
            piece = pieces.next() => piece,
            () = tokio::time::sleep_until(pace.look) => {
                pace.check(app)?;
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
                None => {
                    let more = app.bodies.take(STEP_BYTES).await?;
                    // That nothing came meanwhile was not the client's doing.
                    pace = Pace::new();
                    more
                }
            };
            taken.add(more);
            room += STEP_BYTES;
        }
        pace.received += piece.len() as u64;
        bytes.extend_from_slice(&piece);
    }
}

/// How fast a body comes.
struct Pace {
    since: Instant,
    received: u64,
    look: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), received: 0, look: Instant::now() + LOOK }
    }

    /// Refuses a body that is too slow over the last while, or over a shorter one if others wait for its room.
    fn check(&mut self, app: &App) -> Result<(), Problem> {
        let lasted = self.since.elapsed();
        let over = lasted >= WINDOW;
        let too_slow = self.received < RATE_MIN * lasted.as_secs();
        if too_slow && (over || app.bodies.is_short()) {
            let detail = format!(
                "{} bytes of the body came in {} seconds; it must come at {RATE_MIN} bytes a second",
                self.received,
                lasted.as_secs()
            );
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail));
        }
        if over {
            (self.since, self.received) = (Instant::now(), 0);
        }
        self.look = Instant::now() + LOOK;
        Ok(())
    }
}

/// Completes when the server has been stopping for a while.
async fn stopped(app: &App) {
    app.stopped().await;
    tokio::time::sleep(STOPPING_MAX).await;
}

/// Reads JSON; what is wrong is named by its path below `root`, its line and its column.
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

/// The problem with its line and column.
pub(crate) fn located(problem: Problem, (line, column): (usize, usize)) -> Problem {
    problem.with("line", line).with("column", column)
}

/// Line and column of the byte that follows these.
pub(crate) fn place_after(before: &[u8]) -> (usize, usize) {
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    (1 + before.iter().filter(|&&byte| byte == b'\n').count(), before.len() - line_start + 1)
}
