//! Reading a log that may lose events: when a backup is restored, or a standby without the newest events is
//! promoted.
//!
//! ```text
//! seen      1 .. 32 .. 48 .. 56 57 58 59 60      a ladder of witnesses: dense at its end, sparse towards its beginning
//! the log   1 ............... 57 a b c d e       58 to 60 were lost, others were appended
//! resume at                   57                 the newest rung that the log still has
//! ```
//!
//! - H1  A page is returned only after the last witness was found in the log again. So a reader never skips
//!       events that took the positions of lost ones, however long it was stopped.
//! - H2  After a loss a reader steps back to the newest rung that the log still has: to the last event in
//!       common if that is one of the newest [`EXACT`] rungs, else further, by at most about the distance of
//!       that event from the newest one. It does not step back beyond its start (`from_now`), unless the
//!       event there is lost too.
//! - H3  A position is stored with its ladder. A checkpoint of a version without ladders has one witness or
//!       none; its ladder is read from the log if the log still has the witness.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Error, EventId, EventStore, LogPage, LogRead, Position, Query, RecordedEvent, Result, Witness,
};

/// This many of the newest rungs are kept without gaps.
const EXACT: usize = 16;
/// Bytes of a rung: the position and the id of the event there.
const RUNG_BYTES: usize = 24;
/// The byte after all rungs, if the last of them is where the ladder starts.
const STARTS: u8 = 1;
/// If a page ends at most this many positions after its last event, the events in between are read and
/// compared.
const GAP_MAX: u64 = 16;
/// At this interval a reader at the end of the log checks whether it is still the same log. While no event
/// comes, the interval doubles up to the longest one.
const CHECK: Duration = Duration::from_secs(2);
const CHECK_MAX: Duration = Duration::from_secs(8);
/// How often a page is read again when the log changed meanwhile, and the pause before a loss is confirmed.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// Witnesses of events that were read, oldest first: the checkpoint of a consumer of a log. An empty ladder
/// is the beginning of the log.
///
/// Encoded, it has at most about 1 kB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    /// Oldest first.
    rungs: Vec<Witness>,
    /// The event after which the consumer started, if it did not start at the beginning of the log.
    start: Option<Witness>,
}

impl Ladder {
    /// Reads the ladder that ends at this event of the log, or at the origin.
    ///
    /// # Errors
    /// If the store cannot be read, or does not have this event.
    pub async fn below(store: &dyn EventStore, newest: Witness) -> Result<Self> {
        if newest.position == Position::ZERO {
            return Ok(Self::default());
        }
        let mut rungs = Vec::new();
        let page = store.read_log(LogRead::backward(newest.position).limit(EXACT)).await?;
        rungs.extend(page.events.iter().map(Witness::of));
        let mut distance = EXACT as u64;
        while let Some(below) = newest.position.get().checked_sub(distance).filter(|below| *below > 0) {
            rungs.extend(Witness::at(store, Position::new(below)).await?);
            distance *= 2;
        }
        rungs.extend(Witness::at(store, newest.position.min(Position::FIRST)).await?);
        rungs.sort_unstable_by_key(|rung| rung.position);
        rungs.dedup_by_key(|rung| rung.position);
        rungs.retain(|rung| rung.position > Position::ZERO);
        // After all reads, so that they were of the history that has this event.
        match rungs.last() == Some(&newest) && newest.holds(store).await? {
            true => Ok(Self { rungs, start: None }),
            false => Err(Error::Unavailable(format!("the log does not have {newest} any more").into())),
        }
    }

    /// Reads the ladder that ends and starts at the newest event of the log: a consumer that resumes there
    /// gets only later events.
    ///
    /// # Errors
    /// As [`below`](Self::below).
    pub async fn from_now(store: &dyn EventStore) -> Result<Self> {
        let newest = newest(store).await?;
        let start = Some(newest).filter(|newest| newest.position > Position::ZERO);
        Ok(Self { start, ..Self::below(store, newest).await? })
    }

