use annals::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OrderEvent {
    Placed,
}

#[derive(Event, Clone)]
#[event(union)]
enum Everything {
    One(OrderEvent),
    Other(OrderEvent),
}

fn main() {}
