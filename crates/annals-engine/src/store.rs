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

use annals_core::{
    Append, Appended, Clock, Conflict, Error, EventStore, IdempotencyKey, Limits, LogPage, LogRead, Position,
    Result, StoreId, StreamId, StreamInfo, StreamList, StreamPage, StreamRead, SystemClock, Version,
};
use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use crate::commit::{Commit, closed};
use crate::disk::{Disk, FileDisk};
use crate::error::Fault;
use crate::frame::{self, Encoded};
use crate::index::{BlockCache, IdRange, Offset};
use crate::log::Log;
use crate::outcome::{Answered, Outcome};
use crate::planted::{Bug, Planted};
use crate::proof::Proof;
use crate::receipt::{self, Head, Receipt};
use crate::scan::{self, ScannedEvent};
use crate::stage::Heads;
use crate::sync::{Poison, Syncer};
use crate::thread::{self, AtomicU64, AtomicUsize, JoinHandle, Mutex};
use crate::writer::{Request, Staged, Writer};
use crate::{read, recovery};

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Bytes of one segment file; an append larger than that has a segment of its own. 256 MiB by default, at
    /// most 1 GiB.
    pub segment_bytes: u64,
    /// Events of a run, after which its index is written. Those of the newest run are indexed in memory, and walked
    /// over when the store is opened. 65,536 by default.
    pub run_events: u32,
    /// The same in bytes of the log. 16 MiB by default.
    pub run_bytes: u64,
    /// Whether an append that comes alone may be carried out on the thread of its caller, if the disk is known to be
    /// fast. That saves two changes of threads; the thread waits for the disk, as it does for reads. True by default.
    /// Appends are judged on the threads of callers in any case, which reads indexes as a read does.
    pub callers_may_wait: bool,
    /// How large an append may be.
    pub limits: Limits,
    /// Where recorded times come from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            run_events: 1 << 16,
            run_bytes: 16 << 20,
            callers_may_wait: true,
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Bytes of index blocks that are kept in memory.
const CACHE_BYTES: usize = 32 << 20;
/// Streams whose versions are kept in memory.
const HEADS: usize = 100_000;
/// Bytes of appends that may wait for the writer, in KiB; each counts as one at least.
const QUEUE_KIB: usize = 64 << 10;

/// Of so many appends that come alone, one lets everybody else go first: on a runtime with one thread, nobody would
/// ever be seen to come at the same time.
const ALONE_AT_MOST: u64 = 16;

/// The embedded store: a directory that one process at a time has open.
pub struct EngineStore {
    log: Arc<Log>,
    limits: Limits,
    callers_may_wait: bool,
    poison: Arc<Poison>,
    commit: Arc<Commit>,
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    under_way: AtomicUsize,
    alone: AtomicU64,
}

