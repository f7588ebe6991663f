use annals::Event;
use serde::{Deserialize, Serialize};

type Same<T> = Result<T, std::convert::Infallible>;

fn same(data: u64) -> Same<u64> {
    Ok(data)
}


#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OfToday {
    #[event(version = 2, upcast(2 = same))]
    Counted(u64),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum Twice {
    #[event(version = 2, upcast(1 = same, 1 = same))]
    Counted(u64),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum WithoutVersion {
    #[event(version = 2, upcast(same))]
    Counted(u64),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum FormerOfToday {
    #[event(former_name = "order.counted")]
    Counted(u64),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum FormerOfAnother {
    Placed,
    #[event(former_name = "order.placed")]
    Counted(u64),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order", dropped = "order.counted")]
enum DroppedOfToday {
    Counted(u64),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum Misspelled {
    #[event(formerly = "order.counts")]
    Counted(u64),
}

fn main() {}
