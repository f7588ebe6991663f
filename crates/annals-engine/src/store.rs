//! The embedded store: the contract of `annals_core::store` on a directory.
//!
//! An append is checked and turned into bytes on the caller's thread, then goes to `commit`; the answer comes back when
//! it is durable. Reads take a view of the log and go to `read`; they never wait for the writer. They are done on the
//! caller's thread: a page is a bounded piece of work.

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
use crate::commit::outcome::{Answered, Outcome};
use crate::commit::staging::{Heads, Staging};
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

/// Bytes of index blocks that are kept in memory.
const CACHE_BYTES: usize = 32 << 20;
/// Streams whose versions are kept in memory.
const HEADS: usize = 100_000;
/// Bytes of appends that may wait for the writer, in KiB; each counts as one at least.
const QUEUE_KIB: usize = 64 << 10;

/// Of this many appends that come alone, one lets everybody else go first: on a runtime with one thread, nobody would
/// ever be seen to come at the same time.
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
    /// How the end of the log is not what was durable.
    lost_end: Option<String>,
    /// Held by who migrates.
    migrating: Mutex<()>,
    /// The process that opened it. One that forked from that shares its locks, and has none of its threads.
    process: u32,
}

impl EngineStore {
    /// Opens the store in this directory; creates both if need be.
    ///
    /// # Errors
    /// `Unavailable` if another process has it open or the directory cannot be used; `Damaged`; `Invalid` for
    /// options that cannot be.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = directory.as_ref();
        let disk = FileDisk::open(directory).map_err(cannot_open(directory))?;
        check_finished(directory).map_err(cannot_open(directory))?;
        Self::on(Arc::new(disk), options)
    }

    /// Opens the store in this directory to read it. Where nothing can be written, as on a read-only medium, it is read as
    /// it is, and takes no appends; elsewhere this is [`open`](Self::open), but for a store that is not there, which is not
    /// created.
    ///
    /// # Errors
    /// As [`open`](Self::open); `NoStore` if there is none.
    pub fn open_to_read(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = directory.as_ref();
        if !directory.join("log").is_dir() {
            return Err(Error::NoStore(format!("{} holds none", directory.display()).into()));
        }
        let disk = FileDisk::open_or_look(directory).map_err(cannot_open(directory))?;
        check_finished(directory).map_err(cannot_open(directory))?;
        Self::on(Arc::new(disk), options)
    }

    /// Opens the store on this disk; creates it if need be.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        options.check()?;
        let writable = disk.is_writable();
        let cache = Arc::new(BlockCache::new(CACHE_BYTES));
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
                heads: Heads::new(HEADS),
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

    /// Hands out every event from this position on up to the head, in order, borrowed from the block that it was read
    /// into, until there are no more or `each` breaks; returns the position to resume at. The fastest way through the
    /// log: it runs on this thread, which waits for the disk.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses; `Damaged`.
    pub fn scan(
        &self,
        from: Position,
        each: impl FnMut(&ScannedEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Position> {
        Ok(scan::scan(&self.view()?, from, each)?)
    }

    /// What the log up to this position is, or all of it: to be published, so that nothing before it can be changed
    /// unseen. `None` if no append ends at this position. Resumes from where the digest of the log has stopped, on this
    /// thread.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses; `Damaged`.
    pub fn head_digest(&self, until: Option<Position>) -> Result<Option<Head>> {
        let view = self.view()?;
        let proof = Proof::read(&*self.log.disk, self.log.id, view.head.next());
        Ok(receipt::head(&view, proof, until)?)
    }

    /// Whether the log begins with just the events that this head is of: no event before it was changed, removed or
    /// reordered since it was published. Reads the log from its beginning up to there, on this thread.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses; `Damaged`.
    pub fn begins_with(&self, head: &Head) -> Result<bool> {
        // The stored digest is no proof: it is a file beside the log, as easily changed.
        let found = receipt::head(&self.view()?, Proof::begin(self.log.id), Some(head.position))?;
        Ok(found.as_ref() == Some(head))
    }

    /// Proof that an event is in the log up to this head, for somebody without the store; `None` if there is no such
    /// event, or if no append ends at the head. Reads the log from its beginning, on this thread.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses; `Damaged`.
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
        let Some(event) = events.first().filter(|event| event.version == version && event.position <= until)
        else {
            return Ok(None);
        };
        Ok(receipt::receipt(&view, self.log.id, event, until)?)
    }

    /// By how much the clock is behind the newest event. Recorded time never decreases, so until the clock has caught up
    /// every event is recorded at the time of that one: to be watched, and corrected while it is small.
    pub fn clock_behind(&self) -> Duration {
        self.log.recorded_at().since(self.clock.now())
    }

    /// When the store was last in use, by what it had noted, if that was in the future for a week and is not believed any
    /// more. Such a time was noted by a clock that was ahead.
    pub fn last_use_given_up(&self) -> Option<Timestamp> {
        self.seen.given_up()
    }

    /// How the end of the log is not what was durable, and where: it is lost, or is that of another history. Only a store
    /// that can be read only is open all the same: what is there is read.
    pub fn lost_end(&self) -> Option<&str> {
        self.lost_end.as_deref()
    }

    /// Finishes the appends that are under way and closes the log; waits for both. Appends that come later are
    /// refused; reads continue. Dropping the store does the same.
    ///
    /// # Errors
    /// `Poisoned` if a write had failed, so that the end of the log could not be marked.
    pub async fn close(&self) -> Result<()> {
        self.check_process()?;
        self.stop();
        self.poison.error().map_or(Ok(()), Err)
    }

    /// What readers see: for `verify` and `backup`.
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

    /// An error if the store takes no appends.
    fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        if !self.writable {
            return Err(read_only());
        }
        self.poison.error().map_or(Ok(()), Err)
    }

    /// The right to migrate; waits for who has it. An error if the store cannot be written to.
    pub(crate) fn begin_migration(&self) -> Result<MutexGuard<'_, ()>> {
        self.check_writable()?;
        self.check_place()?;
        Ok(self.migrating.lock())
    }

    /// An error if the files are not in their place, and from then on. What is written makes sure of that by itself.
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

    /// An error if the clock is so far ahead of the log that no append is recorded.
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

    /// Sends an append to the writer and waits for what becomes of it.
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

    /// Executes an append on this thread if nobody else is about to append; returns it otherwise.
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
    Error::Unusable("the store was opened to be read only: nothing can be written where it lies".into())
}

/// Why the directory of a store cannot be opened.
fn cannot_open(directory: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let name = directory.display().to_string();
    move |error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Unavailable(
            format!("{name} is open in another process; one process at a time may have it").into(),
        ),
        _ => Fault::io("open", &name)(error).into(),
    }
}

/// Counts an append as long as it lives.
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
            // Asked by an append that is always refused, the store must not say that it works.
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
            // A store that only reads has no writer, so nothing will come.
            false => Err(if self.writable { Error::Closed } else { read_only() }),
        }
    }
}

impl Drop for EngineStore {
    fn drop(&mut self) {
        self.stop();
    }
}
