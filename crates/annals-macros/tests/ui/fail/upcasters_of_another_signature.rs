use annals::Event;
use serde::{Deserialize, Serialize};

fn alone(data: u64) -> u64 {
    data
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum NotAResult {
    #[event(version = 2, upcast(1 = alone))]
    Counted(u64),
}

fn main() {}
