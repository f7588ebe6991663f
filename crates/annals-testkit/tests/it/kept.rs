//! A store in memory that outlives its closing, as a durable one does; and the same one with a fault.
//!
//! The faults are those that stores really have: a lost event, a condition that is judged too early, a name
//! that is cut, an answer before the write. Each stands at the one place where it acts, below.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use annals_core::{
    Append, Appended, Clock, Condition, Conflict, Direction, Error, EventId, EventStore, EventStoreExt,
    EventType, Expected, IdempotencyKey, Invalid, Limits, LogPage, LogRead, MemoryStore, Position, Query,
    QueryItem, RecordedEvent, Result, StoreId, StreamId, StreamInfo, StreamList, StreamPage, StreamRead,
    SystemClock, TestClock, Text, Timestamp, Version, Violated, Witness,
};
use annals_testkit::Subject;
use async_trait::async_trait;

use crate::changed::{cut, lower, number_from_zero, with};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    // No faults: what a store may do otherwise than the one in memory.
    ReadsShortPages,
    ListsFewStreams,
    // Appends.
    LosesTheSecondEvent,
    WritesEventByEvent,
    AnswersBeforeItWrites,
    ChecksBeforeItsTurn,
    TakesReservedNames,
    TakesAnySize,
    TakesEmptyAppends,
    TakesEmptyNames,
    RefusesTheNilId,
    RefusesAfterARefusal,
    FoldsCase,
    // Conditions.
    TakesNoStreamForAny,
    TakesExistsForTheFirst,
    LooksAtOneConditionAStream,
    JudgesConditionsFirst,
    JudgesIdsFirst,
    CountsItsOwnEvents,
    TakesExistsForAny,
    TakesZeroForAny,
    TakesStaleVersions,
    LooksForTheNewestBehindIt,
    LooksAtVersionsOnly,
    IgnoresTheNewest,
    IgnoresUnwrittenStreams,
    IgnoresQueries,
    LooksAtTheFirstTagOnly,
    LooksAtTheFirstItemOnly,
    FoldsCaseInQueries,
    IgnoresBlanksInQueries,
    ComposesLettersInQueries,
    CutsNamesInQueries,
    FindsEventsByTheFirstTags,
    LooksAtTheFirstHundredItems,
    LooksAtTheFirstHundredTypes,
    FindsOneEventOfAnId,
    CutsIdsInQueries,
    FindsPredecessorsByTheirBeginning,
    ReadsAllThatAnEventCaused,
    IgnoresIdsInConditions,
    TakesItemsOfOneTypeForOne,
    BeginsAtTheBeginningBeyondTheHead,
    CountsFromThePositionItself,
    TakesPositionsOnly,
    NamesTheFirstViolationOnly,
    CarriesNothingUnseen,
    CarriesTooLittleUnseen,
    ExplainsEachViolationWhole,
    AnswersAnyReuse,
    // Keys and ids.
    ForgetsKeys,
    ForgetsKeysNowAndThen,
    ForgetsKeysWhenClosed,
    CutsKeys,
    UsesTheKeyOfARefusedAppend,
    DoesNotMarkDuplicates,
    AnswersWithTheNewestVersion,
    ForgetsIds,
    // Order and time.
    HidesALateCommit,
    HeadRunsAhead,
    FollowsTheClockBack,
    HasAClockOfItsOwn,
    IgnoresGivenTimes,
    // Reads.
    CutsLargePages,
    StaysWhereNothingIsMeant,
    ReadsStreamsFromOneLater,
    NumbersVersionsFromZero,
    ListsAfterKnownNamesOnly,
    LosesTheOldestBackward,
    SaysTheEndTooEarly,
    StopsAtThePageLimitForEver,
    IgnoresLimits,
    IgnoresUpperBounds,
    IgnoresTheCategory,
    IgnoresTypes,
    StepsOverTheEnd,
    BelievesWhatWasSeen,
    ForgetsWhatComesNext,
    GivesMissingStreamsAVersion,
    ListsByPrefix,
    ListsOldPositions,
    ReadsStreamsLate,
    WakesTooEarly,
    // Fidelity.
    ReadsDataAsText,
    LosesOwnKeys,
    SortsTags,
    CutsTypes,
    LosesTheTimeOfOccurrence,
    // Survival and isolation.
    LosesAllWhenClosed,
    LosesTheIdentityWhenClosed,
    MovesTimesWithTheClock,
    ShowsTheLogAsItWasOpened,
    HasTheIdentityOfAnother,
}

