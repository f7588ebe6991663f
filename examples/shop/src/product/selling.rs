//! The subscriber to orders, which takes their items out of the stock.
//!
//! The subscriber is durable by its name: orders that were placed while it was down are handled when it
//! starts. An order may be delivered to it twice; its command is still executed only once for each product.

use annals::{Annals, Recorded, Repository, Result};

use super::{Product, Sell};
use crate::events::OrderEvent;
use crate::values::OrderId;

/// The name of the subscriber, under which its checkpoint is stored.
pub(super) const NAME: &str = "product-sells-orders";

/// The number of orders handled at once.
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
