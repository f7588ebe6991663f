//! A log of its own for each test, with a role of its own, and a connection beside it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_testkit::server::{self, Server};
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::sync::Mutex;

/// Where the log of a test is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address, as a role that may do what a service must.
    pub url: String,
    /// The schema or the database.
    pub name: String,
    owner: String,
    is_postgres: bool,
}

fn number() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("state_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The address with another user.
fn with_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}@{host}")
}

impl Place {
    pub async fn postgres() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let settings = ["fsync=off", "log_min_messages=warning", "max_connections=1000"];
        let owner = SERVER.get_or_init(|| server::newest_postgres(&settings)).url();
        let name = number();
        let place = Self {
            url: format!("{}?schema={name}", with_user(&owner, &name)),
            name,
            owner,
            is_postgres: true,
        };
        // PostgreSQL refuses to grant on one database in two sessions at once.
        static ONE: Mutex<()> = Mutex::const_new(());
        let _one = ONE.lock().await;
        let mut other = place.beside().await;
        other
            .run(&format!("CREATE ROLE {0} LOGIN; GRANT CREATE ON DATABASE postgres TO {0}", place.name))
            .await;
        place
    }

    pub async fn mariadb() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let settings =
            ["innodb-flush-log-at-trx-commit=2", "innodb-buffer-pool-size=256M", "max-connections=1000"];
        let owner = SERVER.get_or_init(|| server::mariadb(&settings)).url();
        let name = number();
        let (server, _) = owner.rsplit_once('/').unwrap();
        let place =
            Self { url: format!("{}/{name}", with_user(server, &name)), name, owner, is_postgres: false };
        let pattern = place.name.replace('_', "\\_");
        let mut other = place.beside().await;
        other
            .run(&format!(
                "CREATE DATABASE {0}; CREATE USER {0}@'%'; GRANT ALL ON `{pattern}`.* TO {0}@'%'; \
                 GRANT ALL ON `{pattern}$%`.* TO {0}@'%'",
                place.name
            ))
            .await;
        place
    }

    /// From now on the role of PostgreSQL does everything as another one, with whose rights and for which it makes what it
    /// makes.
    pub async fn act_as_another(&self) {
        let grant = "CREATE ROLE {}_owner; GRANT CREATE ON DATABASE postgres TO {}_owner; GRANT {}_owner TO {}; \
            ALTER ROLE {} SET role = '{}_owner'";
        self.beside().await.run(&grant.replace("{}", &self.name)).await;
    }

    /// Another one, in a database of the same kind.
    pub async fn another(&self) -> Self {
        if self.is_postgres { Self::postgres().await } else { Self::mariadb().await }
    }

    /// A connection of the server's owner.
    pub async fn beside(&self) -> Beside {
        match self.is_postgres {
            true => Beside::Postgres(PgConnection::connect(&self.owner).await.unwrap()),
            false => Beside::MariaDb(MySqlConnection::connect(&self.owner).await.unwrap()),
        }
    }

    pub fn is_postgres(&self) -> bool {
        self.is_postgres
    }

    /// The type that a whole number is cast to.
    pub fn whole(&self) -> &'static str {
        if self.is_postgres { "BIGINT" } else { "SIGNED" }
    }

    /// Ends the connections of the test's role; says how many.
    pub async fn cut(&self) -> usize {
        let mut beside = self.beside().await;
        match &mut beside {
            Beside::Postgres(connection) => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
                sqlx::query(sql).bind(&self.name).fetch_all(connection).await.unwrap().len()
            }
            Beside::MariaDb(connection) => {
                let sql = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = ?";
                let rows = sqlx::query(sql).bind(&self.name).fetch_all(&mut *connection).await.unwrap();
                let mut cut = 0;
                for row in rows {
                    let kill = format!("KILL {}", row.get::<i64, _>(0));
                    // It may have ended by itself.
                    cut += usize::from(connection.execute(AssertSqlSafe(kill)).await.is_ok());
                }
                cut
            }
        }
    }
}

/// A connection beside those of the framework.
pub enum Beside {
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

impl Beside {
    pub async fn run(&mut self, sql: &str) {
        match self {
            Self::Postgres(connection) => drop(connection.execute(AssertSqlSafe(sql)).await.unwrap()),
            Self::MariaDb(connection) => drop(connection.execute(AssertSqlSafe(sql)).await.unwrap()),
        }
    }

    /// The number that a query answers with.
    pub async fn number(&mut self, sql: &str) -> i64 {
        match self {
            Self::Postgres(connection) => connection.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0),
            Self::MariaDb(connection) => connection.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0),
        }
    }

    /// The schemas whose names begin like this.
    pub async fn schemas(&mut self, prefix: &str) -> Vec<String> {
        let sql = "SELECT schema_name FROM information_schema.schemata";
        let mut names: Vec<String> = match self {
            Self::Postgres(connection) => {
                connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
            Self::MariaDb(connection) => {
                connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        };
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        names
    }
}
