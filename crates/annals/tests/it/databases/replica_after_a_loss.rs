//! A log that is read from a replica, whose primary loses events: what was known of the primary before counts
//! no more.

use std::sync::Arc;
use std::time::Duration;

use annals::contract::{
    Appended, IdempotencyKey, LogPage, LogRead, MemoryStore, Result, StoreId, StreamInfo, StreamList,
    StreamPage, StreamRead,
};
use annals::{Append, EventStore, Expected, NewEvent, Position, Query, StreamId};
use annals_sql::{OpenReplica, Replicated};
use async_trait::async_trait;
use parking_lot::Mutex;

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(120);

/// An address that leads to one store or another, of logs with the same identity.
pub struct Address {
    id: StoreId,
    to: Mutex<Arc<MemoryStore>>,
}

impl Address {
    pub fn to(id: StoreId, store: &Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self { id, to: Mutex::new(store.clone()) })
    }

    pub fn lead_to(&self, store: &Arc<MemoryStore>) {
        *self.to.lock() = store.clone();
    }

    fn store(&self) -> Arc<MemoryStore> {
        self.to.lock().clone()
    }
}

#[async_trait]
impl EventStore for Address {
    fn id(&self) -> StoreId {
        self.id
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        self.store().append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.store().read_log(read).await
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.store().read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.store().list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.store().outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        self.store().head().await
    }
    async fn wait(&self, after: Position) -> Result<Position> {
        self.store().wait(after).await
    }
}

async fn log(events: &[&NewEvent]) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    for event in events {
        append(&store, event).await;
    }
    store
}

async fn append(store: &MemoryStore, event: &NewEvent) {
    let append = Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event.clone()]);
    store.append(append).await.unwrap();
}

pub async fn replicated(primary: &Arc<Address>, replica: &Arc<Address>) -> Replicated {
    let replica = replica.clone();
    let open: OpenReplica = Arc::new(move || {
        let replica = replica.clone();
        Box::pin(async move { Ok(replica as Arc<dyn EventStore>) })
    });
    Replicated::open(primary.clone(), open).await.unwrap()
}

async fn page(store: &Replicated) -> LogPage {
    store.read_log(LogRead::forward(Position::FIRST)).await.unwrap()
}

#[tokio::test]
async fn a_replica_with_events_that_the_primary_has_lost_is_not_read() {
    let events: Vec<NewEvent> = (0..4).map(|_| NewEvent::new("thing.done", "{}").unwrap()).collect();
    let [a, b, c, other] = &events[..] else { panic!() };
    let (before, after) = (log(&[a, b, c]).await, log(&[a, b, other]).await);
    let (primary, replica) = (Address::to(before.id(), &before), Address::to(before.id(), &before));
    let store = replicated(&primary, &replica).await;
    assert_eq!(page(&store).await.events[2].id(), c.id);
    // A failover; the replica still has what the old primary had.
    primary.lead_to(&after);
    let read = async {
        while page(&store).await.events[2].id() != other.id {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, read).await.expect("the read of lost events does not end");
}

#[tokio::test]
async fn a_replica_need_not_have_what_the_primary_has_lost() {
    let events: Vec<NewEvent> = (0..5).map(|_| NewEvent::new("thing.done", "{}").unwrap()).collect();
    let [a, b, c, other, more] = &events[..] else { panic!() };
    let (before, behind) = (log(&[a, b, c]).await, log(&[a, b]).await);
    let (primary, replica) = (Address::to(before.id(), &before), Address::to(before.id(), &behind));
    let store = replicated(&primary, &replica).await;
    // It is waited for what it does not get, so from now on it is needed that it has that.
    assert_eq!(store.wait(Position::new(2)).await.unwrap(), Position::new(3));
    assert_eq!(page(&store).await.head, Position::new(3), "the primary answers");
    let (after, follows) = (log(&[a, other]).await, log(&[a, other]).await);
    primary.lead_to(&after);
    replica.lead_to(&follows);
    assert_eq!(store.head().await.unwrap(), Position::new(2));
    append(&after, more).await;
    assert_eq!(page(&store).await.head, Position::new(2), "the replica answers, as old as it is");
}

#[tokio::test]
async fn a_list_of_streams_of_a_replica_names_no_stream_that_the_primary_has_lost() {
    let event = || NewEvent::new("thing.done", "{}").unwrap();
    let (one, lost, other) = (event(), event(), event());
    let (before, after) = (log(&[&one]).await, log(&[&one]).await);
    for (store, stream, event) in [(&before, "thing-lost", &lost), (&after, "thing-other", &other)] {
        let append = Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event.clone()]);
        store.append(append).await.unwrap();
    }
    let (primary, replica) = (Address::to(before.id(), &after), Address::to(before.id(), &before));
    let store = replicated(&primary, &replica).await;
    let listed = store.list_streams(StreamList::default()).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|listed| listed.stream.as_str()).collect();
    assert_eq!(names, ["thing-1", "thing-other"]);
    // One with the history of the primary is read, as old as it is.
    replica.lead_to(&log(&[&one]).await);
    let store = replicated(&primary, &replica).await;
    assert_eq!(store.list_streams(StreamList::default()).await.unwrap().len(), 1, "the replica answers");
}

/// What matters is missing on the replica: its page is without an event that could be compared.
#[tokio::test]
async fn a_page_of_a_replica_with_lost_events_passes_over_nothing_that_the_primary_has() {
    let event = |kind: &str| NewEvent::new(kind, "{}").unwrap();
    let (one, lost, other) = (event("thing.done"), event("thing.tried"), event("thing.done"));
    let (before, after) = (log(&[&one, &lost]).await, log(&[&one, &other]).await);
    let done = Query::types(["thing.done".parse().unwrap()]);
    for read in [
        LogRead::forward(Position::FIRST).matching(done.clone()),
        LogRead::forward(Position::new(2)).matching(done.clone()),
        LogRead::backward(Position::new(2)).matching(done.clone()),
    ] {
        let (primary, replica) = (Address::to(before.id(), &after), Address::to(before.id(), &before));
        let store = replicated(&primary, &replica).await;
        let page = store.read_log(read.clone()).await.unwrap();
        let ids: Vec<_> = page.events.iter().map(|event| event.id()).collect();
        assert!(ids.contains(&other.id), "{read:?} is answered without it, and up to {}", page.next);
    }
}
