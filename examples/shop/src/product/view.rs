//! The list of products: one row each.

use annals::{HandlerError, Projection, Recorded, Row, Seen, SqlError, Tx, View, ViewError};
use serde::Serialize;

use super::ProductEvent;
use crate::http::Page;
use crate::values::{Cents, ProductId};

/// The list of products.
pub struct Products;

/// A product in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProductRow {
    /// Its id.
    pub id: ProductId,
    /// Its name.
    pub name: String,
    /// The price of one.
    #[serde(rename = "price_cents")]
    pub price: Cents,
    /// The stock.
    pub stock: u64,
    /// The number sold by orders.
    pub sold: u64,
    /// The number of orders that wait for stock.
    pub waiting: u64,
}

impl Projection for Products {
    const NAME: &'static str = "products";
    const SCHEMA: &'static str = "
        CREATE TABLE products (
            id VARCHAR(40) PRIMARY KEY, name VARCHAR(100) NOT NULL, price BIGINT NOT NULL,
            stock BIGINT NOT NULL DEFAULT 0, sold BIGINT NOT NULL DEFAULT 0,
            waiting BIGINT NOT NULL DEFAULT 0
        );
        CREATE INDEX products_by_name ON products (name, id);";
    type Event = ProductEvent;

    fn apply(&self, event: &Recorded<ProductEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let id = event.aggregate_id();
        match &event.event {
            ProductEvent::Created { name, price } => {
                tx.execute("INSERT INTO products (id, name, price) VALUES (?1, ?2, ?3)", (id, name, price))?
            }
            ProductEvent::Renamed { name } => {
                tx.execute("UPDATE products SET name = ?2 WHERE id = ?1", (id, name))?
            }
            ProductEvent::Repriced { price } => {
                tx.execute("UPDATE products SET price = ?2 WHERE id = ?1", (id, price))?
            }
            ProductEvent::StockIncreased { quantity } => {
                tx.execute("UPDATE products SET stock = stock + ?2 WHERE id = ?1", (id, quantity))?
            }
            ProductEvent::StockDecreased { quantity } => {
                tx.execute("UPDATE products SET stock = stock - ?2 WHERE id = ?1", (id, quantity))?
            }
            ProductEvent::Sold { quantity, .. } => tx.execute(
                "UPDATE products SET stock = stock - ?2, sold = sold + ?2 WHERE id = ?1",
                (id, quantity),
            )?,
            ProductEvent::Backordered { .. } => {
                tx.execute("UPDATE products SET waiting = waiting + 1 WHERE id = ?1", (id,))?
            }
            ProductEvent::BackorderFilled { quantity, .. } => tx.execute(
                "UPDATE products SET stock = stock - ?2, sold = sold + ?2, waiting = waiting - 1
                 WHERE id = ?1",
                (id, quantity),
            )?,
        };
        Ok(())
    }
}

const COLUMNS: &str = "SELECT id, name, price, stock, sold, waiting FROM products";

fn read(row: &Row) -> Result<ProductRow, SqlError> {
    let (id, name, price, stock, sold, waiting) = row.read()?;
    Ok(ProductRow { id, name, price, stock, sold, waiting })
}

/// A part of the list, by name.
pub(crate) async fn page(view: &View<Products>, page: Page) -> Result<Vec<ProductRow>, ViewError> {
    let sql = format!("{COLUMNS} ORDER BY name, id LIMIT ?1 OFFSET ?2");
    view.query(&sql, (page.limit, page.offset), read).await
}

/// One product.
pub(crate) async fn one(
    view: &View<Products>,
    id: &str,
    at_least: Seen,
) -> Result<Option<ProductRow>, ViewError> {
    view.clone().at_least(at_least).one(&format!("{COLUMNS} WHERE id = ?1"), (id,), read).await
}
