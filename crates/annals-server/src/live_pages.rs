//! Pages of live streams: made once for all clients that are at the same place with the same filter.
//!
//! - P1  A page is kept as long as some client is sent it, and takes room once, however many those are.
//! - P2  A page has about 256 KiB at most, or one event, so that clients at different places hold little each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use annals_core::{Bytes, Error, EventStore, LogRead, Position, Query, RecordedEvent, Result, Witness};
use tokio::sync::OnceCell;

use crate::event_json;
use crate::paging::cost;
use crate::problem::Problem;
use crate::room::{Room, Taken};

/// Most events of a page.
pub(crate) const PAGE_EVENTS: usize = 100;
/// About how many bytes a page has, if one event has not more.
const PAGE_BYTES: usize = 256 << 10;
/// How long is waited where a replica does not have what the primary has.
const BEHIND_PAUSE: Duration = Duration::from_millis(50);

/// Pages that are made or sent at the moment.
pub(crate) struct LivePages {
    store: Arc<dyn EventStore>,
    room: Arc<Room>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    pages: HashMap<(Position, Arc<Query>), Weak<OnceCell<LivePage>>>,
    /// How many entries there are before those that nobody holds are removed.
    sweep_at: usize,
}

/// Events from a position on, as messages.
pub(crate) struct LivePage {
    text: Vec<u8>,
    /// Where the next page begins.
    pub(crate) next: Position,
    /// Position of the last event; `None` if no event up to `next` passed the filter.
    pub(crate) last: Option<Position>,
    /// How many events the next read should ask for.
    pub(crate) limit: usize,
    _taken: Taken,
}

/// Why there is no page.
pub(crate) enum NoPage {
    Failed(Error),
    /// There is no room for it.
    Overloaded(Problem),
    /// The log does not reach this place yet.
    NotYet,
}

impl From<Error> for NoPage {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl LivePages {
    pub(crate) fn new(store: Arc<dyn EventStore>, room: Arc<Room>) -> Self {
        Self { store, room, made: Mutex::default() }
    }

    /// The page of events from this position on; waits until the log reaches it.
    pub(crate) async fn page(
        &self,
        from: Position,
        query: &Arc<Query>,
        limit: usize,
    ) -> Result<Arc<OnceCell<LivePage>>, NoPage> {
        loop {
            self.store.wait(from.previous()).await?;
            let page = self.entry(from, query);
            match page.get_or_try_init(|| self.make(from, query, limit)).await {
                Ok(_) => return Ok(page),
                Err(NoPage::NotYet) => tokio::time::sleep(BEHIND_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// The page at this place, to be made if it is new.
    fn entry(&self, from: Position, query: &Arc<Query>) -> Arc<OnceCell<LivePage>> {
        // Nothing below panics half way through a change.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (from, Arc::clone(query));
        if let Some(page) = made.pages.get(&key).and_then(Weak::upgrade) {
            return page;
        }
        if made.pages.len() >= made.sweep_at {
            made.pages.retain(|_, page| page.strong_count() > 0);
            made.pages.shrink_to_fit();
            made.sweep_at = 2 * made.pages.len() + 64;
        }
        let page = Arc::default();
        made.pages.insert(key, Arc::downgrade(&page));
        page
    }

    async fn make(&self, from: Position, query: &Query, limit: usize) -> Result<LivePage, NoPage> {
        let mut limit = limit.clamp(1, PAGE_EVENTS);
        let mut waited = None;
        loop {
            let read = LogRead::forward(from).matching(query.clone()).limit(limit);
            let mut page = self.store.read_log(read).await?;
            if page.next <= from {
                return Err(NoPage::NotYet);
            }
            let (fits, bytes) = fitting(&page.events);
            let next = match page.events.get(fits.wrapping_sub(1)) {
                Some(last) if fits < page.events.len() => last.position.next(),
                _ => page.next,
            };
            let Some(taken) = waited.take().or_else(|| self.room.try_take(bytes)) else {
                // Nothing is held while it waits.
                limit = fits.max(1);
                drop(page);
                waited = Some(self.room.take(bytes).await.map_err(NoPage::Overloaded)?);
                continue;
            };
            let limit = if fits < page.events.len() { fits } else { 2 * limit };
            page.events.truncate(fits);
            return Ok(LivePage::of(&page.events, next, limit, taken));
        }
    }
}

/// How many of these events a page has, and what they take.
fn fitting(events: &[RecordedEvent]) -> (usize, usize) {
    let mut bytes = 0;
    for (index, event) in events.iter().enumerate() {
        let more = cost(event);
        if index > 0 && bytes + more > 2 * PAGE_BYTES {
            return (index, bytes);
        }
        bytes += more;
    }
    (events.len(), bytes)
}

impl LivePage {
    fn of(events: &[RecordedEvent], next: Position, limit: usize, mut taken: Taken) -> Self {
        let mut text = Vec::new();
        for event in events {
            text.extend_from_slice(format!("id: {}\ndata: ", Witness::of(event)).as_bytes());
            text.extend_from_slice(&event_json::line(event));
            text.extend_from_slice(b"\n\n");
        }
        text.shrink_to_fit();
        taken.shrink_to(text.len());
        Self { text, next, last: events.last().map(|event| event.position), limit, _taken: taken }
    }

    /// The messages of a page, which is kept until they have been sent.
    pub(crate) fn messages(page: Arc<OnceCell<Self>>) -> Bytes {
        struct Sent(Arc<OnceCell<LivePage>>);
        impl AsRef<[u8]> for Sent {
            fn as_ref(&self) -> &[u8] {
                self.0.get().map_or(&[], |page| &page.text)
            }
        }
        Bytes::from_owner(Sent(page))
    }
}