use Fault::*;

/// A place in memory. A store that is opened here again finds what was there.
pub struct Kept {
    pub fault: Fault,
    opened: Mutex<Vec<Arc<MemoryStore>>>,
    /// One store for all places.
    shared: Option<Arc<MemoryStore>>,
}

impl Kept {
    pub fn new(fault: Fault) -> Self {
        Self { fault, opened: Mutex::default(), shared: None }
    }

    pub fn shared(store: &Arc<MemoryStore>) -> Self {
        Self { shared: Some(Arc::clone(store)), ..Self::new(Nothing) }
    }
}

impl Subject for Kept {
    type Store = Faulty;

    async fn open_beside(&self, clock: Arc<TestClock>) -> Faulty {
        let mut beside = self.open(clock).await;
        if self.fault == ShowsTheLogAsItWasOpened {
            beside.shows_up_to = Some(beside.store.head().await.unwrap());
        }
        beside
    }

    async fn open(&self, clock: Arc<TestClock>) -> Faulty {
        let mut opened = self.opened.lock().unwrap();
        let limits = match self.fault {
            TakesAnySize => Limits {
                event_bytes_max: usize::MAX,
                append_bytes_max: usize::MAX,
                append_events_max: usize::MAX,
                event_tags_max: usize::MAX,
                metadata_bytes_max: usize::MAX,
                append_conditions_max: usize::MAX,
                query_items_max: usize::MAX,
                query_item_tags_max: usize::MAX,
                query_names_max: usize::MAX,
                query_bytes_max: usize::MAX,
            },
            _ => Limits::default(),
        };
        let kept =
            self.shared.clone().or(opened.last().cloned()).filter(|_| self.fault != LosesAllWhenClosed);
        let given: Arc<dyn Clock> = match self.fault {
            HasAClockOfItsOwn => Arc::new(SystemClock),
            _ => Arc::clone(&clock) as _,
        };
        let store = kept.unwrap_or_else(|| Arc::new(MemoryStore::with(limits, given)));
        opened.push(Arc::clone(&store));
        let times_opened = opened.len();
        Faulty {
            store,
            fault: self.fault,
            times_opened,
            shows_up_to: None,
            opened_at: clock.now(),
            clock,
            truth: Mutex::default(),
            shown: Mutex::default(),
            checked: AtomicUsize::new(0),
        }
    }
}

/// A store in memory with a fault.
pub struct Faulty {
    store: Arc<MemoryStore>,
    fault: Fault,
    times_opened: usize,
    opened_at: Timestamp,
    shows_up_to: Option<Position>,
    clock: Arc<TestClock>,
    /// What events should be read with, where the store below keeps something else.
    truth: Mutex<BTreeMap<Position, (EventId, Timestamp)>>,
    /// What was shown or refused before.
    shown: Mutex<HashSet<String>>,
    /// Appends that have checked their conditions and have not written yet.
    checked: AtomicUsize,
}

impl Faulty {
    /// Whether this is the first time that this is asked.
    fn first_time(&self, what: String) -> bool {
        self.shown.lock().unwrap().insert(what)
    }

