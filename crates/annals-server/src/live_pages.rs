//! Pages of live streams: made once for all clients that are at the same place with the same filter and see the same categories.
//!
//! - P1  A page is kept as long as some client is sent it, and takes room once, however many those are.
//! - P2  A page has about 256 KiB at most, or one event, so that clients at different places hold little each.
//! - P3  A place is a witness, and a page is handed out after the witness before it was found in the log again. While
//!   nothing is appended, the witness is looked up at an interval, once for all clients that wait there. So no client
//!   skips events that took the positions of lost ones.

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

/// Most events of a page.
pub(crate) const PAGE_EVENTS: usize = 100;
/// About how many bytes a page has, if one event has not more.
const PAGE_BYTES: usize = 256 << 10;
/// The first and the longest pause where a replica does not have what the primary has, or where the store still assumes an
/// end of the log that is gone.
const BEHIND_PAUSE: Duration = Duration::from_millis(50);
const BEHIND_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The interval at which a log without new events is checked to be still the same.
const LOOK: Duration = Duration::from_secs(5);
/// The pause before a second look confirms a loss: the first answer may have been that of a server that lags.
const DOUBT: Duration = Duration::from_millis(200);

/// Pages that are made or sent at the moment.
pub(crate) struct LivePages {
    room: Arc<Room>,
    made: Mutex<Made>,
    /// The event that was found in the log last, and when.
    found: tokio::sync::Mutex<Option<(Witness, Instant)>>,
}

#[derive(Default)]
struct Made {
    /// By the categories that are shown, the place and the filter.
    pages: HashMap<(Categories, Witness, Arc<Query>), Weak<OnceCell<LivePage>>>,
    /// How many entries there are before those that nobody holds are removed.
    sweep_at: usize,
}

/// Events after a place, as messages.
pub(crate) struct LivePage {
    text: Vec<u8>,
    /// The place that the page has reached.
    pub(crate) through: Witness,
    /// The last event; `None` if no event up to `through` passed the filter.
    pub(crate) last: Option<Witness>,
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
    /// The log does not have the event at this place any more.
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

    /// The page of events after this place in the log, of which these categories are shown; waits until the log has one.
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

    /// The page at this place, to be made if it is new.
    fn entry(&self, shown: &Categories, seen: Witness, query: &Arc<Query>) -> Arc<OnceCell<LivePage>> {
        // Nothing below panics half way through a change.
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
                // Nothing is held while it waits.
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
            // After all other reads, so that they were of this history too.
            self.check(log, seen).await?;
            let Some(through) = through else { return Err(NoPage::NotYet) };
            let limit = if is_cut { fits } else { 2 * limit };
            return Ok(LivePage::of(&page.events, through, limit, taken));
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
