//! A shop on Annals: members, products with stock, orders with delivery and items, and a sales report.
//!
//! ```text
//! member.rs    the members                commands -> events -> the list of members
//! product.rs   the products on sale       commands -> events -> the list of products
//! order.rs     the orders                 commands -> events -> the list of orders
//! sales.rs     the sales report           the orders' events -> months, best customers
//!
//! order.placed ──> product: sold, or backordered ──> order: backordered, later filled
//! product.*, member.* ──> the order service's own copy of products and members
//! ```
//!
//! Each service has its own folder and depends only on the events of the others (`events`). Any of them can
//! be started without the others; [`Shop`] starts all. Read `product/` first: it is the simplest.
//!
//! Beside the services: `values` (money, names, ids), `form` (from JSON to a command), `http` (shared by the
//! REST routes), `session`, `together` (two aggregates in one append), `page` (the shop in a browser),
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
mod events;
mod page;
mod shop;
mod together;

pub use shop::Shop;
