//! State for the suite's own tests: it outlives its handles, and can be told to break a promise.
//!
//! It is the state in memory, with what goes in or comes out of it changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use annals_core::{
    Cause, Clock, Error, Invalid, Position, Result, StoreId, StreamId, TestClock, Timestamp, Version,
};
use annals_state::{
    Acquired, Advanced, Checkpoint, CheckpointStore, Lease, LeaseStore, MemoryState, SnapshotStore,
    StateError, StateStore, StoredSnapshot,
};
use annals_testkit::StateSubject;
use async_trait::async_trait;

/// What the state does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    InventsCheckpoints,
    LosesAdvances,
    AdvancesBack,
    AdvancesToTheSamePosition,
    MakesByAdvance,
    MakesAgain,
    ReplacesWhatWasMoved,
    MakesByReplace,
    ReplacesForwardOnly,
    DropsLadders,
    DropsEvents,
    TakesAnEmptyLadderForNone,
    KeepsTheEventBefore,
    CutsLadders,
    CutsPositions,
    FoldsNames,
    TrimsNames,
    CutsNames,
    TakesEveryName,
    FoldsLeases,
    FoldsHolders,
    FindsPartsByPrefix,
    FindsPartsBackwards,
    ReplacesPartsBlindly,
    ReplacesPartsByPosition,
    ReplacesMostParts,
    KeepsPartsThatGo,
    GivesHeldLeases,
    LeasesForEver,
    LeasesForNoTime,
    RenewsFromTheBeginning,
    GivesOneToken,
    RestartsTokensAfterARelease,
    KeepsAFormerLease,
    NamesTheWrongHolder,
    TellsNoHolder,
    RenewsWhatIsLost,
    RenewsNothing,
    RefusesToRenewWhatIsOver,
    ReleasesForOthers,
    ReleasesNothing,
    FencesNothing,
    FencesAdvancesOnly,
    FencesByHolder,
    FencesByTime,
    FencesByAnyGreaterToken,
    FencesUntilReleasedOnly,
    ReleasesWhenFenced,
    FencesByAll,
    StopsItsClock,
    BelievesTheClock,
    EndsLeasesWhenSetBack,
    ShowsTheLastSnapshotPut,
    ShowsSnapshotsBeyond,
    KeepsTheFirstOfAVersion,
    ShowsOtherSchemas,
    KeepsEverySnapshot,
    KeepsOneSnapshot,
    FoldsStreams,
    CutsSnapshots,
    ForgetsNoSnapshot,
    ForgetsAllSnapshots,
    RoundsTimes,
    LosesCheckpointsInACrash,
    LosesLeasesInACrash,
    LosesSnapshotsInACrash,
    ShowsAnotherLog,
    RefusesAnotherLogWithoutAWord,
    IsOnePerHandle,
    AdvancesInTwoSteps,
    MakesInTwoSteps,
    DividesInTwoSteps,
    AcquiresInTwoSteps,
    FencesBeforeItWrites,
}

use Fault::*;

/// A place where such state lives.
pub struct Place {
    fault: Fault,
    states: Mutex<HashMap<StoreId, MemoryState>>,
    shared: Arc<Shared>,
    handles: Mutex<Weak<()>>,
}

/// What all handles know.
#[derive(Default)]
struct Shared {
    /// The newest lease of each name, and whether it is held.
    leases: Mutex<HashMap<String, (Lease, bool)>>,
    /// How often a lease of a name was released.
    releases: Mutex<HashMap<String, u64>>,
    snapshots: Mutex<Vec<StoredSnapshot>>,
    crashes: Mutex<u64>,
}

/// A handle.
struct Handle {
    inner: MemoryState,
    fault: Fault,
    shared: Arc<Shared>,
    _alive: Arc<()>,
}

impl Place {
    pub fn new(fault: Fault) -> Self {
        Self { fault, states: Mutex::default(), shared: Arc::default(), handles: Mutex::default() }
    }
}

