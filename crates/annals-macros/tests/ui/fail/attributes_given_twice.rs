use annals::{Event, Upcaster};
use serde::{Deserialize, Serialize};

const TABLE: &[Upcaster] = &[];

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order", upcasters = TABLE, upcasters = TABLE)]
enum Tables {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
#[event(prefix = "orders")]
enum Prefixes {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order", dropped = "order.viewed", dropped = "order.viewed")]
enum Dropped {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum Names {
    #[event(name = "order.placed", name = "order.began")]
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum Versions {
    #[event(version = 2)]
    #[event(version = 3)]
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum FormerNames {
    #[event(former_name = "order.began", former_name = "order.began")]
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(union, dropped = "order.viewed", dropped = "order.viewed")]
enum Union {
    Names(Names),
}

fn main() {}
