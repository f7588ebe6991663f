//! A bound on bytes that all connections share: room is taken before bytes are kept, and given back when they are sent
//! or dropped.
//!
//! - M1  What is kept is never more than the bound, whatever the clients do.
//! - M2  Who waits for room is seen ([`Room::is_short`]), so that connections which hold some and do not move are cut
//!   off for them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use annals_core::Bytes;
use axum::body::{Body, HttpBody as _};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::maintenance::{Figures, Metric};
use crate::problem::Problem;

/// Bytes of one permit.
const UNIT: usize = 1 << 10;
/// Answers of up to this many bytes are sent without asking for room: a connection holds one or two of them.
pub(crate) const SMALL_BYTES: usize = 16 << 10;
/// How long a request waits for room.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);

/// Room for this many bytes.
#[derive(Debug)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    units: u32,
    waiting: AtomicUsize,
}

/// Room that was taken. It is given back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Taken(Option<OwnedSemaphorePermit>);

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 4);
        Self { free: Arc::new(Semaphore::new(units as usize)), units, waiting: AtomicUsize::new(0) }
    }

    /// Room for this many bytes, if there is any now. What is larger than all of the room takes all of it.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        Arc::clone(&self.free)
            .try_acquire_many_owned(self.units_of(bytes))
            .ok()
            .map(|permit| Taken(Some(permit)))
    }

    /// The same; waits for it, but not long.
    ///
    /// # Errors
    /// The problem `overloaded` if there is none in time.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Taken, Problem> {
        if let Some(taken) = self.try_take(bytes) {
            return Ok(taken);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        let wanted = Arc::clone(&self.free).acquire_many_owned(self.units_of(bytes));
        match tokio::time::timeout(WAIT_MAX, wanted).await {
            Ok(Ok(permit)) => Ok(Taken(Some(permit))),
            _ => Err(overloaded("bytes of other requests and answers take all the room that there is")),
        }
    }

    /// Room for an answer of this size, unless it is small. As [`take`](Self::take).
    pub(crate) async fn take_if_large(&self, bytes: usize) -> Result<Taken, Problem> {
        if bytes <= SMALL_BYTES { Ok(Taken::default()) } else { self.take(bytes).await }
    }

    /// Whether somebody waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Bytes that are taken.
    pub(crate) fn taken(&self) -> usize {
        (self.units as usize - self.free.available_permits()) * UNIT
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units)
    }
}

impl Taken {
    /// Adds room to what was taken.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut self.0, more.0) {
            (Some(here), Some(more)) => here.merge(more),
            (none, more) => *none = more,
        }
    }

    /// Gives back what is beyond this many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let beyond = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(permit.split(beyond));
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What `/metrics` says of the room.
pub(crate) fn figures(sending: Arc<Room>, bodies: Arc<Room>) -> Figures {
    Figures(Arc::new(move || {
        let taken = [
            ("annals_http_sending_bytes", "Bytes of answers that wait to be sent", &sending),
            ("annals_http_body_bytes", "Bytes of bodies that are received or worked on", &bodies),
        ];
        #[expect(clippy::cast_precision_loss, reason = "a figure of Prometheus is a float")]
        let figure = |(name, help, room): (&'static str, &'static str, &Arc<Room>)| Metric {
            name,
            help,
            value: room.taken() as f64,
            counter: false,
        };
        taken.into_iter().map(figure).collect()
    }))
}

/// The answer to what is beyond a bound.
pub(crate) fn overloaded(why: &str) -> Problem {
    let detail = format!("{why}; nothing was done, try again");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
}

/// Bytes that keep their room until the last copy of them has been sent or dropped.
pub(crate) fn held(bytes: Vec<u8>, mut taken: Taken) -> Bytes {
    taken.shrink_to(bytes.len());
    Bytes::from_owner(Held(bytes, taken))
}

struct Held<B>(B, #[expect(dead_code, reason = "it is held, not read")] Taken);

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// Marks an answer whose room is taken already.
#[derive(Clone, Copy)]
pub(crate) struct HasRoom;

/// Takes room for a large answer that has none yet. An append that was executed is answered in any case.
pub(crate) fn account(room: &Room, method: &Method, response: Response) -> Response {
    let length = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let length = length.unwrap_or(0);
    if length <= SMALL_BYTES || response.extensions().get::<HasRoom>().is_some() {
        return response;
    }
    match room.try_take(length) {
        Some(taken) => response.map(|body| Body::new(Accounted { body, taken: Some(taken) })),
        None if response.status().is_success() && *method == Method::POST => response,
        None => overloaded("answers to others take all the room that there is").into_response(),
    }
}

/// A body whose data keeps its room until it has been sent. It is a body of one piece.
struct Accounted {
    body: Body,
    taken: Option<Taken>,
}

impl hyper::body::Body for Accounted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let taken = &mut self.taken;
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| Bytes::from_owner(Held(bytes, taken.take().unwrap_or_default())))
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