    /// The append as the store below gets it.
    fn spoil_append(&self, append: &mut Append) {
        let writes = &mut append.writes;
        match self.fault {
            LosesTheSecondEvent if writes.len() > 1 => drop(writes.remove(1)),
            TakesReservedNames => {
                for write in writes.iter_mut().filter(|write| write.stream.is_reserved()) {
                    write.stream = StreamId::new(format!("s{}", write.stream)).unwrap();
                }
            }
            ForgetsKeys => append.key = None,
            ForgetsKeysNowAndThen if writes.len() > 2 => append.key = None,
            ForgetsKeysWhenClosed if self.times_opened > 1 => append.key = None,
            CutsKeys => append.key = append.key.as_ref().map(cut),
            ForgetsIds => writes.iter_mut().for_each(|write| write.event.id = EventId::generate()),
            IgnoresGivenTimes => append.recorded_at = None,
            TakesEmptyNames => {
                let processes = writes.iter_mut().map(|write| &mut write.event.metadata.process);
                processes
                    .filter(|name| name.as_ref().is_some_and(|name| name.is_empty()))
                    .for_each(|name| *name = None);
            }
            FoldsCase => writes.iter_mut().for_each(|write| write.stream = lower(&write.stream)),
            ReadsDataAsText => {
                for write in writes {
                    write.event.data = String::from_utf8_lossy(&write.event.data).into_owned().into();
                }
            }
            CutsTypes => {
                for write in writes {
                    let cut: String = write.event.event_type.as_str().chars().take(200).collect();
                    write.event.event_type = EventType::new(cut).unwrap();
                }
            }
            LosesOwnKeys => writes.iter_mut().for_each(|write| write.event.metadata.own.clear()),
            SortsTags => writes.iter_mut().for_each(|write| write.event.tags.sort()),
            LosesTheTimeOfOccurrence => writes.iter_mut().for_each(|write| write.event.occurred_at = None),
            _ => {}
        }
        if self.fault == LooksAtOneConditionAStream {
            let mut seen = HashSet::new();
            for condition in &mut append.conditions {
                if let Condition::Version { stream, expected } = condition
                    && !seen.insert(stream.clone())
                {
                    *expected = Expected::Any;
                }
            }
        }
        let written: Vec<StreamId> = append.writes.iter().map(|write| write.stream.clone()).collect();
        append.conditions.iter_mut().for_each(|condition| self.spoil_condition(condition, &written));
    }

    /// The condition as the store below gets it: in its place, so that indexes stay.
    fn spoil_condition(&self, condition: &mut Condition, written: &[StreamId]) {
        match condition {
            Condition::Version { stream, expected } => match (self.fault, *expected) {
                (TakesExistsForAny, Expected::Exists) | (TakesZeroForAny, Expected::Exact(Version::ZERO)) => {
                    *expected = Expected::Any;
                }
                (TakesStaleVersions, Expected::Exact(version)) if version.get() > 0 => {
                    *expected = Expected::Exists
                }
                (TakesNoStreamForAny, Expected::NoStream) => *expected = Expected::Any,
                (TakesExistsForTheFirst, Expected::Exists) => *expected = Expected::Exact(Version::FIRST),
                (FoldsCase, _) => *stream = lower(stream),
                (IgnoresUnwrittenStreams, _) if !written.contains(stream) => *expected = Expected::Any,
                _ => {}
            },
            Condition::NoMatch { query, after } => match self.fault {
                IgnoresQueries => *after = Position::MAX.into(),
                IgnoresIdsInConditions if query.items.iter().any(|item| item.id.is_some()) => {
                    *after = Position::MAX.into();
                }
                TakesPositionsOnly => *after = after.position.into(),
                LooksAtTheFirstTagOnly
                | LooksAtTheFirstItemOnly
                | LooksAtTheFirstHundredItems
                | LooksAtTheFirstHundredTypes
                | TakesItemsOfOneTypeForOne => self.spoil_query(query),
                CountsFromThePositionItself => *after = after.position.previous().into(),
                _ => {}
            },
            Condition::Newest { stream, version, .. } => match self.fault {
                LooksForTheNewestBehindIt => *version = version.next(),
                LooksAtVersionsOnly | IgnoresTheNewest => {
                    let any = self.fault == IgnoresTheNewest;
                    let expected = if any { Expected::Any } else { Expected::Exact(*version) };
                    *condition = Condition::Version { stream: stream.clone(), expected };
                }
                FoldsCase => *stream = lower(stream),
                _ => {}
            },
            _ => {}
        }
    }

