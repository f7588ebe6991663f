//! What can happen to a product.

use annals::Event;
use serde::{Deserialize, Serialize};

use crate::values::{Cents, Name, OrderId, Quantity};

/// What can happen to a product.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(prefix = "product")]
pub enum ProductEvent {
    /// It is on sale.
    Created {
        /// What it is called.
        name: Name,
        /// What one costs.
        #[serde(rename = "price_cents")]
        price: Cents,
    },
    /// It is called something else.
    Renamed {
        /// What.
        name: Name,
    },
    /// One costs something else from now on.
    Repriced {
        /// How much.
        #[serde(rename = "price_cents")]
        price: Cents,
    },
    /// More has come in.
    StockIncreased {
        /// How many.
        quantity: Quantity,
    },
    /// Some is gone otherwise than by an order.
    StockDecreased {
        /// How many.
        quantity: Quantity,
    },
    /// An order got what it is for.
    Sold {
        /// The order.
        order: OrderId,
        /// How many.
        quantity: Quantity,
    },
    /// There was too little for an order: it waits until more comes in.
    Backordered {
        /// The order.
        order: OrderId,
        /// How many it waits for.
        quantity: Quantity,
    },
    /// More has come in, and an order that waited got what it is for.
    BackorderFilled {
        /// The order.
        order: OrderId,
        /// How many.
        quantity: Quantity,
    },
}
