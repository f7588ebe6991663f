//! What can happen to an order, and what an order is made of.

use annals::Event;
use serde::{Deserialize, Serialize};

use crate::values::{Address, Cents, MemberId, Name, ProductId, Quantity};

/// Where an order goes to: a value, replaced as a whole.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who takes it.
    pub recipient: Name,
    /// Where.
    pub address: Address,
}

/// A line of an order: an entity inside the aggregate, told apart by its product.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which product.
    pub product: ProductId,
    /// What it was called when it was ordered.
    pub name: Name,
    /// How many.
    pub quantity: Quantity,
    /// What they cost together.
    #[serde(rename = "amount_cents")]
    pub amount: Cents,
}

/// What can happen to an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(prefix = "order")]
pub enum OrderEvent {
    /// A member has placed it.
    Placed {
        /// Who.
        #[tag]
        member: MemberId,
        /// Where it goes to.
        delivery: Delivery,
        /// What for.
        items: Vec<Item>,
    },
    /// There was too little of a product: this item waits until more comes in.
    Backordered {
        /// Which.
        product: ProductId,
    },
    /// More has come in: this item does not wait any more.
    BackorderFilled {
        /// Which.
        product: ProductId,
    },
}