impl EngineStore {
    /// Opens the store in this directory; creates both if need be.
    ///
    /// # Errors
    /// `Unavailable` if another process has it open or the directory cannot be used; `Damaged`; `Invalid` for
    /// options that cannot be.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = directory.as_ref();
        let disk = FileDisk::open(directory).map_err(|error| {
            let name = directory.display().to_string();
            Error::Unavailable(if error.kind() == std::io::ErrorKind::WouldBlock {
                format!("{name} is open in another process; one process at a time may have it").into()
            } else {
                Box::new(Fault::io("open", &name)(error))
            })
        })?;
        Self::on(Arc::new(disk), options)
    }

    /// Opens the store on this disk; creates it if need be.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        if options.segment_bytes > Offset::MAX / 2 || options.limits.append_bytes_max > 512 << 20 {
            let problem = "must be at most 1 GiB, and an append at most 512 MiB";
            return Err(annals_core::Invalid::new("segment_bytes", problem).into());
        }
        if options.limits.append_events_max > frame::EVENTS_MAX {
            let problem = format!("can be at most {}", frame::EVENTS_MAX);
            return Err(annals_core::Invalid::new("append_events_max", problem).into());
        }
        let cache = Arc::new(BlockCache::new(CACHE_BYTES));
        let recovered = recovery::open(&*disk, &cache, &options)?;
        let head = recovered.tail.next.previous();
        let (_, older) = recovered.lists.runs.split_last().expect("there is a run, if only an empty one");
        let older = if Planted::here().is(Bug::ForgetsIdsAtOpen) { &[] } else { older };
        let older_ids =
            older.iter().map(|run| run.index().id_range()).fold(IdRange::default(), IdRange::with);
        let log = Arc::new(Log::new(recovered.id, disk, cache, recovered.lists, head));
        let poison = Arc::new(Poison::default());
        let (limits, callers_may_wait) = (options.limits, options.callers_may_wait);
        let cannot_start = |error: std::io::Error| Error::Unavailable(Box::new(error));
        let writer = Writer {
            log: log.clone(),
            options,
            active: recovered.active,
            tail: recovered.tail,
            syncer: Arc::new(Syncer::start(log.clone(), poison.clone()).map_err(cannot_start)?),
            heads: Heads::new(HEADS),
            groups: VecDeque::new(),
            staged: Staged::default(),
            buffers: Vec::new(),
            last_bytes: 0,
            older_ids,
        };
        let commit = Arc::new(Commit::new(writer));
        let thread = thread::Builder::new().name("annals-write".into()).spawn({
            let commit = commit.clone();
            move || commit.run()
        });
        let thread = thread.map_err(cannot_start)?;
        Ok(Self {
            log,
            limits,
            callers_may_wait,
            poison,
            commit,
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
            thread: Mutex::new(Some(thread)),
            under_way: AtomicUsize::new(0),
            alone: AtomicU64::new(0),
        })
    }

    /// Hands out every event from this position on up to the head, in order, borrowed from the block that it was read
    /// into, until there are no more or it is told to stop; returns the position to go on at. The fastest way through
    /// the log: it is done on this thread, which waits for the disk.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses; `Damaged`.
    pub fn scan(
        &self,
        from: Position,
        each: impl FnMut(&ScannedEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Position> {
        Ok(scan::scan(&self.log.view(), from, each)?)
    }

    /// What the log up to this position is, or all of it: to be published, so that nothing in front of it can be changed
    /// unseen. Nothing if no append ends at this position. Goes on from where the digest of the log has come to, on this
    /// thread.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses; `Damaged`.
    pub fn head_digest(&self, until: Option<Position>) -> Result<Option<Head>> {
        let view = self.log.view();
        let proof = Proof::read(&*self.log.disk, self.log.id, view.head.next());
        Ok(receipt::head(&view, proof, until)?)
    }

    /// Whether the log begins with just the events that this head is of: nothing in front of it was changed, removed or
    /// reordered since it was published. Reads the log from its beginning up to there, on this thread.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses; `Damaged`.
    pub fn begins_with(&self, head: &Head) -> Result<bool> {
        // What is kept of the digest is no proof: it lies beside the log.
        let found = receipt::head(&self.log.view(), Proof::begin(self.log.id), Some(head.position))?;
        Ok(found.as_ref() == Some(head))
    }

    /// Proof that an event stands in the log up to this head, for somebody without the store; nothing if there is no such
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
        let view = self.log.view();
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

    /// Finishes the appends that are under way and closes the log; waits for both. Appends that come later are
    /// refused; reads go on. Dropping the store does the same.
    ///
    /// # Errors
    /// `Poisoned` if a write had failed, so that the end of the log could not be marked.
    pub async fn close(&self) -> Result<()> {
        self.stop();
        self.poison.error().map_or(Ok(()), Err)
    }

    /// What readers see: for `verify` and `backup`.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    fn stop(&self) {
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
        if let Some(request) = self.carry_out_alone(request).await {
            self.commit.submit(request)?;
        }
        let Answered { outcome, append, .. } = answered.await.map_err(|_| unknown())??;
        Ok((outcome, append))
    }

    /// Carries an append out on this thread, if nobody else is about to; gives it back if not.
    async fn carry_out_alone(&self, request: Request) -> Option<Request> {
        if !self.callers_may_wait || self.under_way.load(Ordering::Relaxed) > 1 {
            return Some(request);
        }
        if self.alone.fetch_add(1, Ordering::Relaxed).is_multiple_of(ALONE_AT_MOST) {
            others_first().await;
            if self.under_way.load(Ordering::Relaxed) > 1 {
                return Some(request);
            }
        }
        self.commit.carry_out(request)
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

/// Lets other tasks of the thread go on first.
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
        if let Some(poisoned) = self.poison.error() {
            return Err(poisoned);
        }
        let (outcome, append) = self.submit(append).await?;
        match outcome {
            Outcome::Written(first, recorded_at, versions) => {
                let streams = append.writes.iter().map(|write| &write.stream);
                Ok(Appended::new(first, recorded_at, streams.zip(versions), false))
            }
            Outcome::Keyed(first) => Ok(read::appended(&self.log.view(), first)?),
            Outcome::Repeated(first) => Ok(read::repeated(&self.log.view(), first, append.writes.len())?),
            Outcome::Invalid(invalid) => Err(invalid.into()),
            Outcome::Refused(violated) => {
                let conflict = Conflict::explain(self, &append.conditions, violated).await?;
                Err(Error::Conflict(Box::new(conflict)))
            }
        }
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        read.validate(&self.limits)?;
        Ok(read::log(&self.log.view(), &read)?)
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        Ok(read::stream(&self.log.view(), &read)?)
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        Ok(read::streams(&self.log.view(), &list)?)
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        Ok(read::outcome(&self.log.view(), key)?)
    }

    async fn head(&self) -> Result<Position> {
        Ok(self.log.head())
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        let mut progress = self.log.progress.subscribe();
        let moved = progress.wait_for(|progress| progress.head > after || progress.closed).await;
        let progress = *moved.expect("the sender lives as long as the store");
        if progress.head > after { Ok(progress.head) } else { Err(closed()) }
    }
}

impl Drop for EngineStore {
    fn drop(&mut self) {
        self.stop();
    }
}
