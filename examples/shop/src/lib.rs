//! A shop on Annals: members, products with stock, orders with delivery and items, and a sales report.
//!
//! ```text
//! member.rs    who is a member            commands -> events -> the list of members
//! product.rs   what is on sale            commands -> events -> the list of products
//! order.rs     who ordered what           commands -> events -> the orders
//! sales.rs     what was sold when         the orders' events -> months, best customers
//!
//! order.placed ──> product: sold, or backordered ──> order: backordered, later filled
//! product.*, member.* ──> the order service's own copy of what it must know of them
//! ```
//!
//! Each service has its own folder and knows of the others nothing but their events. Any of them can be started
//! without the others; [`Shop`] starts all. Read `product/` first: it is the plainest.
//!
//! Beside the services: `values` (money, names, ids), `form` (from JSON to a command), `http` (what the REST routes
//! have in common), `session`, `together` (two aggregates in one append), `page` (the shop in a browser),
//! `purchases` (a file of real purchases).
#![forbid(unsafe_code)]

pub mod form;
pub mod http;
pub mod member;
pub mod order;
pub mod product;
pub mod purchases;
pub mod sales;
pub mod session;
pub mod values;

mod digest;
mod page;
mod together;

use annals::{Annals, Result};
use axum::Router;

use member::MemberService;
use order::OrderService;
use product::ProductService;
use sales::SalesReport;

/// All services of the shop, running.
#[derive(Clone)]
pub struct Shop {
    /// Who is a member.
    pub members: MemberService,
    /// What is on sale.
    pub products: ProductService,
    /// Who ordered what.
    pub orders: OrderService,
    /// What was sold when.
    pub sales: SalesReport,
    annals: Annals,
}

impl Shop {
    /// Starts all services.
    ///
    /// # Errors
    /// If one of them cannot be started.
    pub async fn start(annals: &Annals) -> Result<Self> {
        Ok(Self {
            members: MemberService::start(annals).await?,
            products: ProductService::start(annals).await?,
            orders: OrderService::start(annals).await?,
            sales: SalesReport::start(annals).await?,
            annals: annals.clone(),
        })
    }

    /// Commands and queries of all services over HTTP, and a page for people; to be mounted somewhere, such as at
    /// `/shop`.
    pub fn router(&self) -> Router {
        page::router(self.clone())
            .merge(self.members.router())
            .merge(self.products.router())
            .merge(self.orders.router())
            .merge(self.sales.router())
            .method_not_allowed_fallback(http::no_such_method)
    }
}
