//! The witness at the end of a page of the log.
//!
//! A page says its last position as a number, and its filter may have passed over the event there. The event is looked up
//! after the page was read, and the log may have lost its newest events in between (a failover to a standby that did not
//! have them). The page would then have a witness of the new history, and a client that resumes there would
//! miss the events that took the positions of the lost ones. An event that was lost does not return, so an event that is
//! in the log before and after proves that everything below it was the same all the time.

use annals_core::{EventStore, LogRead, Position, Query, Result, Witness};

/// A gap of at most this many positions is compared with its events, by one read.
const GAP_MAX: u64 = 16;

/// The witness at position `end`, up to which a page was read that begins after `last`, or ends with its event at `last`, and
/// has no event that the query means after it. `None` if the log has changed meanwhile, or does not reach so far yet.
pub(crate) async fn reached(
    store: &dyn EventStore,
    query: &Query,
    last: Witness,
    end: Position,
) -> Result<Option<Witness>> {
    let gap = end.get().saturating_sub(last.position.get());
    if gap == 0 {
        return Ok(Some(last));
    }
    if gap <= GAP_MAX && last.position > Position::ZERO {
        let wanted = usize::try_from(gap + 1).unwrap_or(usize::MAX);
        let events = store.read_log(LogRead::backward(end).limit(wanted)).await?.events;
        // Large events may have made the page shorter.
        if events.len() == wanted
            && let Some((common, passed)) = events.split_last()
        {
            let is_same = Witness::of(common) == last && !passed.iter().any(|event| query.matches(event));
            return Ok(passed.first().filter(|_| is_same).map(Witness::of));
        }
    }
    let through = Witness::at(store, end).await?;
    let mut read = LogRead::forward(last.position.next()).matching(query.clone()).limit(1);
    while read.from <= end {
        let page = store.read_log(read.clone()).await?;
        if page.next <= read.from || page.events.iter().any(|event| event.position <= end) {
            return Ok(None);
        }
        read.from = page.next;
    }
    let is_same = last.holds(store).await?;
    Ok(through.filter(|_| is_same))
}
