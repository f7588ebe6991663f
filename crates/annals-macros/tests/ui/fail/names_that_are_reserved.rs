use annals::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "annals")]
enum AnswerEvent {
    CommandRefused,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OrderEvent {
    Placed,
    #[event(name = "annals.nothing_decided")]
    Dropped,
}

fn main() {}
