//! A store that injects the faults that it is given, each of them once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use annals::contract::{LogPage, LogRead, StreamPage, StreamRead};
use annals::{
    Append, Appended, Error, EventStore, Expected, IdempotencyKey, MemoryStore, NewEvent, Position, Result,
    StoreId, StreamId, StreamInfo, StreamList,
};

/// What goes wrong at an append.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Somebody else appends this event just before.
    Overtaken(&'static str, &'static str),
    /// The store is away.
    Unavailable,
    /// The append is committed, and the answer is lost.
    AnswerLost,
    /// The append is not committed, and nobody knows.
    RequestLost,
    /// The append is committed and the answer lost, and then somebody else appends this event.
    AnswerLostThenOvertaken(&'static str, &'static str),
    /// The store is out of order.
    Poisoned,
    /// The store cannot be used until somebody changes something.
    Unusable,
}

pub struct FaultyStore {
    pub store: Arc<MemoryStore>,
    /// Where the address leads now, if it is elsewhere.
    elsewhere: Mutex<Option<Arc<MemoryStore>>>,
    id: StoreId,
    faults: Mutex<VecDeque<Fault>>,
    pub appends: AtomicUsize,
    pub stream_reads: AtomicUsize,
    pub events_read: AtomicUsize,
    /// How many reads of streams fail from here on.
    pub stream_reads_to_fail: AtomicUsize,
    /// How many reads of the log fail from here on.
    pub log_reads_to_fail: AtomicUsize,
    /// How many reads of the log panic from here on.
    pub log_reads_to_panic: AtomicUsize,
}

impl FaultyStore {
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        let store = Arc::new(MemoryStore::new());
        Self::over(store.clone(), store.id(), faults)
    }

    /// The same log under another identity, or with faults.
    pub fn over(store: Arc<MemoryStore>, id: StoreId, faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        let faults = Mutex::new(faults.into_iter().collect());
        let (appends, stream_reads, events_read) = Default::default();
        let (stream_reads_to_fail, log_reads_to_fail) = Default::default();
        Arc::new(Self {
            store,
            elsewhere: Mutex::default(),
            id,
            faults,
            appends,
            stream_reads,
            events_read,
            stream_reads_to_fail,
            log_reads_to_fail,
            log_reads_to_panic: AtomicUsize::new(0),
        })
    }

    /// The log of this store as it was at this position, under the same identity: a backup that was brought
    /// back.
    pub async fn brought_back(store: &MemoryStore, up_to: u64) -> Arc<Self> {
        let restored = Arc::new(MemoryStore::new());
        for event in store.read_log(LogRead::forward(Position::FIRST).limit(100)).await.unwrap().events {
            if event.position().get() <= up_to {
                let append = Append::to(event.stream_id(), Expected::Any, [event.to_new()]);
                restored.append(append).await.unwrap();
            }
        }
        Self::over(restored, store.id(), [])
    }

    pub fn plan(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// From now on the address leads to this log, which is taken for the same one.
    pub fn lead_to(&self, store: &Arc<MemoryStore>) {
        *self.elsewhere.lock().unwrap() = Some(store.clone());
    }

    fn now(&self) -> Arc<MemoryStore> {
        self.elsewhere.lock().unwrap().as_ref().unwrap_or(&self.store).clone()
    }

    async fn overtake(&self, append: &Append, event_type: &str, data: &'static str) {
        let stream: StreamId = append.writes[0].stream.clone();
        let event = NewEvent::new(event_type, data).unwrap();
        self.now().append(Append::to(stream, Expected::Any, [event])).await.unwrap();
    }
}

fn fail_once(to_fail: &AtomicUsize) -> Result<()> {
    match to_fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Err(Error::Unavailable("away".into())),
        Err(_) => Ok(()),
    }
}

#[async_trait::async_trait]
impl EventStore for FaultyStore {
    fn id(&self) -> StoreId {
        self.id
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            None => self.now().append(append).await,
            Some(Fault::Overtaken(event_type, data)) => {
                self.overtake(&append, event_type, data).await;
                self.now().append(append).await
            }
            Some(Fault::Unavailable) => Err(Error::Unavailable("away".into())),
            Some(Fault::AnswerLost) => {
                self.now().append(append).await?;
                Err(Error::Indeterminate("the connection broke".into()))
            }
            Some(Fault::RequestLost) => Err(Error::Indeterminate("the connection broke".into())),
            Some(Fault::AnswerLostThenOvertaken(event_type, data)) => {
                self.now().append(append.clone()).await?;
                self.overtake(&append, event_type, data).await;
                Err(Error::Indeterminate("the connection broke".into()))
            }
            Some(Fault::Unusable) => Err(Error::Unusable("the role may not do this".into())),
            Some(Fault::Poisoned) => Err(Error::Poisoned("a sync failed".into())),
        }
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        fail_once(&self.log_reads_to_fail)?;
        assert!(fail_once(&self.log_reads_to_panic).is_ok(), "the store is out of its mind");
        self.now().read_log(read).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.stream_reads.fetch_add(1, Ordering::SeqCst);
        fail_once(&self.stream_reads_to_fail)?;
        let page = self.now().read_stream(read).await?;
        self.events_read.fetch_add(page.events.len(), Ordering::SeqCst);
        Ok(page)
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

    async fn wait(&self, after: Position) -> Result<Position> {
        self.now().wait(after).await
    }
}