impl StateSubject for Place {
    async fn open(&self, log: StoreId, clock: Arc<TestClock>) -> Result<Arc<dyn StateStore>> {
        let mut states = self.states.lock().unwrap();
        let first = states.keys().next().copied();
        if self.fault == RefusesAnotherLogWithoutAWord && first.is_some_and(|first| first != log) {
            return Err(Error::Invalid(Invalid::new("state", "is another's")));
        }
        let key = if self.fault == ShowsAnotherLog { first.unwrap_or(log) } else { log };
        let clock: Arc<dyn Clock> = match self.fault {
            StopsItsClock => Arc::new(TestClock::at(clock.now())),
            _ => clock,
        };
        let new = || MemoryState::with_clock(log, clock);
        let inner = match self.fault {
            IsOnePerHandle => new(),
            _ => states.entry(key).or_insert_with(new).clone(),
        };
        let mut handles = self.handles.lock().unwrap();
        let alive = handles.upgrade().unwrap_or_else(|| {
            *self.shared.crashes.lock().unwrap() += 1;
            Arc::default()
        });
        *handles = Arc::downgrade(&alive);
        Ok(Arc::new(Handle { inner, fault: self.fault, shared: self.shared.clone(), _alive: alive }))
    }

    async fn move_clock(&self, clock: &TestClock, micros: i64) {
        if micros < 0 && self.fault == BelievesTheClock {
            return;
        }
        if micros < 0 && self.fault == EndsLeasesWhenSetBack {
            let leases: Vec<_> = self.shared.leases.lock().unwrap().values().cloned().collect();
            let states: Vec<_> = self.states.lock().unwrap().values().cloned().collect();
            for (state, (lease, _)) in
                states.iter().flat_map(|state| leases.iter().map(move |lease| (state, lease)))
            {
                state.release(lease).await.unwrap();
            }
        }
        clock.set(Timestamp::from_micros(clock.now().as_micros() + micros));
    }
}

impl Handle {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// After how many crashes it is, if that matters.
    fn epoch(&self, fault: Fault) -> String {
        match *self.shared.crashes.lock().unwrap() {
            crashes if crashes > 1 && self.is(fault) => format!("{crashes} "),
            _ => String::new(),
        }
    }

    fn name(&self, name: &str) -> String {
        let name = match self.fault {
            FoldsNames => name.to_lowercase(),
            TrimsNames => name.trim_end().to_owned(),
            CutsNames => name[..name.floor_char_boundary(255)].to_owned(),
            TakesEveryName if name.is_empty() || name.contains('\0') || name.len() > 1_024 => {
                "odd".to_owned()
            }
            _ => name.to_owned(),
        };
        self.epoch(LosesCheckpointsInACrash) + &name
    }

    fn lease_name(&self, name: &str) -> String {
        let releases = *self.shared.releases.lock().unwrap().get(name).unwrap_or(&0);
        let name = match self.fault {
            FoldsLeases => name.to_lowercase(),
            CutsNames => name[..name.floor_char_boundary(255)].to_owned(),
            TakesEveryName if name.is_empty() || name.contains('\0') || name.len() > 1_024 => {
                "odd".to_owned()
            }
            RestartsTokensAfterARelease if releases > 0 => format!("{name} {releases}"),
            _ => name.to_owned(),
        };
        self.epoch(LosesLeasesInACrash) + &name
    }

    fn newest(&self, name: &str) -> Option<(Lease, bool)> {
        self.shared.leases.lock().unwrap().get(name).cloned()
    }

    /// The lease as the state in memory has it.
    fn inner(&self, lease: &Lease) -> Lease {
        let name = self.lease_name(&lease.name);
        let holder = if self.is(FoldsHolders) { lease.holder.to_lowercase() } else { lease.holder.clone() };
        let newest = self.newest(&lease.name).map(|(newest, _)| newest);
        match self.fault {
            GivesOneToken => match newest {
                Some(newest) if newest.holder == lease.holder => newest,
                _ => Lease { name, holder, token: u64::MAX },
            },
            _ => Lease { name, holder, token: lease.token },
        }
    }