    /// Returns the witness of a ladder with one rung.
    pub(crate) fn only(&self) -> Option<Witness> {
        self.newest().filter(|_| self.rungs.len() == 1)
    }

    /// The witness of the newest event. `None` at the beginning of the log.
    pub fn newest(&self) -> Option<Witness> {
        self.rungs.last().copied()
    }

    /// Adds the witness of a later event, and removes rungs that are no longer needed: besides the newest 16,
    /// of the rungs at a distance of 2ⁿ to 2ⁿ⁺¹ positions the oldest and the newest are kept.
    pub fn push(&mut self, newest: Witness) {
        self.cut(newest.position.previous());
        if newest.position > Position::ZERO {
            self.rungs.push(newest);
        }
        let Some(dense_from) = self.rungs.len().checked_sub(EXACT) else { return };
        let distance = |rung: &Witness| (newest.position.get() - rung.position.get()).ilog2();
        let distances: Vec<u32> = self.rungs[..dense_from].iter().map(distance).collect();
        let mut place = 0;
        self.rungs.retain(|_| {
            let here = distances.get(place);
            let between = here.is_some()
                && place > 0
                && distances.get(place - 1) == here
                && distances.get(place + 1) == here;
            place += 1;
            !between
        });
    }

    /// Adds the witnesses of later events, in order. Skips those that [`push`](Self::push) would remove
    /// again.
    pub fn extend(&mut self, next: &[Witness]) {
        let mut distance = next.len().checked_ilog2().map_or(0, |power| 1 << power);
        while distance > EXACT {
            self.push(next[next.len() - distance]);
            distance /= 2;
        }
        for witness in &next[next.len().saturating_sub(EXACT)..] {
            self.push(*witness);
        }
    }

    /// Shortens the ladder to end at this event, the last that it has in common with the log.
    pub fn step_back(&mut self, to: Witness) {
        self.cut(to.position);
        if to.position > Position::ZERO && self.newest() != Some(to) {
            self.rungs.push(to);
        }
        if self.start.is_some_and(|start| start.position > to.position) {
            self.start = self.newest();
        }
    }

    /// Removes the rungs after this position.
    fn cut(&mut self, position: Position) {
        while self.rungs.last().is_some_and(|rung| rung.position > position) {
            self.rungs.pop();
        }
    }

    /// Returns the newest rung that the log has, or the start if that is newer and the log has it. `None` if
    /// the log has none.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn last_in_common(&self, store: &dyn EventStore) -> Result<Option<Witness>> {
        // A log that has an event has all earlier ones.
        let (mut common, mut lost) = (0, self.rungs.len());
        while common < lost {
            let middle = common + (lost - common) / 2;
            match self.rungs[middle].holds(store).await? {
                true => common = middle + 1,
                false => lost = middle,
            }
        }
        let newest = common.checked_sub(1).map(|newest| self.rungs[newest]);
        match self.start {
            Some(start) if newest.is_none_or(|newest| newest.position < start.position) => {
                Ok(if start.holds(store).await? { Some(start) } else { newest })
            }
            _ => Ok(newest),
        }
    }

    /// Encodes the ladder for [`from_bytes`](Self::from_bytes).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.rungs.len() + 1) * RUNG_BYTES + 1);
        for rung in self.rungs.iter().chain(&self.start) {
            bytes.extend(rung.position.get().to_be_bytes());
            bytes.extend(rung.id.as_bytes());
        }
        bytes.extend(self.start.map(|_| STARTS));
        bytes
    }

    /// Decodes the bytes of [`to_bytes`](Self::to_bytes). `None` if they are not valid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, starts) = match bytes.split_last() {
            Some((last, rest)) if bytes.len() % RUNG_BYTES == 1 => (rest, Some(*last)),
            _ => (bytes, None),
        };
        let rung = |bytes: &[u8]| {
            let (position, id) = bytes.split_at_checked(8)?;
            let position = Position::new(u64::from_be_bytes(position.try_into().ok()?));
            Some(Witness { position, id: EventId::from_bytes(id.try_into().ok()?) })
        };
        let mut rungs = bytes.chunks(RUNG_BYTES).map(rung).collect::<Option<Vec<_>>>()?;
        let start = match starts {
            None => None,
            Some(STARTS) => Some(rungs.pop()?),
            Some(_) => return None,
        };
        rungs.is_sorted_by(|one, next| one.position < next.position).then_some(Self { rungs, start })
    }
}

