//! The body of a request: its type, its size and the JSON in it are checked here.

use std::time::Duration;

use annals_core::Bytes;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde::Deserialize;

use crate::event_json::syntax_error;
use crate::problem::Problem;

/// How long a client may take between two pieces of a body.
const PIECE_MAX: Duration = Duration::from_secs(30);

/// How many bytes are set aside because a client announced them.
const BELIEVED_BYTES: usize = 1 << 20;

/// Reads a JSON body of at most this many bytes.
pub(crate) async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = format!("the content type is `{given}`; send application/json");
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail);
        return Err(problem.with("field", "Content-Type"));
    }
    let too_large = || {
        let detail = format!("the body is larger than {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > bytes_max) {
        return Err(too_large());
    }
    let mut read = Vec::with_capacity(announced.unwrap_or(0).min(BELIEVED_BYTES));
    let mut pieces = body.into_data_stream();
    loop {
        match tokio::time::timeout(PIECE_MAX, pieces.next()).await {
            Ok(None) => return Ok(Bytes::from(read)),
            Ok(Some(Ok(piece))) if piece.len() > bytes_max - read.len() => return Err(too_large()),
            Ok(Some(Ok(piece))) => read.extend_from_slice(&piece),
            Ok(Some(Err(error))) => return Err(Problem::invalid("body", format!("broke off: {error}"))),
            Err(_) => {
                let detail = format!("no piece of the body came for {} seconds", PIECE_MAX.as_secs());
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail));
            }
        }
    }
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
