use annals::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OrderEvent {
    Placed,
}

#[derive(Event, Clone)]
#[event(union)]
enum OfMember {
    #[event(version = 2)]
    Order(OrderEvent),
}

#[derive(Event, Clone)]
#[event(union)]
enum TagOfMember {
    Order(#[tag = "order"] OrderEvent),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum TagOfVariant {
    #[tag]
    Placed { customer: u64 },
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
#[tag = "customer"]
enum TagOfEnum {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OfField {
    Placed {
        #[event(former_name = "client")]
        customer: u64,
    },
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum VersionZero {
    #[event(version = 2, upcast(0 = same))]
    Counted(u64),
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum NoConversion {
    #[event(version = 2, upcast())]
    Counted(u64),
}

fn main() {}
