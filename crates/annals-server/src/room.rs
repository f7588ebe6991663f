//! A memory limit that all connections share: a request takes room before it keeps bytes, and gives it back
//! when they are sent or dropped.
//!
//! - M1  The kept bytes never exceed the limit, regardless of what clients do.
//! - M2  Waiting for room is visible ([`Room::is_short`]), so that stalled connections that hold room are
//!       disconnected.

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

/// The number of bytes of one permit.
const UNIT: usize = 1 << 10;
/// Responses of up to this many bytes are sent without taking room: a connection holds one or two of them.
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

/// Taken room. It is given back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Taken(Option<OwnedSemaphorePermit>);

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 4);
        Self { free: Arc::new(Semaphore::new(units as usize)), units, waiting: AtomicUsize::new(0) }
    }

    /// Takes room for this many bytes, if it is free now. A request that exceeds the whole room takes all of
    /// it.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        Arc::clone(&self.free)
            .try_acquire_many_owned(self.units_of(bytes))
            .ok()
            .map(|permit| Taken(Some(permit)))
    }

    /// Takes room for this many bytes; waits up to [`WAIT_MAX`] until it is free.
    ///
    /// # Errors
    /// The problem `overloaded` if there is no room in time.
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

    /// Takes room for a response of this size as [`take`](Self::take) does, unless it is small.
    pub(crate) async fn take_if_large(&self, bytes: usize) -> Result<Taken, Problem> {
        if bytes <= SMALL_BYTES { Ok(Taken::default()) } else { self.take(bytes).await }
    }

    /// Whether a request waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// The number of taken bytes.
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

    /// Gives back the room beyond this many bytes.
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

/// The metrics of the room.
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

/// The problem of a request beyond a limit.
pub(crate) fn overloaded(why: &str) -> Problem {
    let detail = format!("{why}; nothing was done, try again");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
}

/// Bytes that hold their room until the last copy of them has been sent or dropped.
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

/// Marks a response whose room is already taken.
#[derive(Clone, Copy)]
pub(crate) struct HasRoom;

/// Takes room for a large response that has none yet, or replaces it by `overloaded`. An executed append must
/// get its response, so a successful `POST` is sent without room.
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

/// A body that holds its room until its data has been sent. The data is one frame.
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
