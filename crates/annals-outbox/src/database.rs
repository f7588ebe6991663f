//! Which database an outbox is in, and statements on it: the only file that knows the drivers.
//!
//! A statement is written once, for all of them, with `?` for values and these in the places where they differ (see
//! `dialect`). Values are whole numbers, text and bytes.

use sqlx::AssertSqlSafe;
#[cfg(feature = "mysql")]
use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlRow};
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnection, PgPool, PgRow};
#[cfg(feature = "sqlite")]
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

use annals_core::{Invalid, StoreUrl, without_secrets};

use crate::dialect::Dialect;

/// Connections to the database that an outbox is in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Pool {
    /// PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
    /// MariaDB or MySQL.
    #[cfg(feature = "mysql")]
    MySql(MySqlPool),
    /// SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
}

/// A connection of the caller's, in whatever transaction it is: made from `&mut *transaction`.
pub struct Session<'c>(Connection<'c>);

enum Connection<'c> {
    #[cfg(feature = "postgres")]
    Postgres(&'c mut PgConnection),
    #[cfg(feature = "mysql")]
    MySql(&'c mut MySqlConnection),
    #[cfg(feature = "sqlite")]
    Sqlite(&'c mut SqliteConnection),
}

/// A transaction of the outbox itself; rolled back when it is dropped.
pub(crate) enum Transaction {
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
    #[cfg(feature = "mysql")]
    MySql(sqlx::Transaction<'static, sqlx::MySql>),
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
}

/// A row of an answer.
pub(crate) enum Row {
    #[cfg(feature = "postgres")]
    Postgres(PgRow),
    #[cfg(feature = "mysql")]
    MySql(MySqlRow),
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteRow),
}

/// What stands in the place of a `?`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Int(i64),
    Text(&'a str),
    MaybeText(Option<&'a str>),
    MaybeBytes(Option<&'a [u8]>),
}

/// Does the same for each database. `Db` is its type, `row_of` makes a row of one of its rows, `DIALECT` is how it speaks.
macro_rules! each {
    ($kind:ident, $value:expr, $name:ident => $body:expr) => {
        #[allow(dead_code, unused_imports)]
        match $value {
            #[cfg(feature = "postgres")]
            $kind::Postgres($name) => {
                use Row::Postgres as row_of;
                type Db = sqlx::Postgres;
                const DIALECT: Dialect = Dialect::Postgres;
                $body
            }
            #[cfg(feature = "mysql")]
            $kind::MySql($name) => {
                use Row::MySql as row_of;
                type Db = sqlx::MySql;
                const DIALECT: Dialect = Dialect::MySql;
                $body
            }
            #[cfg(feature = "sqlite")]
            $kind::Sqlite($name) => {
                use Row::Sqlite as row_of;
                type Db = sqlx::Sqlite;
                const DIALECT: Dialect = Dialect::Sqlite;
                $body
            }
        }
    };
}

/// A statement of this database with these values.
macro_rules! bound {
    ($db:ty, $sql:expr, $values:expr) => {{
        let mut query = sqlx::query::<$db>(AssertSqlSafe($sql));
        for value in $values {
            query = match *value {
                Value::Int(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
                Value::MaybeText(text) => query.bind(text),
                Value::MaybeBytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}

/// A pool of this kind whose database is reached now: a pool would try for long to reach one that is not there.
macro_rules! opened {
    ($kind:ident, $db:ty, $url:expr) => {{
        type Options = <<$db as sqlx::Database>::Connection as sqlx::Connection>::Options;
        let options: Options = $url.parse().map_err(|error: sqlx::Error| {
            let problem = without_secrets(&error.to_string(), $url);
            Invalid::new("database", format!("has a URL that cannot be read: {problem}"))
        })?;
        options
            .connect()
            .await
            .map_err(crate::Error::Database)?
            .close()
            .await
            .map_err(crate::Error::Database)?;
        let pool = sqlx::pool::PoolOptions::<$db>::new().acquire_timeout(PATIENCE);
        Ok(Self::$kind(pool.connect_lazy_with(options)))
    }};
}

/// How long a pool that is made here waits for a connection.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

impl Pool {
    /// Connects to the database with this URL: `postgres://…`, `mysql://…` or `sqlite:FILE` (`sqlite:FILE?mode=rwc` makes
    /// the file if need be).
    ///
    /// # Errors
    /// `Invalid` if the URL is none, or of a database that this build does not have; `Database` if it is not reached.
    pub async fn connect(url: &str) -> crate::Result<Self> {
        let scheme = url.split_once(':').map(|(scheme, _)| scheme);
        if matches!(scheme, Some("postgres" | "postgresql" | "mysql" | "mariadb")) {
            // A password where the driver does not look for one would be logged by it.
            url.parse::<StoreUrl>().map_err(|invalid| Invalid::new("database", invalid.problem))?;
        }
        match scheme {
            #[cfg(feature = "postgres")]
            Some("postgres" | "postgresql") => opened!(Postgres, sqlx::Postgres, url),
            #[cfg(feature = "mysql")]
            Some("mysql" | "mariadb") => opened!(MySql, sqlx::MySql, url),
            #[cfg(feature = "sqlite")]
            Some("sqlite") => opened!(Sqlite, sqlx::Sqlite, url),
            // Not the URL itself, which may have a password in it.
            _ => {
                let problem =
                    "must be `postgres://…`, `mysql://…` or `sqlite:FILE`, as far as this build has them";
                Err(Invalid::new("database", problem).into())
            }
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        each!(Self, self, _pool => DIALECT)
    }

    /// Begins a transaction that reads or writes.
    ///
    /// The pool is the caller's, and nothing is set on its connections. So each transaction says what it is, whatever the
    /// server, the role or the session is set to: that it is committed by `COMMIT` and nothing else, that it sees what is
    /// committed and nothing else, and that it may write. On SQLite one that writes waits for others now instead of failing
    /// later.
    ///
    /// A caller that is dropped meanwhile leaves no transaction open: the driver would give the connection back to the pool
    /// with the transaction that it has just begun, and the next caller would run inside it.
    pub(crate) async fn begin(&self, access: Access) -> Result<Transaction, sqlx::Error> {
        let pool = self.clone();
        let begun = tokio::spawn(async move { pool.begin_now(access).await });
        begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn begin_now(&self, access: Access) -> Result<Transaction, sqlx::Error> {
        Ok(match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => Transaction::Postgres(
                pool.begin_with(match access {
                    Access::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
                    Access::Read => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
                })
                .await?,
            ),
            #[cfg(feature = "mysql")]
            Self::MySql(pool) => Transaction::MySql(
                // Without autocommit a transaction may be open that somebody's SELECT has begun.
                pool.begin_with(match access {
                    Access::Write => {
                        "COMMIT AND NO CHAIN NO RELEASE; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                         START TRANSACTION READ WRITE"
                    }
                    Access::Read => {
                        "COMMIT AND NO CHAIN NO RELEASE; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                         START TRANSACTION READ ONLY"
                    }
                })
                .await?,
            ),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => Transaction::Sqlite(
                pool.begin_with(match access {
                    Access::Write => "BEGIN IMMEDIATE",
                    Access::Read => "BEGIN",
                })
                .await?,
            ),
        })
    }
}

/// What a transaction does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Transaction {
    pub(crate) async fn execute(&mut self, sql: String, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        each!(Self, self, connection => {
            Ok(bound!(Db, sql, values).execute(&mut **connection).await?.rows_affected())
        })
    }

    pub(crate) async fn fetch(&mut self, sql: String, values: &[Value<'_>]) -> Result<Vec<Row>, sqlx::Error> {
        each!(Self, self, connection => {
            let rows = bound!(Db, sql, values).fetch_all(&mut **connection).await?;
            Ok(rows.into_iter().map(row_of).collect())
        })
    }

    /// Statements without values, one after the other.
    pub(crate) async fn script(&mut self, sql: String) -> Result<(), sqlx::Error> {
        each!(Self, self, connection => {
            connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)
        })
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        each!(Self, self, transaction => transaction.commit().await)
    }
}

impl Session<'_> {
    pub(crate) fn dialect(&self) -> Dialect {
        each!(Connection, &self.0, _connection => DIALECT)
    }

    pub(crate) async fn execute(&mut self, sql: String, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        each!(Connection, &mut self.0, connection => {
            Ok(bound!(Db, sql, values).execute(&mut **connection).await?.rows_affected())
        })
    }
}

impl Row {
    /// A whole number.
    pub(crate) fn int(&self, column: usize) -> Result<i64, sqlx::Error> {
        self.maybe_int(column)?.ok_or_else(|| null(column))
    }

    /// A whole number or NULL, however wide the database says it is.
    pub(crate) fn maybe_int(&self, column: usize) -> Result<Option<i64>, sqlx::Error> {
        each!(Self, self, row => {
            let wide = row.try_get::<Option<i64>, _>(column);
            wide.or_else(|_| row.try_get::<Option<i32>, _>(column).map(|number| number.map(i64::from)))
        })
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, sqlx::Error> {
        self.maybe_text(column)?.ok_or_else(|| null(column))
    }

    pub(crate) fn maybe_text(&self, column: usize) -> Result<Option<String>, sqlx::Error> {
        each!(Self, self, row => row.try_get(column))
    }

    pub(crate) fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
        each!(Self, self, row => row.try_get(column))
    }
}

/// The error for a column that is NULL and must not be. SQLite's driver reads NULL as 0 or as an empty text.
fn null(column: usize) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_string(), source: "it is NULL".into() }
}

#[cfg(feature = "postgres")]
impl From<PgPool> for Pool {
    fn from(pool: PgPool) -> Self {
        Self::Postgres(pool)
    }
}

#[cfg(feature = "mysql")]
impl From<MySqlPool> for Pool {
    fn from(pool: MySqlPool) -> Self {
        Self::MySql(pool)
    }
}

#[cfg(feature = "sqlite")]
impl From<SqlitePool> for Pool {
    fn from(pool: SqlitePool) -> Self {
        Self::Sqlite(pool)
    }
}

#[cfg(feature = "postgres")]
impl<'c> From<&'c mut PgConnection> for Session<'c> {
    fn from(connection: &'c mut PgConnection) -> Self {
        Self(Connection::Postgres(connection))
    }
}

#[cfg(feature = "mysql")]
impl<'c> From<&'c mut MySqlConnection> for Session<'c> {
    fn from(connection: &'c mut MySqlConnection) -> Self {
        Self(Connection::MySql(connection))
    }
}

#[cfg(feature = "sqlite")]
impl<'c> From<&'c mut SqliteConnection> for Session<'c> {
    fn from(connection: &'c mut SqliteConnection) -> Self {
        Self(Connection::Sqlite(connection))
    }
}
