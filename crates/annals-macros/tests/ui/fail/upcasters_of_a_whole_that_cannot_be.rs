use annals::{Event, Upcaster};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order", dropped = "page.viewed")]
enum OrderEvent {
    Placed,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "member", dropped = "page.viewed")]
enum MemberEvent {
    #[event(former_name = "person.registered")]
    Registered,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "client")]
enum ClientEvent {
    #[event(former_name = "person.registered")]
    Registered,
}

#[derive(Event, Clone)]
#[event(union)]
enum DroppedTwice {
    Order(OrderEvent),
    Member(MemberEvent),
}

#[derive(Event, Clone)]
#[event(union, dropped = "page.viewed")]
enum DroppedByTheUnionToo {
    Order(OrderEvent),
}

#[derive(Event, Clone)]
#[event(union)]
enum RenamedTwice {
    Member(MemberEvent),
    Client(ClientEvent),
}

const TO_ANOTHER: &[Upcaster] =
    &[Upcaster::Renamed { former: "order.began", event_type: "order.placd" }];

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order", upcasters = TO_ANOTHER)]
enum RenamedToAnother {
    Placed,
}

const INTO_ANOTHER: &[Upcaster] = &[Upcaster::Converted {
    event_type: "order.began",
    version: 1,
    into: &[("order.placed", 1), ("order.paid", 1)],
    convert: |raw| Ok(vec![raw]),
}];

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order", upcasters = INTO_ANOTHER)]
enum ConvertedIntoAnother {
    Placed,
}

fn main() {}
