//! The sums, updated with every order, so that queries need not add anything up.

use annals::{HandlerError, Params, Projection, Recorded, Row, SqlError, Tx, View, ViewError};
use serde::Serialize;

use crate::events::OrderEvent;
use crate::values::Cents;

/// The sums.
pub struct Sales;

/// The totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// The number of orders.
    pub purchases: u64,
    /// The number of members who have ordered.
    pub customers: u64,
    /// The number of pieces.
    pub pieces: u64,
    /// The revenue.
    #[serde(rename = "revenue_cents")]
    pub revenue: Cents,
}

/// One month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Month {
    /// The month in UTC: `1997-03`.
    pub month: String,
    /// The number of orders.
    pub purchases: u64,
    /// The number of members who have ordered.
    pub customers: u64,
    /// The number of pieces.
    pub pieces: u64,
    /// The revenue.
    #[serde(rename = "revenue_cents")]
    pub revenue: Cents,
}

/// A member who has ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Customer {
    /// The id of the member.
    pub customer: String,
    /// The number of orders.
    pub purchases: u64,
    /// The number of pieces.
    pub pieces: u64,
    /// The amount spent.
    #[serde(rename = "money_cents")]
    pub money: Cents,
}

impl Projection for Sales {
    const NAME: &'static str = "sales";
    const SCHEMA: &'static str = "
        CREATE TABLE months (
            month VARCHAR(7) PRIMARY KEY, purchases BIGINT NOT NULL, pieces BIGINT NOT NULL, revenue BIGINT NOT NULL,
            customers BIGINT NOT NULL
        );
        CREATE TABLE month_customers (
            month VARCHAR(7), customer VARCHAR(40), purchases BIGINT NOT NULL, PRIMARY KEY (month, customer)
        );
        CREATE TABLE customers (
            customer VARCHAR(40) PRIMARY KEY, purchases BIGINT NOT NULL, pieces BIGINT NOT NULL, money BIGINT NOT NULL
        );
        CREATE INDEX customers_by_money ON customers (money DESC, customer);";
    type Event = OrderEvent;

    /// An order counts in the month in which it was placed, even if it was recorded later.
    fn apply(&self, event: &Recorded<OrderEvent>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let OrderEvent::Placed { member, items, .. } = &event.event else { return Ok(()) };
        let placed = event.time().to_string();
        let month = placed.get(..7).ok_or_else(|| HandlerError::new("a time without a month"))?;
        let pieces: u64 = items.iter().map(|item| u64::from(item.quantity.get())).sum();
        let money: Cents = items.iter().map(|item| item.amount).sum();
        let again = "UPDATE month_customers SET purchases = purchases + 1 WHERE month = ?1 AND customer = ?2";
        let first = "INSERT INTO month_customers VALUES (?1, ?2, 1)";
        let is_first = add(tx, again, first, (month, member))?;
        add(
            tx,
            "UPDATE months SET purchases = purchases + 1, pieces = pieces + ?2, revenue = revenue + ?3,
             customers = customers + ?4 WHERE month = ?1",
            "INSERT INTO months VALUES (?1, 1, ?2, ?3, ?4)",
            (month, pieces, money, is_first),
        )?;
        add(
            tx,
            "UPDATE customers SET purchases = purchases + 1, pieces = pieces + ?2, money = money + ?3
             WHERE customer = ?1",
            "INSERT INTO customers VALUES (?1, 1, ?2, ?3)",
            (member, pieces, money),
        )?;
        Ok(())
    }
}

/// Updates a row, or inserts it if it does not exist, with SQL for every database. Returns whether it was
/// inserted.
fn add(tx: &Tx<'_>, change: &str, make: &str, values: impl Params) -> Result<bool, SqlError> {
    let is_new = tx.execute(change, &values)? == 0;
    if is_new {
        tx.execute(make, &values)?;
    }
    Ok(is_new)
}

pub(super) async fn totals(view: &View<Sales>) -> Result<Totals, ViewError> {
    let sql = "SELECT coalesce(sum(purchases), 0), coalesce(sum(pieces), 0), coalesce(sum(revenue), 0),
               (SELECT count(*) FROM customers) FROM months";
    let totals = view.one(sql, (), |row| {
        let (purchases, pieces, revenue, customers) = row.read()?;
        Ok(Totals { purchases, customers, pieces, revenue })
    });
    Ok(totals.await?.unwrap_or_default())
}

pub(super) async fn months(view: &View<Sales>) -> Result<Vec<Month>, ViewError> {
    let read = |row: &Row| -> Result<Month, SqlError> {
        let (month, purchases, customers, pieces, revenue) = row.read()?;
        Ok(Month { month, purchases, customers, pieces, revenue })
    };
    view.query("SELECT month, purchases, customers, pieces, revenue FROM months ORDER BY month", (), read)
        .await
}

pub(super) async fn best_customers(view: &View<Sales>, limit: u32) -> Result<Vec<Customer>, ViewError> {
    let sql = "SELECT customer, purchases, pieces, money FROM customers
               ORDER BY money DESC, customer LIMIT ?1";
    let read = |row: &Row| -> Result<Customer, SqlError> {
        let (customer, purchases, pieces, money) = row.read()?;
        Ok(Customer { customer, purchases, pieces, money })
    };
    view.query(sql, (limit,), read).await
}
