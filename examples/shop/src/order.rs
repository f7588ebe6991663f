//! The order service: members order products.
//!
//! ```text
//! command.rs     the commands of an order
//! ../events/     its events, with the entities and values in them: items, delivery
//! aggregate.rs   its decisions and its state
//! catalogue.rs   the service's own copy of products and members
//! backorders.rs  learns from product events which items wait
//! view.rs        the orders with their member, delivery and items
//! rest.rs        the HTTP routes
//! ```
//!
//! - O1  It calls no other service. It has its own copy of the data of products and members that it needs,
//!   derived from their events. So it takes orders while those services are down.
//! - O2  The copy may be stale. It prevents most orders that exceed the stock; the final decision is made by
//!   the product, later. If the stock is too low, the order remains valid and waits: that is a fact
//!   (`order.backordered`), and nothing has to be compensated.
//! - O3  An order is priced when it is placed, and keeps the names and prices of that time.

mod aggregate;
mod backorders;
mod catalogue;
mod command;
mod rest;
mod view;

pub use aggregate::{Order, OrderRefused};
pub use catalogue::{Catalogue, Known, Offer};
pub use command::{Line, NoteBackorder, NoteFilled, OrderForm, PlaceOrder};
pub(crate) use view::newest;
pub use view::{MemberOfOrder, OrderRow, Orders, Seen};

use annals::{Annals, ExecuteError, LoadError, Repository, Result, ViewError};
use axum::Router;

pub use crate::events::{Delivery, Item, OrderEvent};
use crate::http::{Caller, Done};
use crate::values::{MemberId, OrderId};

/// The order service.
#[derive(Clone)]
pub struct OrderService {
    annals: Annals,
    orders: Repository<Order>,
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The order refused, or its command could not be executed.
    #[error(transparent)]
    Command(#[from] ExecuteError<OrderRefused>),
    /// The copy of products and members could not be read, or is not as new as required.
    #[error(transparent)]
    Catalogue(#[from] ViewError),
}

impl OrderService {
    /// Starts it: its read model, its copy of products and members, and the subscriber to backorders.
    ///
    /// # Errors
    /// If it is started already, or one of these cannot be used.
    pub async fn start(annals: &Annals) -> Result<Self> {
        let orders = annals.repository::<Order>();
        annals.project(Catalogue).start().await?;
        annals.project(Orders).start().await?;
        backorders::start(annals, orders.clone()).await?;
        Ok(Self { annals: annals.clone(), orders })
    }

    /// Places an order. With an idempotency key in `caller`, it is placed once, however often it is sent.
    ///
    /// `at_least` is the event that the copy of products and members must include: for a new member, that of
    /// the registration.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub async fn place(
        &self,
        member: MemberId,
        form: OrderForm,
        at_least: impl Into<annals::Seen>,
        caller: &Caller,
    ) -> Result<Done, PlaceError> {
        let id = caller.key.as_ref().map_or_else(OrderId::generate, |key| order_of(&member, key));
        let OrderForm { delivery, lines } = form;
        let known = self.look_up(&member, &lines, at_least.into()).await?;
        let command = PlaceOrder { member, delivery, lines, known };
        let done = caller.says(self.orders.execute(&id, command)).await?;
        Ok(Done::of(&id, &done).created())
    }

    /// Whether an order was placed under this key.
    ///
    /// # Errors
    /// If the order cannot be read.
    pub async fn is_placed(&self, member: &MemberId, key: &str) -> Result<bool, LoadError> {
        Ok(self.orders.load(order_of(member, key)).await?.exists())
    }

    async fn look_up(
        &self,
        member: &MemberId,
        lines: &[Line],
        at_least: annals::Seen,
    ) -> Result<Known, ViewError> {
        let view = self.annals.view::<Catalogue>().at_least(at_least);
        catalogue::look_up(&view, member, lines).await
    }

    /// Its HTTP routes.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }
}

/// The id of the order that a member places under this key.
fn order_of(member: &MemberId, key: impl std::fmt::Display) -> OrderId {
    OrderId::of_key(&format!("{member}/{key}"))
}
