use annals::Event;

#[derive(Event, Clone)]
#[event(prefix = "order")]
struct OrderPlaced {
    id: u64,
}

fn main() {}
