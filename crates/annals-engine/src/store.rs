//! The embedded store: the contract of `annals_core::store` on a directory.
//!
//! An append is validated and encoded on the caller's thread, then passed to `commit`; the answer is returned
//! when the append is durable. Reads take a view of the log and use `read`; they do not wait for the writer.
//! They run on the caller's thread, because the work per page is bounded.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use annals_core::{
    Append, Appended, Clock, Conflict, Error, EventStore, IdempotencyKey, Limits, LogPage, LogRead, Position,
    Result, StoreId, StreamId, StreamInfo, StreamList, StreamPage, StreamRead, Timestamp, Version,
};
use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use crate::commit::Commit;
use crate::commit::clock::{ClockWatch, Seen};
use crate::commit::heads::Heads;
use crate::commit::outcome::{Answered, Outcome};
use crate::commit::staging::Staging;
use crate::commit::sync::{Poison, Syncer};
use crate::commit::writer::{OpenGroup, Request, Writer};
use crate::disk::{Disk, FileDisk, check_finished};
use crate::error::Fault;
use crate::index::{BlockCache, IdRange};
use crate::log::frame::Encoded;
use crate::proof::Proof;
use crate::proof::receipt::{self, Head, Receipt};
use crate::read::scan::{self, ScannedEvent};
use crate::read::view::{Log, View};
use crate::thread::{self, AtomicU64, AtomicUsize, JoinHandle, Mutex, MutexGuard};
use crate::{Options, read, recovery};

/// The most KiB of appends that wait for the writer; each append counts as at least one KiB.
const QUEUE_KIB: usize = 64 << 10;

/// Of this many single appends, one yields to other tasks first: on a runtime with one thread, concurrent
/// appends would not be noticed otherwise.
const ALONE_AT_MOST: u64 = 16;

/// The embedded store: a directory that one process at a time has open.
pub struct EngineStore {
    log: Arc<Log>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    clock_ahead_max: Duration,
    seen: Arc<Seen>,
    callers_may_wait: bool,
    poison: Arc<Poison>,
    commit: Arc<Commit>,
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    under_way: AtomicUsize,
    alone: AtomicU64,
    /// Whether it can be written to.
    writable: bool,
    /// How the log differs from what was durable, if it does.
    lost_end: Option<String>,
    /// Held during a migration.
    migrating: Mutex<()>,
    /// The process that opened it. A forked child shares its locks but has none of its threads.
    process: u32,
}

