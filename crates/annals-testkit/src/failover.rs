//! A store in memory that loses its newest events: its clients are moved to a server without them, as by a
//! failover or a restore.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use annals_core::{
    Append, Appended, EventStore, Expected, IdempotencyKey, LogPage, LogRead, MemoryStore, Position, Result,
    StoreId, StreamInfo, StreamList, StreamPage, StreamRead,
};
use async_trait::async_trait;
use tokio::sync::watch;

/// The kinds of pages that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Of the log.
    OfLog,
    /// Of streams.
    OfStreams,
}

/// A store whose log can be replaced while it is in use.
pub struct Failover {
    id: StoreId,
    /// The number of reads of the log.
    pub log_reads: AtomicUsize,
    /// A head that `wait` returns without reading the log, if it is beyond the position.
    pub believed: AtomicU64,
    /// Most events of a page of a stream, as if they were large.
    pub stream_page: AtomicUsize,
    now: watch::Sender<Arc<MemoryStore>>,
    /// The server that clients are moved to after this many more of these pages.
    next: Mutex<Option<(Pages, usize, Arc<MemoryStore>)>>,
}

impl Failover {
    /// A new log.
    #[allow(clippy::new_ret_no_self, reason = "a store is shared by those who use it")]
    pub fn new() -> Arc<Self> {
        let store = Arc::new(MemoryStore::new());
        Self::on(store.id(), store)
    }

    /// The same log on another server that has the events up to this position: a lagging replica.
    pub async fn replica(&self, up_to: Position) -> Arc<Self> {
        Self::on(self.id, self.server(up_to, []).await)
    }

    fn on(id: StoreId, store: Arc<MemoryStore>) -> Arc<Self> {
        let (log_reads, believed) = Default::default();
        Arc::new(Self {
            id,
            log_reads,
            believed,
            stream_page: AtomicUsize::new(usize::MAX),
            now: watch::Sender::new(store),
            next: Mutex::default(),
        })
    }

    fn now(&self) -> Arc<MemoryStore> {
        self.now.borrow().clone()
    }

    /// Moves all clients to a server that has the events up to this position, and then these.
    ///
    /// # Panics
    /// If an append is refused.
    pub async fn lose(&self, up_to: Position, then: impl IntoIterator<Item = Append>) {
        self.now.send_replace(self.server(up_to, then).await);
    }

    /// Like [`lose`](Self::lose), after this many more of these pages.
    ///
    /// # Panics
    /// If an append is refused.
    pub async fn lose_after(
        &self,
        pages: Pages,
        count: usize,
        up_to: Position,
        then: impl IntoIterator<Item = Append>,
    ) {
        let server = self.server(up_to, then).await;
        *self.next.lock().expect("nobody panics with it") = Some((pages, count, server));
    }

    /// Counts a page that was read.
    fn was_read(&self, pages: Pages) {
        let mut next = self.next.lock().expect("nobody panics with it");
        match next.take_if(|(of, ..)| *of == pages) {
            Some((_, 0 | 1, server)) => drop(self.now.send_replace(server)),
            Some((of, more, server)) => *next = Some((of, more - 1, server)),
            None => {}
        }
    }

    async fn server(&self, up_to: Position, then: impl IntoIterator<Item = Append>) -> Arc<MemoryStore> {
        let server = Arc::new(MemoryStore::new());
        let mut read = LogRead::forward(Position::FIRST);
        while read.from <= up_to {
            let page = self.now().read_log(read.clone()).await.expect("a log in memory is read");
            for event in page.events.iter().filter(|event| event.position() <= up_to) {
                let append = Append::to(event.stream_id(), Expected::Any, [event.to_new()]);
                server.append(append).await.expect("it is taken again");
            }
            if page.end {
                break;
            }
            read.from = page.next;
        }
        for append in then {
            server.append(append).await.expect("it is taken");
        }
        server
    }
}

#[async_trait]
impl EventStore for Failover {
    fn id(&self) -> StoreId {
        self.id
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        self.now().append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.log_reads.fetch_add(1, Ordering::SeqCst);
        let page = self.now().read_log(read).await;
        self.was_read(Pages::OfLog);
        page
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        let limit = read.limit.min(self.stream_page.load(Ordering::SeqCst));
        let read = read.limit(limit);
        let page = self.now().read_stream(read).await;
        self.was_read(Pages::OfStreams);
        page
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.now().list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.now().outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        self.now().head().await
    }
    /// Waits on the current server, across moves. Returns the believed head at once if it is beyond the
    /// position.
    async fn wait(&self, after: Position) -> Result<Position> {
        let believed = Position::new(self.believed.load(Ordering::SeqCst));
        if believed > after {
            return Ok(believed);
        }
        let mut now = self.now.subscribe();
        loop {
            let store = now.borrow_and_update().clone();
            tokio::select! {
                head = store.wait(after) => return head,
                _ = now.changed() => {}
            }
        }
    }
}
