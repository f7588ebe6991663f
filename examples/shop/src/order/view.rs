//! The orders with their member, delivery and items.

use annals::{Event, HandlerError, Projection, Recorded, Row, SqlError, Timestamp, Tx, View, ViewError};
use serde::Serialize;

use super::{Delivery, Item, OrderEvent};
use crate::events::MemberEvent;
use crate::http::Page;
use crate::values::Cents;

/// The orders.
pub struct Orders;

/// The events from which they are derived.
#[derive(Event, Clone, Debug)]
#[event(union)]
pub enum Seen {
    /// An event of this service.
    Order(OrderEvent),
    /// An event of the member service: an order is shown with the current name of its member.
    Member(MemberEvent),
}

/// An order in the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OrderRow {
    /// Its id.
    pub id: String,
    /// The time at which it was placed.
    pub placed_at: String,
    /// Its member.
    pub member: MemberOfOrder,
    /// Its delivery.
    pub delivery: Delivery,
    /// Its items.
    pub items: Vec<Item>,
    /// Its total amount.
    #[serde(rename = "amount_cents")]
    pub amount: Cents,
    /// The number of its items that wait for stock.
    pub waiting: u64,
}

/// The member of an order in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberOfOrder {
    /// Its id.
    pub id: String,
    /// Its current name; `None` after a withdrawal.
    pub name: Option<String>,
    /// Its e-mail address.
    pub email: Option<String>,
}

impl Projection for Orders {
    const NAME: &'static str = "orders";
    const SCHEMA: &'static str = "
        CREATE TABLE orders (
            id VARCHAR(40) PRIMARY KEY, placed_at BIGINT NOT NULL, position BIGINT NOT NULL,
            member VARCHAR(40) NOT NULL, delivery TEXT NOT NULL, items TEXT NOT NULL, amount BIGINT NOT NULL,
            waiting BIGINT NOT NULL DEFAULT 0
        );
        CREATE INDEX orders_by_time ON orders (placed_at, position);
        CREATE INDEX orders_by_member ON orders (member, placed_at, position);
        CREATE TABLE members (id VARCHAR(40) PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL);";
    type Event = Seen;

    fn apply(&self, event: &Recorded<Seen>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let id = event.aggregate_id();
        match &event.event {
            Seen::Order(OrderEvent::Placed { member, delivery, items }) => {
                let amount: Cents = items.iter().map(|item| item.amount).sum();
                let (delivery, items) = (serde_json::to_string(delivery)?, serde_json::to_string(items)?);
                tx.execute(
                    "INSERT INTO orders (id, placed_at, position, member, delivery, items, amount)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    (id, event.time(), event.position(), member, delivery, items, amount),
                )?
            }
            Seen::Order(OrderEvent::Backordered { .. }) => {
                tx.execute("UPDATE orders SET waiting = waiting + 1 WHERE id = ?1", (id,))?
            }
            Seen::Order(OrderEvent::BackorderFilled { .. }) => {
                tx.execute("UPDATE orders SET waiting = waiting - 1 WHERE id = ?1", (id,))?
            }
            Seen::Member(MemberEvent::Registered { name, email, .. }) => {
                tx.execute("INSERT INTO members VALUES (?1, ?2, ?3)", (id, name, email))?
            }
            Seen::Member(MemberEvent::Renamed { name }) => {
                tx.execute("UPDATE members SET name = ?2 WHERE id = ?1", (id, name))?
            }
            Seen::Member(MemberEvent::EmailChanged { email }) => {
                tx.execute("UPDATE members SET email = ?2 WHERE id = ?1", (id, email))?
            }
            Seen::Member(MemberEvent::Withdrawn) => tx.execute("DELETE FROM members WHERE id = ?1", (id,))?,
            Seen::Member(_) => 0,
        };
        Ok(())
    }
}

const ORDERS: &str = "
    SELECT orders.id, placed_at, orders.member, members.name, members.email, delivery, items, waiting
    FROM orders LEFT JOIN members ON members.id = orders.member";

fn read(row: &Row) -> Result<OrderRow, SqlError> {
    type Columns = (String, Timestamp, String, Option<String>, Option<String>, String, String, u64);
    let (id, placed_at, member, name, email, delivery, items, waiting) = row.read::<Columns>()?;
    let broken = |column: &str| {
        let column = column.to_owned();
        move |error: serde_json::Error| SqlError::Column { column, problem: error.to_string() }
    };
    let items: Vec<Item> = serde_json::from_str(&items).map_err(broken("items"))?;
    Ok(OrderRow {
        id,
        placed_at: placed_at.to_string(),
        member: MemberOfOrder { id: member, name, email },
        delivery: serde_json::from_str(&delivery).map_err(broken("delivery"))?,
        amount: items.iter().map(|item| item.amount).sum(),
        items,
        waiting,
    })
}

/// The newest orders, of one member or of all.
pub(crate) async fn newest(
    view: &View<Orders>,
    member: Option<&str>,
    page: Page,
) -> Result<Vec<OrderRow>, ViewError> {
    let order = "ORDER BY placed_at DESC, position DESC LIMIT ?1 OFFSET ?2";
    match member {
        None => view.query(&format!("{ORDERS} {order}"), (page.limit, page.offset), read).await,
        Some(member) => {
            let sql = format!("{ORDERS} WHERE orders.member = ?3 {order}");
            view.query(&sql, (page.limit, page.offset, member), read).await
        }
    }
}

/// One order.
pub(crate) async fn one(view: &View<Orders>, id: &str) -> Result<Option<OrderRow>, ViewError> {
    view.one(&format!("{ORDERS} WHERE orders.id = ?1"), (id,), read).await
}