impl From<Witness> for Ladder {
    fn from(witness: Witness) -> Self {
        let mut ladder = Self::default();
        ladder.push(witness);
        ladder
    }
}

/// Reads the witness of the newest event; the origin if the log is empty.
///
/// # Errors
/// If the store cannot be read.
pub async fn newest(store: &dyn EventStore) -> Result<Witness> {
    for _ in 0..TRIES {
        // The newest event may have been lost meanwhile, and a replica may lag.
        if let Some(newest) = Witness::at(store, store.head().await?).await? {
            return Ok(newest);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::Unavailable("the log does not have the event at its head".into()))
}

/// A reader of the events after a position that match a query.
pub struct LogReader {
    store: Arc<dyn EventStore>,
    read: LogRead,
    /// The event before the next position to read.
    seen: Witness,
    waits: Waits,
}

/// The result of reading a page.
#[derive(Debug)]
pub enum Found {
    /// The log was read up to `through`.
    Page {
        /// The events that match the query, in order.
        events: Vec<RecordedEvent>,
        /// The witness of the last event that was read, whether it matches or not.
        through: Witness,
        /// Whether that was the end of the log.
        end: bool,
    },
    /// The log does not have the event that was read last: step back.
    Lost,
}

impl LogReader {
    /// Makes a reader of the events after `seen`, with at most `limit` in a page. The origin is in every
    /// history.
    pub fn new(store: Arc<dyn EventStore>, seen: Witness, query: Query, limit: usize) -> Self {
        let read = LogRead::forward(seen.position.next()).matching(query).limit(limit);
        Self { store, read, seen, waits: Waits::default() }
    }

    /// Limits the next pages to this many events.
    pub(crate) fn limit(&mut self, limit: usize) {
        self.read.limit = limit;
    }

    /// The event up to which the log was read.
    pub fn seen(&self) -> Witness {
        self.seen
    }

    /// Continues after this event instead.
    pub fn resume(&mut self, seen: Witness) {
        self.seen = seen;
        self.read.from = seen.position.next();
    }

    /// Reads the next page. It may have no events, and at the end of the log it reaches no further.
    ///
    /// # Errors
    /// If the store cannot be read. The call may be repeated.
    pub async fn next(&mut self) -> Result<Found> {
        for _ in 0..TRIES {
            let Some(page) = self.store.read_log_after(self.read.clone(), self.seen).await? else {
                // Checked again: the response may be of a server that lags.
                tokio::time::sleep(PAUSE).await;
                if !self.seen.holds(&*self.store).await? {
                    return Ok(Found::Lost);
                }
                continue;
            };
            // The page is of a log that has the event read before. So is the log now, if it has the last
            // event of the page.
            if let Some(through) = self.through(&page).await? {
                self.resume(through);
                return Ok(Found::Page { events: page.events, through, end: page.end });
            }
        }
        Err(Error::Unavailable("the log answers otherwise each time that it is read".into()))
    }

    /// Returns the witness at the end of a page. `None` if the log has changed meanwhile.
    async fn through(&self, page: &LogPage) -> Result<Option<Witness>> {
        let last = page.events.last().map_or(self.seen, Witness::of);
        let end = page.next.previous().max(last.position);
        reached(&*self.store, &self.read.query, last, end).await
    }

    /// Waits until there may be new events, or it is time to check whether the log is still the same.
    ///
    /// # Errors
    /// Those of the store's [`wait`](EventStore::wait).
    pub async fn wait(&mut self) -> Result<()> {
        self.waits.more(&*self.store, self.seen.position).await
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("read", &self.read)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// Reads the witness at `end`, the last position of a page of events for `query`. `last` is the last event of
/// the page, or the one that was read before it. `None` if the log has changed meanwhile, or does not reach
/// `end` yet.
///
/// A page has its last position as a number, and the event there may not match the filter. The event is read
/// after the page, and the log may have lost its newest events in between. The page would then get a witness
/// of the new history, and a reader that resumes there would miss the events that took the positions of the
/// lost ones. A lost event does not return. So an event that is in the log before and after proves that the
/// log below it did not change in between.
///
/// # Errors
/// If the store cannot be read.
pub async fn reached(
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
        let wanted = gap as usize + 1;
        let events = store.read_log(LogRead::backward(end).limit(wanted)).await?.events;
        // Large events may have made the page shorter. The log of a caller with limited rights has gaps, and
        // then the page reaches further back.
        if let Some(common) = events.iter().position(|event| event.position() <= last.position) {
            let passed = &events[..common];
            let same =
                Witness::of(&events[common]) == last && !passed.iter().any(|event| query.matches(event));
            return Ok(passed.first().filter(|_| same).map(Witness::of));
        }
    }
    let through = Witness::at(store, end).await?;
    // Check again that no event of the gap matches, after its end was read.
    let mut read = LogRead::forward(last.position.next()).matching(query.clone()).limit(1);
    while read.from <= end {
        let page = store.read_log(read.clone()).await?;
        if page.next <= read.from || page.events.iter().any(|event| event.position() <= end) {
            return Ok(None);
        }
        read.from = page.next;
    }
    let same = last.holds(store).await?;
    Ok(through.filter(|_| same))
}

/// Waiting for a log to grow.
#[derive(Debug, Default)]
pub struct Waits {
    /// The position of the last wait, and how often the store reported more there although nothing followed.
    last: Position,
    in_vain: u32,
    /// How often in a row no event came until a check.
    quiet: u32,
}

impl Waits {
    /// Waits until the log may reach further than `position`, or it is time to check whether it still has the
    /// event there.
    ///
    /// # Errors
    /// Those of the store's [`wait`](EventStore::wait).
    pub async fn more(&mut self, store: &dyn EventStore, position: Position) -> Result<()> {
        if self.last != position {
            *self = Self { last: position, ..Self::default() };
        }
        // A store may still know an end of the log that was lost. Not with a duration of zero, which would
        // wait for the next tick of the timer.
        if self.in_vain > 0 {
            tokio::time::sleep(PAUSE.min(Duration::from_millis(10) * self.in_vain)).await;
        }
        let longest = CHECK.saturating_mul(1 << self.quiet.min(8)).min(CHECK_MAX);
        match tokio::time::timeout(longest, store.wait(position)).await {
            Ok(waited) => {
                (self.in_vain, self.quiet) = (self.in_vain + 1, 0);
                waited.map(drop)
            }
            Err(_) => {
                (self.in_vain, self.quiet) = (0, self.quiet + 1);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_core::{Append, Expected, MemoryStore, NewEvent, StreamId};

    fn witness(position: u64) -> Witness {
        Witness { position: Position::new(position), id: EventId::generate() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_log_is_checked_less_often_until_an_event_comes() {
        let store = MemoryStore::new();
        let mut waits = Waits::default();
        let mut waited = async |position| {
            let begun = tokio::time::Instant::now();
            waits.more(&store, position).await.unwrap();
            begun.elapsed().as_secs()
        };
        for seconds in [2, 4, 8, 8] {
            assert_eq!(waited(Position::ZERO).await, seconds);
        }
        let event = NewEvent::new("opened", "{}").unwrap();
        let stream = StreamId::new("account-1").unwrap();
        store.append(Append::to(stream, Expected::Any, [event])).await.unwrap();
        assert_eq!(waited(Position::ZERO).await, 0);
        assert_eq!(waited(Position::FIRST).await, 2);
    }

    #[test]
    fn a_ladder_is_dense_at_its_end_and_short() {
        let mut ladder = Ladder::default();
        let all: Vec<Witness> = (1..=100_000).map(witness).collect();
        for rung in &all {
            ladder.push(*rung);
            assert!(ladder.rungs.len() <= EXACT + 2 * 17, "{}", ladder.rungs.len());
        }
        assert!(ladder.rungs.ends_with(&all[all.len() - EXACT..]));
        for pair in ladder.rungs.windows(2) {
            let (below, above) = (pair[0].position.get(), pair[1].position.get());
            assert!(above - below <= 2 * (100_001 - above).max(1), "from {below} to {above}");
        }
        assert_eq!(ladder.rungs[0], all[0]);
        assert_eq!(Ladder::from_bytes(&ladder.to_bytes()), Some(ladder));
    }

    #[test]
    fn bytes_that_are_no_ladder_are_not_read_as_one() {
        let mut ladder = Ladder::default();
        ladder.push(witness(1));
        ladder.push(witness(2));
        let bytes = ladder.to_bytes();
        assert_eq!(Ladder::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Ladder::from_bytes(&[&bytes[RUNG_BYTES..], &bytes[..RUNG_BYTES]].concat()), None);
        assert_eq!(Ladder::from_bytes(&[]), Some(Ladder::default()));
        let started = Ladder { start: Some(witness(1)), ..ladder };
        assert_eq!(Ladder::from_bytes(&started.to_bytes()), Some(started));
        assert_eq!(Ladder::from_bytes(&[&bytes[..], &[2]].concat()), None);
        assert_eq!(Ladder::from_bytes(&[STARTS]), None);
    }

    async fn append(store: &MemoryStore, kinds: &[&str]) {
        let events = kinds.iter().map(|kind| NewEvent::new(*kind, "{}").unwrap());
        store.append(Append::to(StreamId::new("a-1").unwrap(), Expected::Any, events)).await.unwrap();
    }

    #[tokio::test]
    async fn a_ladder_that_is_read_from_the_log_is_the_same_kind_of_ladder() {
        let store = MemoryStore::new();
        append(&store, &["a.b"; 1000]).await;
        let newest = Witness::at(&store, Position::new(1000)).await.unwrap().unwrap();
        let ladder = Ladder::below(&store, newest).await.unwrap();
        assert_eq!(ladder.newest(), Some(newest));
        assert_eq!(ladder.last_in_common(&store).await.unwrap(), Some(newest));
        let other = MemoryStore::new();
        append(&other, &["a.b"; 1000]).await;
        assert_eq!(ladder.last_in_common(&other).await.unwrap(), None);
        let positions: Vec<u64> = ladder.rungs.iter().map(|rung| rung.position.get()).collect();
        assert_eq!(positions[..7], [1, 488, 744, 872, 936, 968, 984]);
        assert_eq!(positions.len(), 7 + EXACT);
    }

    #[tokio::test]
    async fn a_reader_has_a_witness_for_everything_that_it_passed() {
        let kinds: Vec<&str> =
            (0..200).map(|place| if place % 40 == 7 { "a.meant" } else { "a.other" }).collect();
        let store = Arc::new(MemoryStore::new());
        append(&store, &kinds).await;
        let query = Query::types(["a.meant".parse().unwrap()]);
        for limit in [1, 2, 100] {
            let origin = Witness::origin(store.id());
            let mut reader = LogReader::new(store.clone(), origin, query.clone(), limit);
            let mut positions = Vec::new();
            loop {
                let Found::Page { events, through, end } = reader.next().await.unwrap() else { panic!() };
                assert!(through.holds(&*store).await.unwrap());
                positions.extend(events.iter().map(|event| event.position().get()));
                if end && through.position.get() == 200 {
                    break;
                }
            }
            assert_eq!(positions, [8, 48, 88, 128, 168], "{limit}");
        }
    }
}