    fn changed(&self, checkpoint: &Checkpoint) -> Checkpoint {
        let Checkpoint { position, event, ladder } = checkpoint.clone();
        let ladder = match self.fault {
            DropsLadders => None,
            TakesAnEmptyLadderForNone => ladder.filter(|bytes| !bytes.is_empty()),
            CutsLadders => ladder.map(|bytes| bytes[..bytes.len().min(65_535)].to_vec()),
            _ => ladder,
        };
        let event = if self.is(DropsEvents) { None } else { event };
        let greatest = Position::new(i64::MAX.unsigned_abs());
        let position = if self.is(CutsPositions) { position.min(greatest) } else { position };
        Checkpoint { position, event, ladder }
    }

    /// The lease that a write is checked against, if it is.
    async fn fence(&self, lease: Option<&Lease>, is_advance: bool) -> Result<Option<Lease>, StateError> {
        let Some(lease) = lease else { return Ok(None) };
        let (inner, newest) = (self.inner(lease), self.newest(&lease.name));
        let newest = newest.map(|(newest, _)| newest);
        let own = newest.clone().unwrap_or_else(|| inner.clone());
        Ok(match self.fault {
            FencesNothing => None,
            FencesAdvancesOnly if !is_advance => None,
            FencesByHolder if own.holder == lease.holder => Some(own),
            FencesByAnyGreaterToken if newest.as_ref().is_some_and(|newest| lease.token >= newest.token) => {
                Some(own)
            }
            FencesUntilReleasedOnly if newest.as_ref() == Some(lease) => None,
            FencesByTime if self.inner.holder(&inner.name).await?.is_none() => {
                return Err(StateError::LeaseLost(lease.name.clone()));
            }
            FencesByAll => {
                for (name, (_, is_held)) in &*self.shared.leases.lock().unwrap() {
                    if !is_held && *name != lease.name {
                        return Err(StateError::LeaseLost(lease.name.clone()));
                    }
                }
                Some(inner)
            }
            FencesBeforeItWrites => {
                let check = Checkpoint { position: Position::ZERO, event: None, ladder: None };
                let checked = self.inner.advance("no such checkpoint", &check, Some(&inner)).await;
                checked.map_err(|_| StateError::LeaseLost(lease.name.clone()))?;
                if lease.token % 2 == 0 {
                    self.wait_for_another_lease(lease.token).await;
                }
                None
            }
            _ => Some(inner),
        })
    }

