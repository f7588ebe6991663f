//! A running shop, and a shop run by two processes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals::contract::{LogPage, LogRead, StreamList, StreamPage, StreamRead};
use annals::{
    Annals, Append, Appended, EventStore, EventStoreExt, IdempotencyKey, MemoryStore, Position, Query, Seen,
    State, StoreId, StreamInfo,
};
use annals_shop::Shop;
use annals_shop::http::Caller;
use annals_shop::product::{CreateProduct, Product};
use annals_shop::values::{Cents, ProductId};

use tokio::sync::Barrier;

use crate::values::*;

/// A shop in memory.
pub async fn shop() -> (Annals, Shop) {
    on(Arc::new(MemoryStore::new())).await
}

/// A shop on this store. Two shops on one store behave like two processes: they share nothing else.
pub async fn on(store: Arc<dyn EventStore>) -> (Annals, Shop) {
    let annals = Annals::with_store(store, State::memory()).await.unwrap();
    let shop = Shop::start(&annals).await.unwrap();
    (annals, shop)
}

/// Puts a product on sale.
pub async fn create(shop: &Shop, key: &str, stock: u32) -> ProductId {
    let command = CreateProduct { name: name(key), price: Cents(1_000), stock: Some(quantity(stock)) };
    let done = shop.products.create(command, &Caller::once(key)).await.unwrap();
    ProductId::new(&done.id).unwrap()
}

/// Registers a member. Returns the event that the copy of the order service must include.
pub async fn register(shop: &Shop, id: &str) -> Seen {
    let command = registration(id, &format!("{id}@example.com"));
    shop.members.register(&command, &Caller::default()).await.unwrap().at()
}

/// The state of a product after its events.
pub async fn product_state(annals: &Annals, id: &ProductId) -> Product {
    annals.repository::<Product>().load(id).await.unwrap().state
}

/// The number of events of this type.
pub async fn count(annals: &Annals, event_type: &str) -> usize {
    let query = Query::types([event_type.try_into().unwrap()]);
    annals.store().log_events(query).await.unwrap().len()
}

/// A store whose first two appends wait for each other: both were decided on the state before either.
pub struct AtOnce {
    store: Arc<dyn EventStore>,
    appends: AtomicUsize,
    both: Barrier,
}

impl AtOnce {
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store, appends: AtomicUsize::new(0), both: Barrier::new(2) }
    }
}

#[async_trait::async_trait]
impl EventStore for AtOnce {
    fn id(&self) -> StoreId {
        self.store.id()
    }
    async fn append(&self, append: Append) -> annals::Result<Appended> {
        if self.appends.fetch_add(1, Ordering::SeqCst) < 2 {
            self.both.wait().await;
        }
        self.store.append(append).await
    }
    async fn read_log(&self, read: LogRead) -> annals::Result<LogPage> {
        self.store.read_log(read).await
    }
    async fn read_stream(&self, read: StreamRead) -> annals::Result<StreamPage> {
        self.store.read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> annals::Result<Vec<StreamInfo>> {
        self.store.list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> annals::Result<Option<Appended>> {
        self.store.outcome(key).await
    }
    async fn head(&self) -> annals::Result<Position> {
        self.store.head().await
    }
    async fn wait(&self, after: Position) -> annals::Result<Position> {
        self.store.wait(after).await
    }
}
