//! The events of all services: the only dependency between them. Each service re-exports its own.

mod member;
mod order;
mod product;

pub use member::MemberEvent;
pub use order::{Delivery, Item, OrderEvent};
pub use product::ProductEvent;
