#![deny(deprecated)]
use annals::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OrderEvents {
    CreateOrder,
    Update { what: String },
    CustomerInfo { name: String },
    OrderEvent,
    Placed,
}

fn main() {}
