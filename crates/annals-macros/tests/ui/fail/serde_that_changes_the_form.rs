use annals::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
#[serde(tag = "type")]
enum OneEvent {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OtherEvent {
    #[serde(skip)]
    Placed,
    Shipped,
}

fn main() {}
