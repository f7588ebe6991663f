//! The embedded store: the contract of `annals_core::store` on a directory.
//!
//! An append is checked and turned into bytes on the caller's thread, then handed to the writer (`commit`); the
//! answer comes back when it is durable. Reads take a view of the log and go to `read`; they never wait for the
//! writer. They are done on the caller's thread: a page is a bounded piece of work.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use annals_core::{
    Append, Appended, Clock, Conflict, Error, EventStore, IdempotencyKey, Limits, LogPage, LogRead, Position,
    Result, StoreId, StreamId, StreamInfo, StreamList, StreamPage, StreamRead, SystemClock,
};
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::commit::{Outcome, Poison, Request, Writer};
use crate::disk::{Disk, FileDisk};
use crate::error::Fault;
use crate::frame::{self, Encoded};
use crate::index::{BlockCache, Offset};
use crate::log::Log;
use crate::seal::Sealer;
use crate::stage::Heads;
use crate::{read, recovery, stage};

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Bytes of one segment file; an append larger than that has a segment of its own. 64 MiB by default, at
    /// most 1 GiB.
    pub segment_bytes: u64,
    /// How large an append may be.
    pub limits: Limits,
    /// Where recorded times come from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, limits: Limits::default(), clock: Arc::new(SystemClock) }
    }
}

/// Bytes of index blocks that are kept in memory.
const CACHE_BYTES: usize = 64 << 20;
/// Streams whose versions are kept in memory.
const HEADS: usize = 100_000;
/// Bytes of appends that may wait for the writer, in KiB; each counts as one at least.
const QUEUE_KIB: usize = 256 << 10;

/// The embedded store: a directory that one process at a time has open.
pub struct EngineStore {
    log: Arc<Log>,
    limits: Limits,
    poison: Arc<Poison>,
    queue: RwLock<Option<mpsc::UnboundedSender<Request>>>,
    room: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
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
        let recovered = recovery::open(&*disk, &cache, &*options.clock)?;
        let head = recovered.tail.next.previous();
        let log = Arc::new(Log::new(recovered.id, disk, cache, recovered.segments, head));
        let poison = Arc::new(Poison::default());
        let limits = options.limits;
        let cannot_start = |error: std::io::Error| Error::Unavailable(Box::new(error));
        let writer = Writer {
            log: log.clone(),
            poison: poison.clone(),
            options,
            active: recovered.active,
            tail: recovered.tail,
            durable: head,
            sealer: Sealer::start(log.clone()).map_err(cannot_start)?,
            heads: Heads::new(HEADS),
        };
        let (queue, requests) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("annals-write".into());
        let thread = thread.spawn(move || writer.run(requests)).map_err(cannot_start)?;
        Ok(Self {
            log,
            limits,
            poison,
            queue: RwLock::new(Some(queue)),
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
            writer: Mutex::new(Some(thread)),
        })
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
        drop(self.queue.write().take());
        if let Some(Err(_)) = self.writer.lock().take().map(JoinHandle::join) {
            tracing::error!("the writer has panicked");
        }
    }

    /// Sends an append to the writer and waits for what becomes of it.
    async fn submit(&self, append: Append) -> Result<Outcome> {
        let encoded = Encoded::new(&append);
        let kib = u32::try_from((encoded.stride() >> 10).clamp(1, QUEUE_KIB))
            .expect("the queue is smaller than 4 TiB");
        let permit = self.room.clone().acquire_many_owned(kib).await;
        let permit = permit.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        let request = Request { append, encoded, answer, permit };
        // The queue is held for no longer than this: who closes the store waits until nobody holds it.
        match &*self.queue.read() {
            Some(queue) => queue.send(request).map_err(|_| closed())?,
            None => return Err(closed()),
        }
        answered.await.map_err(|_| Error::Indeterminate("the writer stopped before it answered".into()))?
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
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
        let streams: Vec<StreamId> = append.writes.iter().map(|write| write.stream.clone()).collect();
        let conditions = append.conditions.clone();
        match self.submit(append).await? {
            Outcome::Written(first, recorded_at, versions) => {
                Ok(Appended::new(first, recorded_at, streams.iter().zip(versions), false))
            }
            Outcome::Keyed(first) => Ok(read::appended(&self.log.view(), first)?),
            Outcome::Repeated(first) => Ok(read::repeated(&self.log.view(), first, streams.len())?),
            Outcome::Invalid(invalid) => Err(invalid.into()),
            Outcome::Refused(violated) => {
                Err(Error::Conflict(Box::new(Conflict::explain(self, &conditions, violated).await?)))
            }
        }
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        Ok(read::log(&self.log.view(), &read)?)
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        Ok(read::stream(&self.log.view(), &read)?)
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        Ok(read::streams(&self.log.view(), &list)?)
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        let view = self.log.view();
        for segment in view.segments.iter().rev() {
            if let Some(first) = stage::keyed_in(segment, key)?.filter(|first| *first <= view.head) {
                return Ok(Some(read::appended(&view, first)?));
            }
        }
        Ok(None)
    }

    async fn head(&self) -> Result<Position> {
        Ok(self.log.progress.borrow().head)
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