    /// Waits, for a fifth of a second at most, until the checkpoint `mail` was written under a later lease
    /// than this.
    async fn wait_for_another_lease(&self, token: u64) {
        for _ in 0..200 {
            let found = self.inner.checkpoint(&self.name("mail")).await.ok().flatten();
            let written = found.and_then(|found| found.ladder?.try_into().ok()).map_or(0, u64::from_be_bytes);
            if written > token {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Says of a write that was fenced which lease is lost.
    async fn named<T>(&self, written: Result<T, StateError>, lease: Option<&Lease>) -> Result<T, StateError> {
        let (Err(StateError::LeaseLost(_)), Some(lease)) = (&written, lease) else { return written };
        if self.is(ReleasesWhenFenced)
            && let Some((newest, _)) = self.newest(&lease.name)
        {
            self.inner.release(&newest).await?;
        }
        Err(StateError::LeaseLost(lease.name.clone()))
    }

    async fn at(&self, name: &str) -> Result<Option<Position>, StateError> {
        Ok(self.inner.checkpoint(name).await?.map(|found| found.position))
    }
}

#[async_trait]
impl CheckpointStore for Handle {
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>, StateError> {
        let found = self.inner.checkpoint(&self.name(name)).await?;
        let begin = Checkpoint { position: Position::ZERO, event: None, ladder: None };
        Ok(found.or_else(|| self.is(InventsCheckpoints).then_some(begin)))
    }

    async fn create(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        let (name, checkpoint) = (self.name(name), self.changed(checkpoint));
        let fence = self.fence(lease, false).await?;
        let found = self.at(&name).await?;
        if self.is(MakesInTwoSteps) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let Some(found) = found.filter(|_| self.is(MakesAgain)) {
            return self.inner.replace(&name, found, &checkpoint, fence.as_ref()).await;
        }
        let made = self.inner.create(&name, &checkpoint, fence.as_ref()).await;
        let made = self.named(made, lease).await?;
        Ok(made || (self.is(MakesInTwoSteps) && found.is_none()))
    }

    async fn advance(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<Advanced, StateError> {
        let (name, mut checkpoint) = (self.name(name), self.changed(checkpoint));
        let fence = self.fence(lease, true).await?;
        let found = self.at(&name).await?;
        let to = checkpoint.position;
        if self.is(KeepsTheEventBefore) && checkpoint.event.is_none() {
            checkpoint.event = self.inner.checkpoint(&name).await?.and_then(|found| found.event);
        }
        let put = async |found: Position| {
            self.inner.replace(&name, found, &checkpoint, fence.as_ref()).await.map(|_| Advanced::Moved)
        };
        let moved = match (self.fault, found) {
            (LosesAdvances, Some(found)) if found < to => Ok(Advanced::Moved),
            (AdvancesBack, Some(found)) => put(found).await,
            (AdvancesToTheSamePosition, Some(found)) if found == to => put(found).await,
            (MakesByAdvance, None) => {
                self.inner.create(&name, &checkpoint, fence.as_ref()).await.map(|_| Advanced::Moved)
            }
            (AdvancesInTwoSteps, Some(found)) if found < to => {
                // Those that go less far come later.
                tokio::time::sleep(Duration::from_millis(1 + 3 * ((100_u64.saturating_sub(to.get())) % 4)))
                    .await;
                match self.at(&name).await? {
                    Some(now) => put(now).await,
                    None => Ok(Advanced::Missing),
                }
            }
            _ => self.inner.advance(&name, &checkpoint, fence.as_ref()).await,
        };
        self.named(moved, lease).await
    }

    async fn replace(
        &self,
        name: &str,
        at: Position,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        let (name, checkpoint) = (self.name(name), self.changed(checkpoint));
        let fence = self.fence(lease, false).await?;
        let replaced = match (self.fault, self.at(&name).await?) {
            (ReplacesWhatWasMoved, Some(found)) => {
                self.inner.replace(&name, found, &checkpoint, fence.as_ref()).await
            }
            (MakesByReplace, None) => self.inner.create(&name, &checkpoint, fence.as_ref()).await,
            (ReplacesForwardOnly, _) if checkpoint.position < at => Ok(false),
            _ => self.inner.replace(&name, at, &checkpoint, fence.as_ref()).await,
        };
        self.named(replaced, lease).await
    }

    async fn parts(&self, name: &str) -> Result<Vec<(String, Checkpoint)>, StateError> {
        let epoch = self.epoch(LosesCheckpointsInACrash);
        let mut parts = self.inner.parts(&self.name(name)).await?;
        for (name, _) in &mut parts {
            *name = name.strip_prefix(&epoch).unwrap_or(name).to_owned();
        }
        match self.fault {
            FindsPartsByPrefix => {
                for more in ["0", ".", "-1"] {
                    parts.extend(self.inner.parts(&format!("{name}{more}")).await?);
                }
            }
            FindsPartsBackwards => parts.reverse(),
            _ => {}
        }
        Ok(parts)
    }

    async fn replace_parts(
        &self,
        name: &str,
        found: &[(String, Checkpoint)],
        instead: &[(String, Checkpoint)],
    ) -> Result<bool, StateError> {
        let epoch = self.epoch(LosesCheckpointsInACrash);
        let with = |parts: &[(String, Checkpoint)]| -> Vec<_> {
            parts
                .iter()
                .map(|(name, checkpoint)| (format!("{epoch}{name}"), self.changed(checkpoint)))
                .collect()
        };
        let (name, mut found, mut instead) = (self.name(name), with(found), with(instead));
        let there = self.inner.parts(&name).await?;
        let names =
            |parts: &[(String, Checkpoint)]| parts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        match self.fault {
            FindsPartsBackwards => found.reverse(),
            ReplacesPartsBlindly => found = there,
            ReplacesPartsByPosition if names(&there) == names(&found) => found = there,
            ReplacesMostParts if instead.len() > 1 => drop(instead.pop()),
            KeepsPartsThatGo if there == found => {
                let kept = there.into_iter().filter(|(name, _)| !names(&instead).contains(name));
                let kept: Vec<_> = kept.collect();
                instead.extend(kept);
            }
            DividesInTwoSteps if there == found => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                found = self.inner.parts(&name).await?;
            }
            _ => {}
        }
        self.inner.replace_parts(&name, &found, &instead).await
    }
}

#[async_trait]
impl LeaseStore for Handle {
    async fn acquire(&self, name: &str, holder: &str, length: Duration) -> Result<Acquired, StateError> {
        let (given, asked) = (name, holder);
        let name = self.lease_name(name);
        let mut holder = if self.is(FoldsHolders) { holder.to_lowercase() } else { holder.to_owned() };
        if self.is(TakesEveryName) && (holder.is_empty() || holder.contains('\0') || holder.len() > 1_024) {
            holder = "odd".to_owned();
        }
        let newest = self.newest(given).map(|(newest, _)| newest);
        if self.is(AcquiresInTwoSteps) {
            let is_free = self.inner.holder(&name).await?.is_none();
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let Some(newest) = self.newest(given).filter(|_| is_free) {
                self.inner.release(&newest.0).await?;
            }
        }
        if let Some(newest) = &newest {
            if self.is(GivesHeldLeases) {
                self.inner.release(newest).await?;
            }
            if self.is(KeepsAFormerLease) && self.inner.holder(&name).await?.as_deref() == Some(asked) {
                return Ok(Acquired::Held(newest.clone()));
            }
        }
        let length = match self.fault {
            LeasesForEver => length * 1_000_000,
            LeasesForNoTime => Duration::ZERO,
            _ => length,
        };
        Ok(match self.inner.acquire(&name, &holder, length).await? {
            Acquired::Held(lease) => {
                self.shared.leases.lock().unwrap().insert(given.to_owned(), (lease.clone(), true));
                let token = if self.is(GivesOneToken) { 1 } else { lease.token };
                Acquired::Held(Lease { name: given.to_owned(), holder: lease.holder, token })
            }
            Acquired::HeldBy(_) if self.is(NamesTheWrongHolder) => Acquired::HeldBy(asked.to_owned()),
            other => other,
        })
    }

    async fn renew(&self, lease: &Lease, length: Duration) -> Result<bool, StateError> {
        let inner = self.inner(lease);
        let is_over = self.inner.holder(&inner.name).await?.is_none();
        match self.fault {
            RenewsWhatIsLost => self.inner.renew(&inner, length).await.map(|_| true),
            RenewsNothing => {
                let newest = self.newest(&lease.name);
                Ok(newest.is_some_and(|(newest, is_held)| is_held && newest == *lease))
            }
            RenewsFromTheBeginning => self.inner.renew(&inner, length / 10).await,
            RefusesToRenewWhatIsOver if is_over => Ok(false),
            _ => self.inner.renew(&inner, length).await,
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), StateError> {
        if self.is(ReleasesNothing) {
            return Ok(());
        }
        let newest = self.newest(&lease.name).map(|(newest, _)| newest);
        let inner = match newest.filter(|_| self.is(ReleasesForOthers)) {
            Some(newest) => newest,
            None => self.inner(lease),
        };
        let before = self.inner.holder(&inner.name).await?;
        self.inner.release(&inner).await?;
        if before.is_some() && self.inner.holder(&inner.name).await?.is_none() {
            *self.shared.releases.lock().unwrap().entry(lease.name.clone()).or_default() += 1;
            if let Some((_, is_held)) = self.shared.leases.lock().unwrap().get_mut(&lease.name) {
                *is_held = false;
            }
        }
        Ok(())
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StateError> {
        if self.is(TellsNoHolder) {
            return Ok(None);
        }
        self.inner.holder(&self.lease_name(name)).await
    }
}

#[async_trait]
impl SnapshotStore for Handle {
    async fn put(&self, mut snapshot: StoredSnapshot) -> Result<(), Cause> {
        match self.fault {
            FoldsStreams => snapshot.stream = StreamId::new(snapshot.stream.as_str().to_lowercase())?,
            CutsSnapshots => snapshot.state = snapshot.state.slice(..snapshot.state.len().min(65_535)),
            RoundsTimes => {
                let millis = snapshot.taken_at.as_micros() / 1_000;
                snapshot.taken_at = Timestamp::from_micros(millis * 1_000);
            }
            KeepsTheFirstOfAVersion => {
                let found = self.inner.nearest(&snapshot.stream, &snapshot.schema, snapshot.version).await?;
                if found.is_some_and(|found| found.version == snapshot.version) {
                    return Ok(());
                }
            }
            KeepsOneSnapshot => {
                let newest = Version::new(u64::MAX);
                match self.inner.nearest(&snapshot.stream, &snapshot.schema, newest).await? {
                    Some(found) if found.version > snapshot.version => return Ok(()),
                    _ => self.inner.forget(&snapshot.stream).await?,
                }
            }
            _ => {}
        }
        self.shared.snapshots.lock().unwrap().push(snapshot.clone());
        self.inner.put(snapshot).await
    }

    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause> {
        let all = self.shared.snapshots.lock().unwrap().clone();
        let mut of_stream = all.into_iter().filter(|kept| kept.stream == *stream && kept.version <= up_to);
        match self.fault {
            LosesSnapshotsInACrash if *self.shared.crashes.lock().unwrap() > 1 => Ok(None),
            ShowsTheLastSnapshotPut => Ok(of_stream.filter(|kept| kept.schema == schema).last()),
            ShowsOtherSchemas => Ok(of_stream.max_by_key(|kept| kept.version)),
            KeepsEverySnapshot => {
                Ok(of_stream.by_ref().filter(|kept| kept.schema == schema).max_by_key(|kept| kept.version))
            }
            ShowsSnapshotsBeyond => self.inner.nearest(stream, schema, Version::new(u64::MAX)).await,
            FoldsStreams => {
                let folded = StreamId::new(stream.as_str().to_lowercase())?;
                self.inner.nearest(&folded, schema, up_to).await
            }
            _ => self.inner.nearest(stream, schema, up_to).await,
        }
    }

    async fn forget(&self, stream: &StreamId) -> Result<(), Cause> {
        match self.fault {
            ForgetsNoSnapshot => return Ok(()),
            ForgetsAllSnapshots => {
                let all = self.shared.snapshots.lock().unwrap().clone();
                for kept in all {
                    self.inner.forget(&kept.stream).await?;
                }
            }
            _ => {}
        }
        self.shared.snapshots.lock().unwrap().retain(|kept| kept.stream != *stream);
        self.inner.forget(stream).await
    }
}

impl StateStore for Handle {
    fn log(&self) -> StoreId {
        self.inner.log()
    }
}
