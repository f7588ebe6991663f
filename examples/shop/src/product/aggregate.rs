//! A product: its decisions and its state.

use std::collections::VecDeque;

use annals::{Aggregate, Context, Decide, Decision, Snapshot, emit, emit_all, no_events, reject};
use serde::{Deserialize, Serialize};

use super::{ChangePrice, CreateProduct, DecreaseStock, IncreaseStock, ProductEvent, RenameProduct, Sell};
use crate::values::{Cents, Name, OrderId, Quantity};

/// A product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its name and price; `None` if it does not exist.
    pub offer: Option<(Name, Cents)>,
    /// The stock.
    pub stock: u64,
    /// Orders that wait for stock, oldest first.
    pub waiting: VecDeque<(OrderId, Quantity)>,
}

/// Why a product refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductRefused {
    /// It does not exist.
    #[error("there is no such product")]
    ProductNotFound,
    /// Its id belongs to another product.
    #[error("there is a product with this id already")]
    ProductExists,
    /// The stock is too low.
    #[error("only {left} are left")]
    InsufficientInventory {
        /// The stock.
        left: u64,
    },
}

impl Aggregate for Product {
    const NAME: &'static str = "product";
    type Event = ProductEvent;

    fn initial(_id: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, event: &ProductEvent) {
        match event {
            ProductEvent::Created { name, price } => self.offer = Some((name.clone(), *price)),
            ProductEvent::Renamed { name: new } => {
                if let Some((name, _)) = &mut self.offer {
                    name.clone_from(new);
                }
            }
            ProductEvent::Repriced { price: new } => {
                if let Some((_, price)) = &mut self.offer {
                    *price = *new;
                }
            }
            ProductEvent::StockIncreased { quantity } => self.stock += u64::from(quantity.get()),
            ProductEvent::StockDecreased { quantity } | ProductEvent::Sold { quantity, .. } => {
                self.stock -= u64::from(quantity.get());
            }
            ProductEvent::Backordered { order, quantity } => {
                self.waiting.push_back((order.clone(), *quantity));
            }
            ProductEvent::BackorderFilled { order, quantity } => {
                self.waiting.retain(|(waiting, _)| waiting != order);
                self.stock -= u64::from(quantity.get());
            }
        }
    }
}

impl Snapshot for Product {}

impl Product {
    fn offered(&self) -> Result<&(Name, Cents), ProductRefused> {
        self.offer.as_ref().ok_or(ProductRefused::ProductNotFound)
    }

    fn has(&self, quantity: Quantity) -> bool {
        self.stock >= u64::from(quantity.get())
    }
}

type Decided = Decision<Product, ProductRefused>;

impl Decide<CreateProduct> for Product {
    type Error = ProductRefused;
    fn decide(&self, command: &CreateProduct, _: &Context) -> Decided {
        if self.offer.is_some() {
            return reject(ProductRefused::ProductExists);
        }
        let created = ProductEvent::Created { name: command.name.clone(), price: command.price };
        let stocked = command.stock.map(|quantity| ProductEvent::StockIncreased { quantity });
        emit_all(std::iter::once(created).chain(stocked))
    }
}

impl Decide<RenameProduct> for Product {
    type Error = ProductRefused;
    fn decide(&self, RenameProduct(name): &RenameProduct, _: &Context) -> Decided {
        if self.offered()?.0 == *name {
            return no_events();
        }
        emit(ProductEvent::Renamed { name: name.clone() })
    }
}

impl Decide<ChangePrice> for Product {
    type Error = ProductRefused;
    fn decide(&self, &ChangePrice(price): &ChangePrice, _: &Context) -> Decided {
        if self.offered()?.1 == price {
            return no_events();
        }
        emit(ProductEvent::Repriced { price })
    }
}

impl Decide<IncreaseStock> for Product {
    type Error = ProductRefused;
    /// New stock is first assigned to the waiting orders, in order, as far as it suffices.
    fn decide(&self, &IncreaseStock(quantity): &IncreaseStock, _: &Context) -> Decided {
        self.offered()?;
        let mut events = vec![ProductEvent::StockIncreased { quantity }];
        let mut left = self.stock + u64::from(quantity.get());
        for (order, quantity) in &self.waiting {
            let Some(rest) = left.checked_sub(u64::from(quantity.get())) else { break };
            left = rest;
            events.push(ProductEvent::BackorderFilled { order: order.clone(), quantity: *quantity });
        }
        emit_all(events)
    }
}

impl Decide<DecreaseStock> for Product {
    type Error = ProductRefused;
    fn decide(&self, &DecreaseStock(quantity): &DecreaseStock, _: &Context) -> Decided {
        self.offered()?;
        if !self.has(quantity) {
            return reject(ProductRefused::InsufficientInventory { left: self.stock });
        }
        emit(ProductEvent::StockDecreased { quantity })
    }
}

impl Decide<Sell> for Product {
    type Error = ProductRefused;
    /// The order has been placed, which cannot be undone here: if the stock is too low it waits, and that is
    /// a fact as well. No order overtakes a waiting one.
    fn decide(&self, Sell { order, quantity }: &Sell, _: &Context) -> Decided {
        self.offered()?;
        let (order, quantity) = (order.clone(), *quantity);
        if self.waiting.is_empty() && self.has(quantity) {
            emit(ProductEvent::Sold { order, quantity })
        } else {
            emit(ProductEvent::Backordered { order, quantity })
        }
    }
}