    /// The query as the store below gets it. One that is to be refused is left as it is.
    fn spoil_query(&self, query: &mut Query) {
        let read = LogRead::forward(Position::FIRST).matching(query.clone());
        if read.validate(&Limits::default()).is_err() {
            return;
        }
        match self.fault {
            LooksAtTheFirstTagOnly => query.items.iter_mut().for_each(|item| item.tags.truncate(1)),
            LooksAtTheFirstItemOnly => query.items.truncate(1),
            LooksAtTheFirstHundredItems => query.items.truncate(100),
            LooksAtTheFirstHundredTypes => query.items.iter_mut().for_each(|item| item.types.truncate(100)),
            TakesItemsOfOneTypeForOne => query.items.dedup_by(|later, earlier| {
                !later.types.is_empty()
                    && QueryItem { tags: earlier.tags.clone(), ..later.clone() } == *earlier
            }),
            IgnoresTypes => query.items.iter_mut().for_each(|item| item.types.clear()),
            IgnoresTheCategory => query.items.iter_mut().for_each(|item| item.category = None),
            _ => {}
        }
    }

    /// A name as queries compare it.
    fn compared(&self, name: &str) -> String {
        match self.fault {
            FoldsCaseInQueries => name.to_lowercase(),
            IgnoresBlanksInQueries => name.trim_end_matches(' ').to_owned(),
            ComposesLettersInQueries => name.replace("e\u{301}", "\u{e9}"),
            CutsNamesInQueries => name.chars().take(64).collect(),
            _ => name.to_owned(),
        }
    }

    /// Whether a query finds an event, with names that are compared badly.
    fn finds(&self, query: &Query, event: &RecordedEvent) -> bool {
        let of_id = if self.fault == CutsIdsInQueries { 12 } else { 16 };
        let same = |one: &str, other: &str| self.compared(one) == self.compared(other);
        let text = |asked: &Option<Text>, has: &Option<Text>| match (asked, has) {
            (Some(asked), Some(has)) => same(asked, has),
            (asked, _) => asked.is_none(),
        };
        query.is_all()
            || query.items.iter().any(|item| {
                item.category.as_ref().is_none_or(|name| same(name.as_str(), event.category()))
                    && (item.types.is_empty()
                        || item.types.iter().any(|name| same(name.as_str(), event.event_type())))
                    && item.tags.iter().all(|asked| {
                        let is_cut = self.fault == FindsEventsByTheFirstTags && item.tags.len() == 1;
                        let tags = if is_cut { 32 } else { usize::MAX };
                        event.tags().take(tags).any(|has| same(has, asked.as_str()))
                    })
                    && text(&item.process, &event.metadata().process)
                    && text(&item.initiator, &event.metadata().initiator)
                    && self.finds_cause(item.predecessor.as_ref(), event.metadata().predecessor.as_ref())
                    && item.id.is_none_or(|id| id.as_bytes()[..of_id] == event.id().as_bytes()[..of_id])
            })
    }

    fn finds_cause(&self, asked: Option<&Text>, has: Option<&Text>) -> bool {
        let begins = self.fault == FindsPredecessorsByTheirBeginning;
        let finds = |asked: &Text, has: &Text| begins && has.starts_with(asked.as_str());
        let same = |asked: &Text, has: &Text| self.compared(asked) == self.compared(has);
        asked.is_none_or(|asked| has.is_some_and(|has| finds(asked, has) || same(asked, has)))
    }

