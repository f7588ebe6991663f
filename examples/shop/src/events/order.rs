//! The events of an order, and the parts of an order.

use annals::Event;
use serde::{Deserialize, Serialize};

use crate::values::{Address, Cents, MemberId, Name, ProductId, Quantity};

/// The delivery of an order: a value, replaced as a whole.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The recipient.
    pub recipient: Name,
    /// The address.
    pub address: Address,
}

/// A line of an order: an entity inside the aggregate, identified by its product.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The product.
    pub product: ProductId,
    /// The name of the product when it was ordered.
    pub name: Name,
    /// The quantity.
    pub quantity: Quantity,
    /// The amount for all of them.
    #[serde(rename = "amount_cents")]
    pub amount: Cents,
}

/// The events of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(prefix = "order")]
pub enum OrderEvent {
    /// A member has placed it.
    Placed {
        /// The member.
        #[tag]
        member: MemberId,
        /// The delivery.
        delivery: Delivery,
        /// The ordered items.
        items: Vec<Item>,
    },
    /// The stock of a product was too low: this item waits for new stock.
    Backordered {
        /// The product.
        product: ProductId,
    },
    /// New stock was assigned to this item: it no longer waits.
    BackorderFilled {
        /// The product.
        product: ProductId,
    },
}
