use annals::Event;

#[derive(Event, Clone)]
#[event(prefix = "order")]
enum OrderEvent<T> {
    Placed(T),
}

fn main() {}