    async fn write(&self, mut append: Append) -> Result<Appended> {
        let original = append.clone();
        self.spoil_append(&mut append);
        if self.fault == ChecksBeforeItsTurn {
            self.check_early(&mut append).await?;
        }
        let now = self.clock.now();
        let mut answer = self.store.append(append).await;
        if self.fault == ChecksBeforeItsTurn {
            let _ = self
                .checked
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |checked| checked.checked_sub(1));
        }
        match (&mut answer, self.fault) {
            (Ok(done), FollowsTheClockBack | ForgetsIds) if !done.duplicate => {
                let mut truth = self.truth.lock().unwrap();
                for (offset, write) in original.writes.iter().enumerate() {
                    if self.fault == FollowsTheClockBack {
                        done.recorded_at = now;
                    }
                    truth.insert(done.first.plus(offset as u64), (write.event.id, done.recorded_at));
                }
            }
            _ => {}
        }
        answer
    }

    /// Judges conditions on versions by what can be read now, and lets others in between.
    async fn check_early(&self, append: &mut Append) -> Result<()> {
        for condition in &append.conditions {
            if let Condition::Version { stream, expected } = condition
                && !expected.allows(self.store.stream_version(stream).await?)
            {
                return Ok(());
            }
        }
        // Lets another one check too, if another one comes: one that is alone continues after a while.
        self.checked.fetch_add(1, Ordering::SeqCst);
        for _ in 0..20_000 {
            if self.checked.load(Ordering::SeqCst) > 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
        append.conditions.retain(|condition| !matches!(condition, Condition::Version { .. }));
        Ok(())
    }

    /// What a store with this fault refuses before it looks further.
    async fn refuse_early(&self, append: &Append) -> Result<()> {
        match self.fault {
            RefusesTheNilId if append.writes.iter().any(|write| *write.event.id.as_bytes() == [0; 16]) => {
                Err(Invalid::new("id", "is nil").into())
            }
            RefusesAfterARefusal if append.writes.iter().any(|write| self.was_shown(&write.stream)) => {
                Err(Invalid::new("stream", "was refused").into())
            }
            UsesTheKeyOfARefusedAppend if append.key.as_ref().is_some_and(|key| self.was_shown(key)) => {
                Err(Invalid::new("key", "was used").into())
            }
            JudgesIdsFirst => {
                for write in &append.writes {
                    let events = self.store.stream_events(&write.stream).await?;
                    if events.iter().any(|event| event.id() == write.event.id) {
                        return Err(Invalid::new("id", "is used").into());
                    }
                }
                Ok(())
            }
            JudgesConditionsFirst | CountsItsOwnEvents | BeginsAtTheBeginningBeyondTheHead => {
                self.judge_first(append).await
            }
            _ => Ok(()),
        }
    }

    async fn judge_first(&self, append: &Append) -> Result<()> {
        let mut refused = Vec::new();
        for (index, condition) in append.conditions.iter().enumerate() {
            match condition {
                Condition::Version { stream, expected } if self.fault == JudgesConditionsFirst => {
                    let actual = self.store.stream_version(stream).await?;
                    if !expected.allows(actual) {
                        let (stream, expected) = (stream.clone(), *expected);
                        refused.push((index, Violated::Version { stream, expected, actual }));
                    }
                }
                Condition::NoMatch { query, after } if self.fault == CountsItsOwnEvents => {
                    let types = || query.items.iter().flat_map(|item| &item.types);
                    if append.writes.iter().any(|write| types().any(|named| *named == write.event.event_type))
                    {
                        let after = after.position;
                        refused.push((index, Violated::NoMatch { after, position: after.next() }));
                    }
                }
                Condition::NoMatch { query, after } if self.fault == BeginsAtTheBeginningBeyondTheHead => {
                    let after = after.position;
                    let first = LogRead::forward(Position::FIRST).matching(query.clone()).limit(1);
                    let Ok(page) = self.store.read_log(first).await else { continue };
                    if after > page.head.next()
                        && after < Position::new(u64::MAX)
                        && let Some(event) = page.events.first()
                    {
                        refused.push((index, Violated::NoMatch { after, position: event.position() }));
                    }
                }
                _ => {}
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        Err(Error::Conflict(Box::new(Conflict::explain(&*self.store, &append.conditions, refused).await?)))
    }

    fn was_shown(&self, what: impl ToString) -> bool {
        self.shown.lock().unwrap().contains(&what.to_string())
    }

    async fn write_event_by_event(&self, append: Append) -> Result<Appended> {
        let (mut streams, mut first) = (Vec::new(), None);
        let Append { writes, conditions, key, key_reuse, recorded_at } = append;
        let mut last = None;
        for (index, write) in writes.into_iter().enumerate() {
            let conditions = if index == 0 { conditions.clone() } else { Vec::new() };
            let key = key.clone().filter(|_| index == 0);
            let done = self
                .store
                .append(Append { writes: vec![write], conditions, key, key_reuse, recorded_at })
                .await?;
            if done.duplicate {
                return Ok(done);
            }
            first.get_or_insert(done.first);
            streams.push(done.streams[0].clone());
            last = Some(done);
            // Long enough for a reader to come by.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        let Some(last) = last else { return self.store.append(Append::new()).await };
        let places = streams.iter().map(|(stream, version)| (stream, *version));
        Ok(Appended::new(first.unwrap(), last.recorded_at, places, last.event, false))
    }

    /// Foretells the outcome and writes later.
    async fn answer_before(&self, append: Append) -> Result<Appended> {
        append.validate(&Limits::default())?;
        let first = self.store.head().await?.next();
        let mut streams = Vec::new();
        for write in &append.writes {
            streams.push((write.stream.clone(), self.store.stream_version(&write.stream).await?.next()));
        }
        let store = Arc::clone(&self.store);
        let last = append.writes.last().unwrap().event.id;
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            store.append(append).await
        });
        let places = streams.iter().map(|(stream, version)| (stream, *version));
        Ok(Appended::new(first, self.clock.now(), places, last, false))
    }

    fn spoil_answer(&self, append: &Append, answer: Result<Appended>) -> Result<Appended> {
        match (answer, self.fault) {
            (Ok(mut done), DoesNotMarkDuplicates) => {
                done.duplicate = false;
                Ok(done)
            }
            (Err(Error::Conflict(mut conflict)), NamesTheFirstViolationOnly) => {
                conflict.violations.truncate(1);
                Err(Error::Conflict(conflict))
            }
            (Err(Error::Conflict(mut conflict)), CarriesNothingUnseen | CarriesTooLittleUnseen) => {
                for violation in &mut conflict.violations {
                    let keep = if self.fault == CarriesNothingUnseen { 0 } else { 100 };
                    violation.unseen.truncate(keep);
                }
                Err(Error::Conflict(conflict))
            }
            (Err(Error::Conflict(mut conflict)), ExplainsEachViolationWhole) => {
                let unseen = conflict.violations[0].unseen.clone();
                for violation in &mut conflict.violations {
                    violation.unseen.clone_from(&unseen);
                }
                Err(Error::Conflict(conflict))
            }
            (Err(Error::Reused(reused)), AnswersAnyReuse) => {
                let (place, id) = ((&reused.stream, Version::FIRST), EventId::generate());
                Ok(Appended::new(reused.first, self.clock.now(), [place], id, true))
            }
            (Err(error), RefusesAfterARefusal) => {
                for write in &append.writes {
                    self.first_time(write.stream.to_string());
                }
                Err(error)
            }
            (Err(error), UsesTheKeyOfARefusedAppend) => {
                if let Some(key) = &append.key {
                    self.first_time(key.to_string());
                }
                Err(error)
            }
            (answer, _) => answer,
        }
    }

    fn spoil_events(&self, events: &mut [RecordedEvent]) {
        let truth = self.truth.lock().unwrap();
        for event in events {
            if let Some((id, time)) = truth.get(&event.position()) {
                *event = with(event, *id, event.version(), *time);
            }
        }
    }
}

#[async_trait]
impl EventStore for Faulty {
    fn id(&self) -> StoreId {
        match self.fault {
            LosesTheIdentityWhenClosed => StoreId::from_bytes([u8::try_from(self.times_opened).unwrap(); 16]),
            HasTheIdentityOfAnother => StoreId::from_bytes([7; 16]),
            _ => self.store.id(),
        }
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        match self.fault {
            WritesEventByEvent => return self.write_event_by_event(append).await,
            AnswersBeforeItWrites => return self.answer_before(append).await,
            TakesEmptyAppends if append.writes.is_empty() => {
                let head = self.store.head().await?;
                let none = StreamId::new("none").unwrap();
                let (place, id) = ((&none, Version::ZERO), EventId::generate());
                return Ok(Appended::new(head, self.clock.now(), [place], id, false));
            }
            _ => {}
        }
        self.refuse_early(&append).await?;
        let answer = self.write(append.clone()).await;
        if let (Ok(done), AnswersWithTheNewestVersion) = (&answer, self.fault) {
            let mut done = done.clone();
            for (stream, version) in &mut done.streams {
                *version = self.store.stream_version(stream).await?;
            }
            return Ok(done);
        }
        self.spoil_answer(&append, answer)
    }

    async fn read_log_after(&self, read: LogRead, seen: Witness) -> Result<Option<LogPage>> {
        let page = self.read_log(read).await?;
        let holds = seen.holds(self).await?;
        Ok((holds || self.fault == BelievesWhatWasSeen).then_some(page))
    }

    async fn read_log(&self, mut read: LogRead) -> Result<LogPage> {
        let (direction, from) = (read.direction, read.from);
        match self.fault {
            ReadsShortPages => read.limit = read.limit.clamp(1, 3),
            IgnoresLimits => read.limit = usize::MAX,
            IgnoresUpperBounds => read.to = Position::MAX,
            ReadsAllThatAnEventCaused if read.query.items.iter().any(|item| item.predecessor.is_some()) => {
                read.limit = usize::MAX;
            }
            LooksAtTheFirstTagOnly | LooksAtTheFirstItemOnly => {}
            _ => self.spoil_query(&mut read.query),
        }
        let asked = read.query.clone();
        if matches!(
            self.fault,
            FoldsCaseInQueries
                | IgnoresBlanksInQueries
                | ComposesLettersInQueries
                | CutsNamesInQueries
                | FindsEventsByTheFirstTags
                | CutsIdsInQueries
                | FindsPredecessorsByTheirBeginning
        ) && read.validate(&Limits::default()).is_ok()
        {
            read.query = Query::all();
        }
        let mut page = self.store.read_log(read).await?;
        page.events.retain(|event| self.finds(&asked, event));
        match self.fault {
            LosesTheOldestBackward if direction == Direction::Backward => {
                page.events.retain(|event| event.position() > Position::FIRST);
            }
            FindsOneEventOfAnId if asked.items.iter().any(|item| item.id.is_some()) => {
                let mut seen = HashSet::new();
                page.events.retain(|event| seen.insert(event.id()));
            }
            SaysTheEndTooEarly if !page.events.is_empty() => page.end = true,
            StopsAtThePageLimitForEver if from.get() > 5 => page.events.truncate(1),
            HeadRunsAhead => page.head = page.head.next(),
            StaysWhereNothingIsMeant if page.events.is_empty() && from <= page.head => {
                (page.next, page.end) = (from, false);
            }
            StepsOverTheEnd if from > page.head && self.first_time("the end".to_owned()) => {
                page.next = page.next.next();
            }
            ForgetsWhatComesNext if from > page.head => drop(self.first_time(format!("end {from}"))),
            ForgetsWhatComesNext if page.events.len() > 1 && !self.first_time(format!("end {from}")) => {
                page.events.remove(0);
            }
            CutsLargePages => {
                let mut bytes = 0;
                page.events.retain(|event| {
                    bytes += event.data().len();
                    bytes <= 4 << 20
                });
            }
            NumbersVersionsFromZero => {
                number_from_zero(&mut page.events);
            }
            ShowsTheLogAsItWasOpened => {
                page.events.retain(|event| self.shows_up_to.is_none_or(|last| event.position() <= last));
            }
            MovesTimesWithTheClock if self.times_opened > 1 => {
                let moved = |time: Timestamp| time.min(self.opened_at);
                for event in &mut page.events {
                    *event = with(event, event.id(), event.version(), moved(event.recorded_at()));
                }
            }
            HidesALateCommit => {
                let head = page.head;
                page.events.retain(|event| {
                    let late = event.position() < head && event.position().get() % 5 == 0;
                    !late || !self.first_time(event.position().to_string())
                });
            }
            _ => {}
        }
        self.spoil_events(&mut page.events);
        Ok(page)
    }

    async fn read_stream(&self, mut read: StreamRead) -> Result<StreamPage> {
        match self.fault {
            ReadsShortPages => read.limit = read.limit.clamp(1, 3),
            FoldsCase => read.stream = lower(&read.stream),
            ReadsStreamsFromOneLater if read.from > Version::FIRST => read.from = read.from.next(),
            _ => {}
        }
        let mut page = self.store.read_stream(read).await?;
        if self.fault == GivesMissingStreamsAVersion {
            page.version = page.version.max(Version::FIRST);
        }
        if self.fault == NumbersVersionsFromZero {
            number_from_zero(&mut page.events);
        }
        if self.fault == ReadsStreamsLate && self.first_time(format!("{page:?}")) && page.version.get() > 1 {
            page.version = page.version.previous();
            page.events.retain(|event| event.version() <= page.version);
            page.next = page.next.min(page.version.next());
        }
        self.spoil_events(&mut page.events);
        Ok(page)
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        let mut streams = match (self.fault, list.category.clone()) {
            (ListsFewStreams, _) => {
                let limit = list.limit.clamp(1, 2);
                self.store.list_streams(StreamList { limit, ..list }).await?
            }
            (ListsByPrefix, Some(category)) => {
                let mut all = self.store.list_streams(StreamList { category: None, ..list }).await?;
                all.retain(|info| info.stream.as_str().starts_with(category.as_str()));
                all
            }
            _ => {
                if let (ListsAfterKnownNamesOnly, Some(after)) = (self.fault, &list.after)
                    && self.store.stream_version(after).await? == Version::ZERO
                {
                    return Ok(Vec::new());
                }
                self.store.list_streams(list).await?
            }
        };
        if self.fault == ListsOldPositions {
            streams.iter_mut().for_each(|info| info.position = Position::FIRST);
        }
        Ok(streams)
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        match self.fault {
            CutsKeys => self.store.outcome(&cut(key)).await,
            ForgetsKeysWhenClosed if self.times_opened > 1 => Ok(None),
            _ => self.store.outcome(key).await,
        }
    }

    async fn head(&self) -> Result<Position> {
        let head = self.store.head().await?;
        Ok(if self.fault == HeadRunsAhead { head.next() } else { head })
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        match self.fault {
            WakesTooEarly => self.store.wait(after.min(Position::FIRST)).await,
            HeadRunsAhead => Ok(self.store.wait(after).await?.next()),
            _ => self.store.wait(after).await,
        }
    }
}