impl EngineStore {
    /// Opens the store in this directory. Creates directory and store if they do not exist.
    ///
    /// # Errors
    /// `Unavailable` if another process has it open; `Unusable` or `Unavailable` if the directory cannot be
    /// used; `Damaged`; `Invalid` for options outside their ranges.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = directory.as_ref();
        let disk = FileDisk::open(directory).map_err(cannot_open(directory))?;
        check_finished(directory).map_err(cannot_open(directory))?;
        Self::on(Arc::new(disk), options)
    }

    /// Opens the store in this directory for reading. If the directory cannot be written, as on a read-only
    /// medium, the store is read as it is and takes no appends. Otherwise this is like [`open`](Self::open),
    /// except that a missing store is not created.
    ///
    /// # Errors
    /// As [`open`](Self::open); `NoStore` if there is no store.
    pub fn open_to_read(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = directory.as_ref();
        if !directory.join("log").is_dir() {
            return Err(Error::NoStore(format!("{} holds none", directory.display()).into()));
        }
        let disk = FileDisk::open_or_look(directory).map_err(cannot_open(directory))?;
        check_finished(directory).map_err(cannot_open(directory))?;
        Self::on(Arc::new(disk), options)
    }

    /// Opens the store on this disk. Creates it if it does not exist.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        options.check()?;
        let writable = disk.is_writable();
        let half_of_caches = usize::try_from(options.cache_bytes / 2).unwrap_or(usize::MAX);
        let cache = Arc::new(BlockCache::new(half_of_caches));
        let recovered = recovery::open(&*disk, &cache, &options)?;
        let head = recovered.tail.next.previous();
        let (_, older) = recovered.lists.runs.split_last().expect("there is a run, if only an empty one");
        let older_ids =
            older.iter().map(|run| run.index().id_range()).fold(IdRange::default(), IdRange::with);
        let log = Arc::new(Log::new(recovered.id, disk, cache, recovered.lists, head));
        log.set_recorded_at(recovered.tail.recorded_at);
        let mut lost_end = recovered.lost_end;
        if let Err(fault) = log.begin(recovered.durable) {
            let error = Error::from(fault);
            if writable {
                return Err(error);
            }
            tracing::warn!(error = &error as &dyn std::error::Error, "the log is read, and takes no appends");
            lost_end = Some(error.chain());
        }
        let seen = Arc::new(Seen::at_open(log.disk.clone(), &options, recovered.tail.recorded_at));
        let poison = Arc::new(Poison::default());
        let (limits, callers_may_wait, clock) =
            (options.limits, options.callers_may_wait, options.clock.clone());
        let clock_ahead_max = options.clock_ahead_max;
        let cannot_start = |error: std::io::Error| Error::Unavailable(Box::new(error));
        let writer = Writer {
            options,
            staging: Staging {
                log: log.clone(),
                active: recovered.active,
                tail: recovered.tail,
                heads: Heads::new(half_of_caches),
                older_ids,
            },
            syncer: Arc::new(Syncer::start(log.clone(), poison.clone()).map_err(cannot_start)?),
            groups: VecDeque::new(),
            open_group: OpenGroup::default(),
            buffers: Vec::new(),
            last_bytes: 0,
            clock_watch: ClockWatch::default(),
            seen: seen.clone(),
        };
        let commit = Arc::new(Commit::new(writer));
        let thread = if writable {
            let writer = thread::Builder::new().name("annals-write".into()).spawn({
                let commit = commit.clone();
                move || commit.run()
            });
            Some(writer.map_err(cannot_start)?)
        } else {
            log.progress.send_modify(|progress| progress.closed = true);
            None
        };
        Ok(Self {
            log,
            limits,
            clock,
            clock_ahead_max,
            seen,
            callers_may_wait,
            poison,
            commit,
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
            thread: Mutex::new(thread),
            writable,
            lost_end,
            migrating: Mutex::new(()),
            process: std::process::id(),
            under_way: AtomicUsize::new(0),
            alone: AtomicU64::new(0),
        })
    }

    /// Calls `each` for every event from this position up to the head, in order, until `each` breaks; returns
    /// the position to resume at. Events are borrowed from the block that they were read into. This is the
    /// fastest way to read the log. It blocks this thread.
    ///
    /// # Errors
    /// `Unavailable` if a read fails; `Damaged`.
    pub fn scan(
        &self,
        from: Position,
        each: impl FnMut(&ScannedEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Position> {
        Ok(scan::scan(&self.view()?, from, each)?)
    }

    /// The digest of the log up to this position, or of the whole log. If it is published, any later change
    /// before the position is detectable. `None` if no append ends at this position. Continues the stored
    /// digest of the log. It blocks this thread.
    ///
    /// # Errors
    /// `Unavailable` if a read fails; `Damaged`.
    pub fn head_digest(&self, until: Option<Position>) -> Result<Option<Head>> {
        let view = self.view()?;
        let proof = Proof::read(&*self.log.disk, self.log.id, view.head.next());
        Ok(receipt::head(&view, proof, until)?)
    }

    /// Whether the log up to this head is the one that was digested: no event was changed, removed or
    /// reordered since the head was published. Reads the log from the beginning up to the head. It blocks
    /// this thread.
    ///
    /// # Errors
    /// `Unavailable` if a read fails; `Damaged`.
    pub fn begins_with(&self, head: &Head) -> Result<bool> {
        // The stored digest is no proof: it is a file beside the log that can be changed as easily.
        let found = receipt::head(&self.view()?, Proof::begin(self.log.id), Some(head.position))?;
        Ok(found.as_ref() == Some(head))
    }

    /// A proof that an event is in the log up to this head, which can be checked without the store; `None` if
    /// there is no such event, or if no append ends at the head. Reads the log from the beginning. It blocks
    /// this thread.
    ///
    /// # Errors
    /// `Unavailable` if a read fails; `Damaged`.
    pub fn receipt(
        &self,
        stream: &StreamId,
        version: Version,
        until: Option<Position>,
    ) -> Result<Option<Receipt>> {
        let view = self.view()?;
        let until = until.unwrap_or(view.head);
        if until > view.head {
            return Ok(None);
        }
        let read = StreamRead::forward(stream, version).limit(1);
        let events = read::stream(&view, &read)?.events;
        let Some(event) =
            events.first().filter(|event| event.version() == version && event.position() <= until)
        else {
            return Ok(None);
        };
        Ok(receipt::receipt(&view, self.log.id, event, until)?)
    }

    /// By how much the clock is behind the newest event. Recorded time never decreases, so until the clock
    /// has caught up, every event is recorded at the time of the newest one. Monitor this, and correct the
    /// clock while the value is small.
    pub fn clock_behind(&self) -> Duration {
        self.log.recorded_at().since(self.clock.now())
    }

    /// The last use of the store, if it was noted by a clock that was ahead and has been corrected since the
    /// store was opened: it was in the future for a week.
    pub fn last_use_in_the_future(&self) -> Option<Timestamp> {
        self.seen.corrected()
    }

    /// How the log differs from what was durable, and where: its end is lost, or it has another history. Only
    /// a read-only store can be open in this state; its existing events can be read.
    pub fn lost_end(&self) -> Option<&str> {
        self.lost_end.as_deref()
    }

    /// Finishes pending appends and closes the log; waits for both. Later appends are refused; reads continue
    /// to work. Dropping the store does the same.
    ///
    /// # Errors
    /// `Poisoned` if a write failed, so that the end of the log could not be marked.
    pub async fn close(&self) -> Result<()> {
        self.check_process()?;
        self.stop();
        self.poison.error().map_or(Ok(()), Err)
    }

    /// The log as readers see it, for `verify` and `backup`.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    fn view(&self) -> Result<View> {
        self.check_process()?;
        Ok(self.log.view())
    }

    pub(crate) fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        let why = "the store belongs to the process that opened it, from which this one was forked; open it after the fork";
        Err(Error::Unusable(why.into()))
    }

    /// Returns an error if the store takes no appends.
    fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        if !self.writable {
            return Err(read_only());
        }
        self.poison.error().map_or(Ok(()), Err)
    }

    /// Acquires the lock for migrations; waits for a migration in progress. Returns an error if the store
    /// cannot be written.
    pub(crate) fn begin_migration(&self) -> Result<MutexGuard<'_, ()>> {
        self.check_writable()?;
        self.check_place()?;
        Ok(self.migrating.lock())
    }

    /// Returns an error if the files were moved, replaced or removed, and poisons the store. Writes check
    /// this themselves.
    pub(crate) fn check_place(&self) -> Result<()> {
        let view = self.view()?;
        let segment = view.segments().last().expect("there is a segment");
        if self.log.is_in_place(segment)? {
            return Ok(());
        }
        self.log.check_place(segment).map_err(|fault| {
            let error = Error::from(fault);
            self.poison.set(&error.chain());
            error
        })
    }

    /// Returns an error if the clock is so far ahead of the log that appends are refused.
    fn check_clock(&self) -> Result<()> {
        let now = self.clock.now();
        self.seen.check(now, now, self.log.recorded_at(), self.clock_ahead_max)
    }

    fn stop(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.commit.close();
        if let Some(Err(_)) = self.thread.lock().take().map(JoinHandle::join) {
            tracing::error!("the writer has panicked");
        }
    }

    /// Passes an append to the writer and waits for its outcome.
    async fn submit(&self, append: Append) -> Result<(Outcome, Append)> {
        let encoded = Encoded::new(&append);
        let kib = u32::try_from((encoded.bytes_max() >> 10).clamp(1, QUEUE_KIB))
            .expect("the queue is smaller than 4 TiB");
        let permit = self.room.clone().acquire_many_owned(kib).await;
        let permit = permit.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        let request = Request { append, encoded, answer, permit };
        let _under_way = UnderWay::new(&self.under_way);
        if let Some(request) = self.execute_alone(request).await {
            self.commit.submit(request)?;
        }
        let Answered { outcome, append, .. } = answered.await.map_err(|_| unknown())??;
        Ok((outcome, append))
    }

    /// Executes an append on this thread if there is no concurrent append; returns it otherwise.
    async fn execute_alone(&self, request: Request) -> Option<Request> {
        if !self.callers_may_wait || self.under_way.load(Ordering::Relaxed) > 1 {
            return Some(request);
        }
        if self.alone.fetch_add(1, Ordering::Relaxed).is_multiple_of(ALONE_AT_MOST) {
            others_first().await;
            if self.under_way.load(Ordering::Relaxed) > 1 {
                return Some(request);
            }
        }
        self.commit.execute(request)
    }
}

