//! Hears of orders and takes their items out of the stock.
//!
//! The subscriber is durable by its name: what was ordered while it was down is sold when it comes up. An order may
//! be delivered to it twice; the command that it leads to is executed once for each product all the same.

use annals::{Annals, Recorded, Repository, Result};

use super::{Product, Sell};
use crate::events::OrderEvent;
use crate::values::OrderId;

/// What the subscriber is remembered by.
pub(super) const NAME: &str = "product-sells-orders";

/// Orders that are worked on at once.
const ORDERS_AT_ONCE: usize = 64;

pub(super) async fn start(annals: &Annals, products: Repository<Product>) -> Result<()> {
    annals
        .subscribe(NAME)
        .concurrency(ORDERS_AT_ONCE)
        .on(move |event: Recorded<OrderEvent>, handling| {
            let products = products.clone();
            async move {
                if let OrderEvent::Placed { items, .. } = &event.event {
                    let order = OrderId::of_stream(event.aggregate_id());
                    for item in items {
                        let sell = Sell { order: order.clone(), quantity: item.quantity };
                        handling.with(&products).execute(&item.product, sell).await?;
                    }
                }
                Ok(())
            }
        })
        .start()
        .await
}
