//! The database of an outbox, and statements on it: the only file that knows the drivers.
//!
//! A statement is written once for all databases, with `?` for values and placeholders where the databases
//! differ (see `dialect`). Values are integers, text and bytes.

use std::io;
use std::time::Duration;

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

/// A connection of the caller, with its current transaction: made from `&mut *transaction`.
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
pub(crate) struct Transaction {
    begun: Begun,
    /// How long the database may take for each statement.
    answer_max: Duration,
}

enum Begun {
    #[cfg(feature = "postgres")]
    Postgres(Remote<sqlx::Postgres>),
    #[cfg(feature = "mysql")]
    MySql(Remote<sqlx::MySql>),
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

/// The value of a `?`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Int(i64),
    Text(&'a str),
    MaybeText(Option<&'a str>),
    MaybeBytes(Option<&'a [u8]>),
}

/// Evaluates an expression for each database. `Db` is its type, `row_of` wraps one of its rows, `DIALECT` is
/// its dialect.
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

/// Binds values to a statement.
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

/// Makes a pool after a first connection has succeeded: the pool alone would retry for long if there is no
/// such server.
macro_rules! opened {
    ($kind:ident, $db:ty, $url:expr) => {{
        type Options = <<$db as sqlx::Database>::Connection as sqlx::Connection>::Options;
        let options: Options = $url.parse().map_err(|error: sqlx::Error| {
            let problem = without_secrets(&error.to_string(), $url);
            Invalid::new("database", format!("has a URL that cannot be read: {problem}"))
        })?;
        let reached = within(PATIENCE, async { options.connect().await?.close().await });
        reached.await.map_err(crate::Error::Database)?;
        let pool = sqlx::pool::PoolOptions::<$db>::new().acquire_timeout(PATIENCE);
        Ok(Self::$kind(pool.connect_lazy_with(options)))
    }};
}

/// How long a pool that is made here waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time limit of a statement that waits for no transaction of the service. After it the connection counts as
/// broken, as by the network: the driver itself has no time limit.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The same for a statement that may wait for a lock. MariaDB and MySQL give up by themselves after 50
/// seconds.
const LOCK_MAX: Duration = Duration::from_secs(120);

/// Waits for the result, for at most `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let problem = format!("the database did not answer within {limit:?}");
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, problem)))
    })
}

impl Pool {
    /// Connects to the database with this URL: `postgres://…`, `mysql://…` or `sqlite:FILE`
    /// (`sqlite:FILE?mode=rwc` creates the file if it does not exist).
    ///
    /// # Errors
    /// `Invalid` if the URL cannot be parsed, or is of a database that this build does not include;
    /// `Database` if the connection fails.
    pub async fn connect(url: &str) -> crate::Result<Self> {
        let scheme = url.split_once(':').map(|(scheme, _)| scheme);
        if matches!(scheme, Some("postgres" | "postgresql" | "mysql" | "mariadb")) {
            // The driver would log a password in a place where it expects none.
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

    /// Begins a transaction.
    ///
    /// The pool is the caller's, and no settings of its connections are changed. So each transaction states
    /// its isolation level and access mode, and is committed by `COMMIT` alone, whatever the settings of the
    /// server, the role and the session are. On SQLite a writing transaction waits for the write lock now
    /// instead of failing later.
    ///
    /// It runs in a task of its own, so that a caller that is dropped leaves no transaction open: the driver
    /// would return the connection to the pool with the transaction begun, and the next caller would run
    /// inside it.
    pub(crate) async fn begin(&self, access: Access) -> Result<Transaction, sqlx::Error> {
        let pool = self.clone();
        let begun = tokio::spawn(async move { within(ANSWER_MAX, pool.begin_now(access)).await });
        let begun = begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?;
        let answer_max = if access == Access::Lock { LOCK_MAX } else { ANSWER_MAX };
        Ok(Transaction { begun, answer_max })
    }

    async fn begin_now(&self, access: Access) -> Result<Begun, sqlx::Error> {
        Ok(match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => Begun::Postgres(
                Remote::begin(
                    pool,
                    match access {
                        Access::Write | Access::Lock => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
                        Access::Read => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
                    },
                )
                .await?,
            ),
            #[cfg(feature = "mysql")]
            Self::MySql(pool) => Begun::MySql(
                // Without autocommit, an earlier SELECT on this connection may have begun a transaction.
                Remote::begin(
                    pool,
                    match access {
                        Access::Write | Access::Lock => {
                            "COMMIT AND NO CHAIN NO RELEASE; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                             START TRANSACTION READ WRITE"
                        }
                        Access::Read => {
                            "COMMIT AND NO CHAIN NO RELEASE; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                             START TRANSACTION READ ONLY"
                        }
                    },
                )
                .await?,
            ),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => Begun::Sqlite(
                pool.begin_with(match access {
                    Access::Write | Access::Lock => "BEGIN IMMEDIATE",
                    Access::Read => "BEGIN",
                })
                .await?,
            ),
        })
    }
}

/// The access of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// Writes, and may wait for locks of the service's transactions.
    Lock,
}

