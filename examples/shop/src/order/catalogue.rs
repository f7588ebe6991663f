//! The order service's own copy of the data of products and members that it needs.
//!
//! It is derived from their events, which are in the log whether or not those services run. So placing an
//! order does not depend on another running service.

use std::collections::BTreeMap;

use annals::{Event, HandlerError, Projection, Recorded, Tx, View, ViewError};

use super::Line;
use crate::events::{MemberEvent, ProductEvent};
use crate::session::SessionDigest;
use crate::values::{Cents, MemberId, Name, ProductId};

/// The copy.
pub struct Catalogue;

/// The events of other services that it applies.
#[derive(Event, Clone, Debug)]
#[event(union)]
pub enum Foreign {
    /// An event of the product service.
    Product(ProductEvent),
    /// An event of the member service.
    Member(MemberEvent),
}

/// The data from the copy for one order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether the member exists.
    pub member: bool,
    /// The ordered products, as far as they are known.
    pub offers: BTreeMap<ProductId, Offer>,
}

/// A product in the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: Name,
    /// The price of one.
    pub price: Cents,
    /// The stock.
    pub stock: u64,
}

impl Projection for Catalogue {
    const NAME: &'static str = "order-catalogue";
    const SCHEMA: &'static str = "
        CREATE TABLE products (
            id VARCHAR(40) PRIMARY KEY, name TEXT NOT NULL, price BIGINT NOT NULL, stock BIGINT NOT NULL DEFAULT 0
        );
        CREATE TABLE members (id VARCHAR(40) PRIMARY KEY, session VARCHAR(64) UNIQUE);";
    type Event = Foreign;

    fn apply(&self, event: &Recorded<Foreign>, tx: &Tx<'_>) -> Result<(), HandlerError> {
        let id = event.aggregate_id();
        match &event.event {
            Foreign::Product(event) => product(id, event, tx),
            Foreign::Member(event) => member(id, event, tx),
        }
    }
}

fn product(id: &str, event: &ProductEvent, tx: &Tx<'_>) -> Result<(), HandlerError> {
    match event {
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
        ProductEvent::StockDecreased { quantity }
        | ProductEvent::Sold { quantity, .. }
        | ProductEvent::BackorderFilled { quantity, .. } => {
            tx.execute("UPDATE products SET stock = stock - ?2 WHERE id = ?1", (id, quantity))?
        }
        ProductEvent::Backordered { .. } => 0,
    };
    Ok(())
}

fn member(id: &str, event: &MemberEvent, tx: &Tx<'_>) -> Result<(), HandlerError> {
    match event {
        MemberEvent::Registered { .. } => tx.execute("INSERT INTO members (id) VALUES (?1)", (id,))?,
        MemberEvent::LoggedIn { session } => {
            tx.execute("UPDATE members SET session = ?2 WHERE id = ?1", (id, session))?
        }
        MemberEvent::LoggedOut | MemberEvent::PasswordChanged { .. } => {
            tx.execute("UPDATE members SET session = NULL WHERE id = ?1", (id,))?
        }
        MemberEvent::Withdrawn => tx.execute("DELETE FROM members WHERE id = ?1", (id,))?,
        MemberEvent::Renamed { .. }
        | MemberEvent::EmailChanged { .. }
        | MemberEvent::AddressChanged { .. }
        | MemberEvent::ProfileChanged { .. } => 0,
    };
    Ok(())
}

/// Reads the member and the products in these lines from the copy.
pub(super) async fn look_up(
    view: &View<Catalogue>,
    member: &MemberId,
    lines: &[Line],
) -> Result<Known, ViewError> {
    // One query, so that member and products are of one moment: the first row is that of the member.
    let marks: Vec<String> = (2..=lines.len() + 1).map(|number| format!("?{number}")).collect();
    let marks = marks.join(", ");
    let sql = format!(
        "SELECT NULL AS id, NULL AS name, NULL AS price, count(*) AS stock FROM members WHERE id = ?1
         UNION ALL SELECT id, name, price, stock FROM products WHERE id IN ({marks})"
    );
    let ids: Vec<String> =
        std::iter::once(member.into()).chain(lines.iter().map(|line| (&line.product).into())).collect();
    let mut known = Known::default();
    for row in view.rows(&sql, ids).await? {
        match row.read::<(Option<ProductId>, Option<Name>, Option<Cents>, u64)>()? {
            (Some(id), Some(name), Some(price), stock) => {
                known.offers.insert(id, Offer { name, price, stock });
            }
            (.., members) => known.member = members > 0,
        }
    }
    Ok(known)
}

/// The member with this session.
pub(super) async fn signed_in(
    view: &View<Catalogue>,
    session: &SessionDigest,
) -> Result<Option<MemberId>, ViewError> {
    view.one("SELECT id FROM members WHERE session = ?1", (session,), |row| row.get(0)).await
}
