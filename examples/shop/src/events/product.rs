//! The events of a product.

use annals::Event;
use serde::{Deserialize, Serialize};

use crate::values::{Cents, Name, OrderId, Quantity};

/// The events of a product.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(prefix = "product")]
pub enum ProductEvent {
    /// It was put on sale.
    Created {
        /// The name.
        name: Name,
        /// The price of one.
        #[serde(rename = "price_cents")]
        price: Cents,
    },
    /// The name has changed.
    Renamed {
        /// The new name.
        name: Name,
    },
    /// The price has changed.
    Repriced {
        /// The new price of one.
        #[serde(rename = "price_cents")]
        price: Cents,
    },
    /// New stock was added.
    StockIncreased {
        /// The quantity.
        quantity: Quantity,
    },
    /// Stock was removed that was not sold by an order.
    StockDecreased {
        /// The quantity.
        quantity: Quantity,
    },
    /// It was sold to an order.
    Sold {
        /// The order.
        order: OrderId,
        /// The quantity.
        quantity: Quantity,
    },
    /// The stock was too low for an order: it waits for new stock.
    Backordered {
        /// The order.
        order: OrderId,
        /// The quantity for which it waits.
        quantity: Quantity,
    },
    /// New stock was assigned to a waiting order.
    BackorderFilled {
        /// The order.
        order: OrderId,
        /// The quantity.
        quantity: Quantity,
    },
}