fn read_only() -> Error {
    Error::Unusable("the store was opened for reading only: its directory cannot be written".into())
}

/// Maps the error from opening the directory of a store.
fn cannot_open(directory: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let name = directory.display().to_string();
    move |error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Unavailable(
            format!("{name} is open in another process; one process at a time may have it").into(),
        ),
        _ => Fault::io("open", &name)(error).into(),
    }
}

/// Counts an append until it is dropped.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets other tasks of the thread run first.
async fn others_first() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn unknown() -> Error {
    Error::Indeterminate("the writer stopped before it answered".into())
}

#[async_trait]
impl EventStore for EngineStore {
    fn id(&self) -> StoreId {
        self.log.id
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        append.validate(&self.limits)?;
        self.check_writable()?;
        let (outcome, append) = self.submit(append).await?;
        if !matches!(outcome, Outcome::Written(..)) {
            self.check_place()?;
        }
        if matches!(outcome, Outcome::Refused(_)) {
            // A health check may use an append that is always refused: it must fail if the clock would refuse
            // appends.
            self.check_clock()?;
        }
        match outcome {
            Outcome::Written(first, recorded_at, versions) => {
                let streams = append.writes.iter().map(|write| &write.stream);
                let last = append.writes[append.writes.len() - 1].event.id;
                Ok(Appended::new(first, recorded_at, streams.zip(versions), last, false))
            }
            Outcome::Keyed(first) => read::appended(&self.view()?, first)?.checked(self, &append).await,
            Outcome::Repeated(first) => {
                read::repeated(&self.view()?, first, append.writes.len())?.checked(self, &append).await
            }
            Outcome::Invalid(invalid) => Err(invalid.into()),
            Outcome::Refused(violated) => {
                let conflict = Conflict::explain(self, &append.conditions, violated).await?;
                Err(Error::Conflict(Box::new(conflict)))
            }
        }
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        read.validate(&self.limits)?;
        Ok(read::log(&self.view()?, &read)?)
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        Ok(read::stream(&self.view()?, &read)?)
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        Ok(read::streams(&self.view()?, &list)?)
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        Ok(read::outcome(&self.view()?, key)?)
    }

    async fn head(&self) -> Result<Position> {
        self.check_process()?;
        Ok(self.log.head())
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        self.check_process()?;
        let mut progress = self.log.progress.subscribe();
        let moved = progress.wait_for(|progress| progress.head > after || progress.closed).await;
        let progress = *moved.expect("the sender lives as long as the store");
        match progress.head > after {
            true => Ok(progress.head),
            // A read-only store has no writer, so no event will be appended.
            false => Err(if self.writable { Error::Closed } else { read_only() }),
        }
    }
}

impl Drop for EngineStore {
    fn drop(&mut self) {
        self.stop();
    }
}
