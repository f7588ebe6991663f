//! An order: its decisions and its state.

use std::collections::BTreeSet;

use annals::{Aggregate, Context, Decide, Decision, emit, no_events, reject};

use super::{Delivery, Item, NoteBackorder, NoteFilled, OrderEvent, PlaceOrder};
use crate::values::{MemberId, ProductId};

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Its member and its delivery; `None` if it has not been placed.
    pub placed: Option<(MemberId, Delivery)>,
    /// The ordered items.
    pub items: Vec<Item>,
    /// The products for which it waits.
    pub waiting: BTreeSet<ProductId>,
}

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// No member is signed in.
    #[error("not signed in; log in and send the session as a bearer token")]
    MemberNotSigned,
    /// There is no such member.
    #[error("there is no such member")]
    NotExistsMember,
    /// There is no such product.
    #[error("there is no product {0}")]
    ProductNotFound(ProductId),
    /// Two of its lines are for one product, but lines are identified by their product.
    #[error("product {0} is in the order twice; order it once, with the sum")]
    ProductTwice(ProductId),
    /// It exceeds the stock.
    #[error("only {left} are left of product {product}")]
    OrderInventoryExceedLimit {
        /// The product.
        product: ProductId,
        /// Its stock.
        left: u64,
    },
    /// There is another order with this id.
    #[error("there is an order with this id already")]
    OrderExists,
    /// There is no such order.
    #[error("there is no such order")]
    OrderNotFound,
}

impl Aggregate for Order {
    const NAME: &'static str = "order";
    type Event = OrderEvent;

    fn initial(_id: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { member, delivery, items } => {
                self.placed = Some((member.clone(), delivery.clone()));
                self.items.clone_from(items);
            }
            OrderEvent::Backordered { product } => {
                self.waiting.insert(product.clone());
            }
            OrderEvent::BackorderFilled { product } => {
                self.waiting.remove(product);
            }
        }
    }
}

impl Order {
    fn has(&self, product: &ProductId) -> Result<(), OrderRefused> {
        let found = self.items.iter().any(|item| item.product == *product);
        if found { Ok(()) } else { Err(OrderRefused::OrderNotFound) }
    }
}

type Decided = Decision<Order, OrderRefused>;

impl Decide<PlaceOrder> for Order {
    type Error = OrderRefused;
    fn decide(&self, command: &PlaceOrder, _: &Context) -> Decided {
        if self.placed.is_some() {
            return reject(OrderRefused::OrderExists);
        }
        let PlaceOrder { member, delivery, lines, known } = command;
        if !known.member {
            return reject(OrderRefused::NotExistsMember);
        }
        let mut items = Vec::with_capacity(lines.len());
        for line in lines {
            let (product, quantity) = (line.product.clone(), line.quantity);
            if items.iter().any(|item: &Item| item.product == product) {
                return reject(OrderRefused::ProductTwice(product));
            }
            let Some(offer) = known.offers.get(&product) else {
                return reject(OrderRefused::ProductNotFound(product));
            };
            if offer.stock < u64::from(quantity.get()) {
                return reject(OrderRefused::OrderInventoryExceedLimit { product, left: offer.stock });
            }
            let amount = line.agreed.unwrap_or_else(|| offer.price.times(quantity));
            items.push(Item { product, name: offer.name.clone(), quantity, amount });
        }
        emit(OrderEvent::Placed { member: member.clone(), delivery: delivery.clone(), items })
    }
}

impl Decide<NoteBackorder> for Order {
    type Error = OrderRefused;
    fn decide(&self, NoteBackorder(product): &NoteBackorder, _: &Context) -> Decided {
        self.has(product)?;
        if self.waiting.contains(product) {
            return no_events();
        }
        emit(OrderEvent::Backordered { product: product.clone() })
    }
}

impl Decide<NoteFilled> for Order {
    type Error = OrderRefused;
    fn decide(&self, NoteFilled(product): &NoteFilled, _: &Context) -> Decided {
        self.has(product)?;
        if !self.waiting.contains(product) {
            return no_events();
        }
        emit(OrderEvent::BackorderFilled { product: product.clone() })
    }
}
