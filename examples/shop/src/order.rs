//! The order service: members order products.
//!
//! ```text
//! command.rs     what can be asked of an order
//! ../events/     what can happen to it, with the entities and values inside: items, delivery
//! aggregate.rs   what it decides, and what becomes of it
//! catalogue.rs   its own copy of what it must know of products and members
//! backorders.rs  hears of products which items have to wait
//! view.rs        the orders with their member, delivery and items
//! rest.rs        all of it over HTTP
//! ```
//!
//! - O1  It asks no other service for anything. What it must know of products and members it keeps in a copy of its
//!   own, made of their events. So it takes orders while they are down.
//! - O2  The copy may be old. It keeps most orders for too much from being placed; whether there is enough is
//!   decided by the product alone, later. If there is not, the order stands and waits: that is a fact
//!   (`order.backordered`), and nothing has to be taken back.
//! - O3  An order is priced when it is placed, and keeps names and prices as they were.

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
    /// The copy of products and members could not be looked at, or is not as new as was asked for.
    #[error(transparent)]
    Catalogue(#[from] ViewError),
}

impl OrderService {
    /// Starts it: its read model, its copy of products and members, and the subscriber that learns of backorders.
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

    /// Places an order. With an idempotency key in `caller`, however often it is sent, it is placed once.
    ///
    /// `at_least` is how new the copy of products and members must be: the position of one's own registration,
    /// for one who has just registered.
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

    /// What it serves over HTTP.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }
}

/// The order that a member places under this key.
fn order_of(member: &MemberId, key: impl std::fmt::Display) -> OrderId {
    OrderId::of_key(&format!("{member}/{key}"))
}
