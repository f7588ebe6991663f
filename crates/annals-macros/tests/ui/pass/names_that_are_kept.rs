#![deny(warnings)]
use annals::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OrderEvent {
    #[event(allow_name)]
    CreateOrder,
    Placed,
    #[event(name = "order.shipment-sent")]
    Sent { to: String },
}

fn main() {
    assert_eq!(OrderEvent::TYPES, ["order.create_order", "order.placed", "order.shipment-sent"]);
}
