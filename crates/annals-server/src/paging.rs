//! Pages of events as one response: room for a page is taken before its JSON is made.

use std::sync::Arc;

use annals_core::{RecordedEvent, Result};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::problem::Problem;
use crate::room::{HasRoom, Room, SMALL_BYTES, Taken, held};

/// An upper bound of the JSON around the data of an event, in bytes.
const AROUND_BYTES: usize = 512;

/// The approximate size in bytes of an event as it was read and as JSON, together.
pub(crate) fn cost(event: &RecordedEvent) -> usize {
    2 * event.bytes() + AROUND_BYTES
}

/// Reads a page and takes room for its response. If there is no room, it drops the page, waits for room, and
/// reads the page again.
pub(crate) async fn with_room<P, F: Future<Output = Result<P>>>(
    room: &Arc<Room>,
    read: impl Fn() -> F,
    events: impl Fn(&P) -> &[RecordedEvent],
) -> Result<(P, Taken), Problem> {
    let page = read().await?;
    let cost = events(&page).iter().map(cost).sum();
    if cost <= SMALL_BYTES {
        return Ok((page, Taken::default()));
    }
    if let Some(taken) = room.try_take(cost) {
        return Ok((page, taken));
    }
    drop(page);
    let taken = room.take(cost).await?;
    Ok((read().await?, taken))
}

/// A JSON response that holds this room.
pub(crate) fn json(value: &impl Serialize, taken: Taken) -> Response {
    let text = serde_json::to_vec(value).expect("an answer has only text for keys, so it is JSON");
    let media_type = HeaderValue::from_static("application/json");
    let mut response = ([(header::CONTENT_TYPE, media_type)], Body::from(held(text, taken))).into_response();
    response.extensions_mut().insert(HasRoom);
    response
}
