use annals::{Aggregate, Annals, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(prefix = "order")]
enum OrderEvent {
    Placed,
}

#[derive(Clone)]
struct Order;

impl Aggregate for Order {
    const NAME: &'static str = "order";
    type Event = OrderEvent;
    fn initial(_id: &str) -> Self {
        Self
    }
    fn evolve(&mut self, _event: &OrderEvent) {}
}

struct Place;

async fn place(annals: &Annals) {
    let _ = annals.repository::<Order>().execute("1", Place);
}

fn main() {}