/// A transaction on a server.
///
/// Unless it was committed, dropping it closes the connection, and the server rolls back. Returned to the
/// pool, the connection would be pinged without a time limit, and a server that does not respond would block
/// it forever.
#[cfg(any(feature = "postgres", feature = "mysql"))]
struct Remote<Db: sqlx::Database> {
    connection: sqlx::pool::PoolConnection<Db>,
    committed: bool,
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<Db: sqlx::Database> Remote<Db>
where
    for<'c> &'c mut Db::Connection: sqlx::Executor<'c, Database = Db>,
{
    async fn begin(pool: &sqlx::Pool<Db>, statement: &'static str) -> Result<Self, sqlx::Error> {
        let mut this = Self { connection: pool.acquire().await?, committed: false };
        (&mut *this.connection).execute(sqlx::raw_sql(statement)).await?;
        Ok(this)
    }

    async fn commit(mut self) -> Result<(), sqlx::Error> {
        (&mut *self.connection).execute(sqlx::raw_sql("COMMIT AND NO CHAIN")).await?;
        self.committed = true;
        Ok(())
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<Db: sqlx::Database> Drop for Remote<Db> {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<Db: sqlx::Database> std::ops::Deref for Remote<Db> {
    type Target = Db::Connection;

    fn deref(&self) -> &Db::Connection {
        &self.connection
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<Db: sqlx::Database> std::ops::DerefMut for Remote<Db> {
    fn deref_mut(&mut self) -> &mut Db::Connection {
        &mut self.connection
    }
}

impl Transaction {
    pub(crate) async fn execute(&mut self, sql: String, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        each!(Begun, &mut self.begun, connection => {
            let done = within(self.answer_max, bound!(Db, sql, values).execute(&mut **connection));
            Ok(done.await?.rows_affected())
        })
    }

    pub(crate) async fn fetch(&mut self, sql: String, values: &[Value<'_>]) -> Result<Vec<Row>, sqlx::Error> {
        each!(Begun, &mut self.begun, connection => {
            let rows = within(self.answer_max, bound!(Db, sql, values).fetch_all(&mut **connection));
            Ok(rows.await?.into_iter().map(row_of).collect())
        })
    }

    /// Executes several statements without values.
    pub(crate) async fn script(&mut self, sql: String) -> Result<(), sqlx::Error> {
        each!(Begun, &mut self.begun, connection => {
            let done = within(self.answer_max, connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))));
            done.await.map(drop)
        })
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        each!(Begun, self.begun, transaction => within(self.answer_max, transaction.commit()).await)
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
    /// An integer.
    pub(crate) fn int(&self, column: usize) -> Result<i64, sqlx::Error> {
        self.maybe_int(column)?.ok_or_else(|| null(column))
    }

    /// An integer or NULL, of 32 or 64 bits.
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
