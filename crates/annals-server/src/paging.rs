//! A page of events that becomes one answer: its room is taken before its JSON is made.

use std::sync::Arc;

use annals_core::{RecordedEvent, Result};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::problem::Problem;
use crate::room::{HasRoom, Room, SMALL_BYTES, Taken, held};

/// Bytes of JSON around the data of an event, or less.
const AROUND_BYTES: usize = 512;

/// Bytes that an event takes as it was read and as JSON, approximately.
pub(crate) fn cost(event: &RecordedEvent) -> usize {
    2 * event.bytes() + AROUND_BYTES
}

/// Reads a page and takes room for its answer. If there is none at the moment the page is dropped while it is waited
/// for, and read again.
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

/// An answer of JSON that has this room.
pub(crate) fn json(value: &impl Serialize, taken: Taken) -> Response {
    let text = serde_json::to_vec(value).expect("an answer has only text for keys, so it is JSON");
    let media_type = HeaderValue::from_static("application/json");
    let mut response = ([(header::CONTENT_TYPE, media_type)], Body::from(held(text, taken))).into_response();
    response.extensions_mut().insert(HasRoom);
    response
}
