//! A running shop, and one that is run by two processes at once.

use std::sync::Arc;

use annals::{Annals, EventStore, EventStoreExt, MemoryStore, Position, Query, State};
use annals_shop::Shop;
use annals_shop::http::Caller;
use annals_shop::product::{CreateProduct, Product};
use annals_shop::values::{Cents, ProductId};

use crate::values::*;

/// A shop in memory.
pub async fn shop() -> (Annals, Shop) {
    on(Arc::new(MemoryStore::new())).await
}

/// A shop on this store. Two of them on one store are as two processes: they share nothing else.
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

/// Makes somebody a member, and returns the position from which on the order service knows.
pub async fn register(shop: &Shop, id: &str) -> Position {
    let command = registration(id, &format!("{id}@example.com"));
    shop.members.register(&command, &Caller::default()).await.unwrap().at()
}

/// A product as its events make it.
pub async fn product_state(annals: &Annals, id: &ProductId) -> Product {
    annals.repository::<Product>().load(id).await.unwrap().state
}

/// How many events of this type there are.
pub async fn count(annals: &Annals, event_type: &str) -> usize {
    let query = Query::types([event_type.try_into().unwrap()]);
    annals.store().log_events(query).await.unwrap().len()
}
