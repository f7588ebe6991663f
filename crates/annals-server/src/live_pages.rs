//! Pages of live streams: each is made once for all clients with the same place, filter and visible
//! categories.
//!
//! - P1  A page is kept while it is being sent to any client, and takes room once, for any number of clients.
//! - P2  A page has at most about 256 KiB, or one event, so that clients at different places use little
//!       memory each.
//! - P3  A place is a witness, and a page is returned only after its starting witness was found in the log
//!   again. While nothing is appended, the witness is checked at an interval, once for all clients that wait
//!   there. So no client skips events that took the positions of lost ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use annals_consume::reached;
use annals_core::{Bytes, Error, EventStore, LogRead, Query, RecordedEvent, Result, Witness};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::auth::Categories;
use crate::paging::cost;
use crate::problem::Problem;
use crate::room::{Room, Taken};

/// The maximum number of events on a page.
pub(crate) const PAGE_EVENTS: usize = 100;
/// The approximate size of a page in bytes; a page with one event may be larger.
const PAGE_BYTES: usize = 256 << 10;
/// The first and the longest pause while a replica lags the primary, or while the store still assumes a head
/// that the log has lost.
const BEHIND_PAUSE: Duration = Duration::from_millis(50);
const BEHIND_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The interval at which a log without new events is checked for a loss.
const LOOK: Duration = Duration::from_secs(5);
/// The pause before a second check confirms a loss: the first one may have read from a replica that lags.
const DOUBT: Duration = Duration::from_millis(200);

/// The pages that are being made or sent.
pub(crate) struct LivePages {
    room: Arc<Room>,
    made: Mutex<Made>,
    /// The event that was last found in the log, and when.
    found: tokio::sync::Mutex<Option<(Witness, Instant)>>,
}

#[derive(Default)]
struct Made {
    /// The pages, by the visible categories, the place and the filter.
    pages: HashMap<(Categories, Witness, Arc<Query>), Weak<OnceCell<LivePage>>>,
    /// The number of entries at which unused ones are removed.
    sweep_at: usize,
}

/// The events after a place, as messages.
pub(crate) struct LivePage {
    text: Vec<u8>,
    /// The place that the page has reached.
    pub(crate) through: Witness,
    /// The last event; `None` if no event up to `through` passed the filter.
    pub(crate) last: Option<Witness>,
    /// The number of events that the next read should request.
    pub(crate) limit: usize,
    _taken: Taken,
}

/// The reason that there is no page.
pub(crate) enum NoPage {
    Failed(Error),
    /// There is no room for it.
    Overloaded(Problem),
    /// The log does not reach this place yet.
    NotYet,
    /// The log no longer has the event at this place.
    Lost,
}

impl From<Error> for NoPage {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl LivePages {
    pub(crate) fn new(room: Arc<Room>) -> Self {
        Self { room, made: Mutex::default(), found: tokio::sync::Mutex::default() }
    }

    /// The page of events after this place in the log, in which these categories are visible. Waits until
    /// there is one.
    pub(crate) async fn page(
        &self,
        log: &dyn EventStore,
        shown: &Categories,
        seen: Witness,
        query: &Arc<Query>,
        limit: usize,
    ) -> Result<Arc<OnceCell<LivePage>>, NoPage> {
        let mut pause = BEHIND_PAUSE;
        loop {
            match tokio::time::timeout(LOOK, log.wait(seen.position)).await {
                Ok(waited) => drop(waited?),
                Err(_) => {
                    self.find(log, seen).await?;
                    continue;
                }
            }
            let page = self.entry(shown, seen, query);
            match page.get_or_try_init(|| self.make(log, seen, query, limit)).await {
                Ok(_) => return Ok(page),
                Err(NoPage::NotYet) => self.find(log, seen).await?,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(BEHIND_PAUSE_MAX);
        }
    }

    /// Checks that the log still has this event, unless that was checked within the last [`LOOK`].
    async fn find(&self, log: &dyn EventStore, seen: Witness) -> Result<(), NoPage> {
        let mut found = self.found.lock().await;
        if found.is_some_and(|(event, at)| event == seen && at.elapsed() < LOOK) {
            return Ok(());
        }
        self.check(log, seen).await?;
        *found = Some((seen, Instant::now()));
        Ok(())
    }

    /// Checks that the log still has this event.
    async fn check(&self, log: &dyn EventStore, seen: Witness) -> Result<(), NoPage> {
        if seen.holds(log).await? {
            return Ok(());
        }
        tokio::time::sleep(DOUBT).await;
        if seen.holds(log).await? { Ok(()) } else { Err(NoPage::Lost) }
    }

    /// The cell of the page at this place. The caller fills it if it is new.
    fn entry(&self, shown: &Categories, seen: Witness, query: &Arc<Query>) -> Arc<OnceCell<LivePage>> {
        // Nothing below panics during a change.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (shown.clone(), seen, Arc::clone(query));
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

    async fn make(
        &self,
        log: &dyn EventStore,
        seen: Witness,
        query: &Query,
        limit: usize,
    ) -> Result<LivePage, NoPage> {
        let mut limit = limit.clamp(1, PAGE_EVENTS);
        let from = seen.position.next();
        let mut waited = None;
        loop {
            let read = LogRead::forward(from).matching(query.clone()).limit(limit);
            let mut page = log.read_log(read).await?;
            if page.next <= from {
                return Err(NoPage::NotYet);
            }
            let (fits, bytes) = fitting(&page.events);
            let Some(taken) = waited.take().or_else(|| self.room.try_take(bytes)) else {
                // The page is dropped before waiting for room.
                limit = fits.max(1);
                drop(page);
                waited = Some(self.room.take(bytes).await.map_err(NoPage::Overloaded)?);
                continue;
            };
            let is_cut = fits < page.events.len();
            page.events.truncate(fits);
            let last = page.events.last().map(Witness::of);
            let end = match last {
                Some(last) if is_cut => last.position,
                _ => page.next.previous(),
            };
            let through = reached(log, query, last.unwrap_or(seen), end).await?;
            // After all other reads, so that they are of this history too.
            self.check(log, seen).await?;
            let Some(through) = through else { return Err(NoPage::NotYet) };
            let limit = if is_cut { fits } else { 2 * limit };
            return Ok(LivePage::of(&page.events, through, limit, taken));
        }
    }
}

/// How many of these events fit on a page, and their cost in bytes.
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
    fn of(events: &[RecordedEvent], through: Witness, limit: usize, mut taken: Taken) -> Self {
        let mut text = Vec::new();
        for event in events {
            text.extend_from_slice(format!("id: {}\ndata: ", Witness::of(event)).as_bytes());
            text.extend_from_slice(&annals_json::line(event));
            text.extend_from_slice(b"\n\n");
        }
        text.shrink_to_fit();
        taken.shrink_to(text.len());
        Self { text, through, last: events.last().map(Witness::of), limit, _taken: taken }
    }

    /// The messages of a page. They keep the page until they have been sent.
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
