//! An order, as a row and as JSON.

use serde::{Deserialize, Serialize};

/// The current state of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub id: String,
    pub customer: String,
    pub cents: i64,
    /// `placed`, `paid` or `cancelled`.
    #[serde(default = "placed")]
    pub state: String,
}

fn placed() -> String {
    "placed".to_owned()
}
