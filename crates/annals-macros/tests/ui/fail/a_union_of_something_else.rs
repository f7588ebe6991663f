use annals::Event;

#[derive(Event, Clone)]
#[event(union)]
enum Everything {
    Order { id: u64 },
}

fn main() {}
