use annals::{Aggregate, Annals, Context, Decide, Decision, Event};
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
struct Cancel;

impl Decide<Place> for Order {
    type Error = std::fmt::Error;
    fn decide(&self, _: &Place, _: &Context) -> Decision<Self, std::fmt::Error> {
        annals::emit(OrderEvent::Placed)
    }
}

async fn place(annals: &Annals) {
    let _ = annals.repository::<Order>().execute("1", Cancel);
}

fn main() {}
