use annals::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(preffix = "order")]
enum OneEvent {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OtherEvent {
    #[event(version = 0)]
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "white space")]
enum ThirdEvent {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum FourthEvent {
    Placed(#[tag] u64),
}

fn main() {}
