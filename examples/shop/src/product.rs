//! The product service: the products on sale, with prices and stock.
//!
//! ```text
//! command.rs     the commands of a product
//! ../events/     its events
//! aggregate.rs   its decisions and its state
//! selling.rs     the subscriber to orders, which takes their items out of the stock
//! view.rs        the list of products
//! rest.rs        the HTTP routes
//! ```
//!
//! - P1  The stock never falls below zero, and no change of it is lost, even with many concurrent changes: a
//!   decision is valid only for the version on which it was made.
//! - P2  Every item of every order is either sold or recorded as waiting, once. Waiting orders are served in
//!   the order in which they reached the product; the order of simultaneous ones is undefined.

mod aggregate;
mod command;
mod rest;
mod selling;
mod view;

pub use aggregate::{Product, ProductRefused};
pub use command::{ChangePrice, CreateProduct, DecreaseStock, IncreaseStock, RenameProduct, Sell};
pub(crate) use view::page;
pub use view::{ProductRow, Products};

use annals::snapshot::every;
use annals::{Annals, Decide, ExecuteError, Repository, Result};
use axum::Router;

pub use crate::events::ProductEvent;
use crate::http::{Caller, Done};
use crate::values::ProductId;

/// The product service.
#[derive(Clone)]
pub struct ProductService {
    annals: Annals,
    products: Repository<Product>,
}

impl ProductService {
    /// Starts it: its read model, and the subscriber that takes ordered items out of the stock.
    ///
    /// # Errors
    /// If it is started already, or its read model cannot be used.
    pub async fn start(annals: &Annals) -> Result<Self> {
        let products = annals.repository::<Product>().cache(10_000).snapshots(every(200));
        annals.project(Products).start().await?;
        selling::start(annals, products.clone()).await?;
        Ok(Self { annals: annals.clone(), products })
    }

    /// Puts a new product on sale.
    ///
    /// # Errors
    /// As the framework returns.
    pub async fn create(
        &self,
        command: CreateProduct,
        caller: &Caller,
    ) -> Result<Done, ExecuteError<ProductRefused>> {
        let id = ProductId::for_request(caller.key.as_deref());
        Ok(self.give(&id, command, caller).await?.created())
    }

    /// Executes a command on a product.
    ///
    /// # Errors
    /// [`ProductRefused`], or as the framework returns.
    pub async fn give<C>(
        &self,
        id: &ProductId,
        command: C,
        caller: &Caller,
    ) -> Result<Done, ExecuteError<ProductRefused>>
    where
        Product: Decide<C, Error = ProductRefused>,
        C: Send + Sync + 'static,
    {
        let done = caller.says(self.products.execute(id, command)).await?;
        Ok(Done::of(id, &done))
    }

    /// Its HTTP routes.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }
}
