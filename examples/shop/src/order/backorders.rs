//! The subscriber to product events, which records the items that begin or end to wait.
//!
//! The events of one product are delivered in order, so an item begins to wait before its wait ends.

use annals::{Annals, Recorded, Repository, Result};

use super::{NoteBackorder, NoteFilled, Order};
use crate::events::ProductEvent;
use crate::values::ProductId;

/// The name of the subscriber, under which its checkpoint is stored.
pub(super) const NAME: &str = "order-notes-backorders";

pub(super) async fn start(annals: &Annals, orders: Repository<Order>) -> Result<()> {
    annals
        .subscribe(NAME)
        .on(move |event: Recorded<ProductEvent>, handling| {
            let orders = orders.clone();
            async move {
                let product = ProductId::of_stream(event.aggregate_id());
                match &event.event {
                    ProductEvent::Backordered { order, .. } => {
                        handling.with(&orders).execute(order, NoteBackorder(product)).await?;
                    }
                    ProductEvent::BackorderFilled { order, .. } => {
                        handling.with(&orders).execute(order, NoteFilled(product)).await?;
                    }
                    _ => {}
                }
                Ok(())
            }
        })
        .start()
        .await
}
