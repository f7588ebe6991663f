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
//! Each service has its own folder and knows of the others nothing but their events (`events`). Any of them can be started
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
mod events;
mod page;
mod shop;
mod together;

pub use shop::Shop;
