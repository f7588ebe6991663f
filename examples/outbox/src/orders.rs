//! Orders: rows that are changed. Each change is one transaction, with the message about it.

use annals_outbox::{NewMessage, Outbox};
use serde_json::json;

use crate::database::{Database, Value};
use crate::die;
use crate::order::Order;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("there is an order {0} already")]
    Exists(String),
    #[error("there is no order {0} that is placed")]
    NotPlaced(String),
    #[error(transparent)]
    Message(#[from] annals_outbox::Error),
    #[error("the database fails: {0}")]
    Database(#[from] sqlx::Error),
}

/// The orders, and the outbox for messages about them.
#[derive(Clone)]
pub struct Orders {
    database: Database,
    outbox: Outbox,
}

impl Orders {
    pub async fn new(database: Database, outbox: Outbox) -> Result<Self, sqlx::Error> {
        let mut transaction = database.begin().await?;
        let table = "CREATE TABLE IF NOT EXISTS orders (id VARCHAR(100) NOT NULL PRIMARY KEY,
            customer VARCHAR(100) NOT NULL, cents BIGINT NOT NULL, state VARCHAR(20) NOT NULL)";
        transaction.execute(table, &[]).await?;
        transaction.commit().await?;
        Ok(Self { database, outbox })
    }

    /// Places a new order.
    pub async fn place(&self, order: &Order) -> Result<(), Refused> {
        let data = json!({"customer": order.customer, "cents": order.cents});
        let message = NewMessage::json("order", &order.id, "order.placed", &data);
        let message = message.map_err(annals_outbox::Error::from)?.with_header("initiator", &order.customer);

        let mut transaction = self.database.begin().await?;
        die::at("before-write");
        let insert = "INSERT INTO orders (id, customer, cents, state) VALUES (?, ?, ?, 'placed')";
        let values = [Value::Text(&order.id), Value::Text(&order.customer), Value::Int(order.cents)];
        match transaction.execute(insert, &values).await {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Err(Refused::Exists(order.id.clone()));
            }
            inserted => inserted?,
        };
        self.outbox.write(&mut transaction, &message).await?;
        die::at("after-write");
        transaction.commit().await?;
        die::at("after-commit");
        Ok(())
    }

    /// Marks a placed order as paid or cancelled.
    pub async fn settle(&self, id: &str, state: &str) -> Result<(), Refused> {
        let message = NewMessage::json("order", id, format!("order.{state}"), &json!({}));
        let message = message.map_err(annals_outbox::Error::from)?;

        let mut transaction = self.database.begin().await?;
        let update = "UPDATE orders SET state = ? WHERE id = ? AND state = 'placed'";
        if transaction.execute(update, &[Value::Text(state), Value::Text(id)]).await? == 0 {
            return Err(Refused::NotPlaced(id.to_owned()));
        }
        self.outbox.write(&mut transaction, &message).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The order with this id.
    pub async fn find(&self, id: &str) -> Result<Option<Order>, sqlx::Error> {
        self.database.order(id).await
    }
}
