//! The product service: what is on sale, for how much, and how many are left.
//!
//! ```text
//! command.rs     what can be asked of a product
//! ../events/     what can happen to it
//! aggregate.rs   what it decides, and what becomes of it
//! selling.rs     hears of orders and takes their items out of the stock
//! view.rs        the list of products
//! rest.rs        all of it over HTTP
//! ```
//!
//! - P1  The stock never falls below zero, and no change of it is lost, however many change it at once: a decision
//!   holds only for the version that it was made on.
//! - P2  Every item of every order is either sold or noted as waiting, once. Who waits is served in the order in
//!   which the orders came to the product; those of one moment may come in any order.

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
    /// Starts it: its read model, and the subscriber that takes what is ordered out of the stock.
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
    /// As the framework's.
    pub async fn create(
        &self,
        command: CreateProduct,
        caller: &Caller,
    ) -> Result<Done, ExecuteError<ProductRefused>> {
        let id = ProductId::for_request(caller.key.as_deref());
        Ok(self.give(&id, command, caller).await?.created())
    }

    /// Gives a command to a product.
    ///
    /// # Errors
    /// [`ProductRefused`], or as the framework's.
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

    /// What it serves over HTTP.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }
}
