//! The database of the service: SQLite, PostgreSQL or MariaDB, by its URL. A service with only one of them
//! uses its pool and its transactions directly: `outbox.write(&mut *transaction, &message)`.

use annals_outbox::{Pool, Session};
use sqlx::{AssertSqlSafe, Row as _};

use crate::order::Order;

#[derive(Clone)]
pub struct Database(Pool);

/// A transaction of the service.
pub enum Transaction {
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
    MySql(sqlx::Transaction<'static, sqlx::MySql>),
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
}

/// The value of a `?`.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Int(i64),
    Text(&'a str),
}

impl Database {
    pub async fn connect(url: &str) -> annals_outbox::Result<Self> {
        Pool::connect(url).await.map(Self)
    }

    pub fn pool(&self) -> Pool {
        self.0.clone()
    }

    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        Ok(match &self.0 {
            Pool::Postgres(pool) => Transaction::Postgres(pool.begin().await?),
            Pool::MySql(pool) => Transaction::MySql(pool.begin().await?),
            // Otherwise a transaction that reads first and writes later may be refused.
            Pool::Sqlite(pool) => Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            _ => unreachable!("there are three"),
        })
    }

    pub async fn order(&self, id: &str) -> Result<Option<Order>, sqlx::Error> {
        macro_rules! read {
            ($pool:expr, $sql:expr) => {{
                let row = sqlx::query($sql).bind(id).fetch_optional($pool).await?;
                Ok(row.map(|row| Order {
                    id: row.get(0),
                    customer: row.get(1),
                    cents: row.get(2),
                    state: row.get(3),
                }))
            }};
        }
        match &self.0 {
            Pool::Postgres(pool) => {
                read!(pool, "SELECT id, customer, cents, state FROM orders WHERE id = $1")
            }
            Pool::MySql(pool) => read!(pool, "SELECT id, customer, cents, state FROM orders WHERE id = ?"),
            Pool::Sqlite(pool) => read!(pool, "SELECT id, customer, cents, state FROM orders WHERE id = ?"),
            _ => unreachable!("there are three"),
        }
    }
}

impl Transaction {
    /// Executes a statement. Returns the number of changed rows.
    pub async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        macro_rules! execute {
            ($transaction:expr, $sql:expr, $database:ty) => {{
                let mut query = sqlx::query::<$database>(AssertSqlSafe($sql));
                for value in values {
                    query = match *value {
                        Value::Int(number) => query.bind(number),
                        Value::Text(text) => query.bind(text),
                    };
                }
                Ok(query.execute(&mut **$transaction).await?.rows_affected())
            }};
        }
        match self {
            Self::Postgres(transaction) => {
                let numbered =
                    (1..=values.len()).fold(sql.to_owned(), |sql, n| sql.replacen('?', &format!("${n}"), 1));
                execute!(transaction, numbered, sqlx::Postgres)
            }
            Self::MySql(transaction) => execute!(transaction, sql.to_owned(), sqlx::MySql),
            Self::Sqlite(transaction) => execute!(transaction, sql.to_owned(), sqlx::Sqlite),
        }
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(transaction) => transaction.commit().await,
            Self::MySql(transaction) => transaction.commit().await,
            Self::Sqlite(transaction) => transaction.commit().await,
        }
    }
}

impl<'c> From<&'c mut Transaction> for Session<'c> {
    fn from(transaction: &'c mut Transaction) -> Self {
        match transaction {
            Transaction::Postgres(transaction) => Self::from(&mut **transaction),
            Transaction::MySql(transaction) => Self::from(&mut **transaction),
            Transaction::Sqlite(transaction) => Self::from(&mut **transaction),
        }
    }
}
