//! A log for each test, with its own role, and a connection beside it.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "it fails the test that uses it")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::kind::Kind;
use crate::server::Server;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::sync::Mutex;

/// The location of a test's log.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address, with a role that has the privileges of a service.
    pub url: String,
    /// The schema or the database.
    pub name: String,
    owner: String,
    kind: Kind,
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
    /// A place on the oldest PostgreSQL.
    pub async fn postgres() -> Self {
        Self::on(Kind::Postgres).await
    }

    /// A place on the MariaDB of the system.
    pub async fn mariadb() -> Self {
        Self::on(Kind::MariaDb).await
    }

    /// A place on the server of this kind that all tests share.
    pub async fn on(kind: Kind) -> Self {
        Self::named(kind, number()).await
    }

    /// A place with this name, which must be new.
    pub async fn named(kind: Kind, name: String) -> Self {
        static SERVERS: [OnceLock<Server>; 5] = [const { OnceLock::new() }; 5];
        let server = SERVERS[kind as usize].get_or_init(|| match kind.is_postgres() {
            true => kind.start_quick(&["max_connections=1000"]),
            false => kind.start_quick(&["innodb-buffer-pool-size=256M", "max-connections=1000"]),
        });
        let owner = server.url();
        let url = match kind.is_postgres() {
            true => format!("{}?schema={name}", with_user(&owner, &name)),
            false => format!("{}/{name}", with_user(owner.rsplit_once('/').unwrap().0, &name)),
        };
        let place = Self { url, name, owner, kind };
        let role = match kind.is_postgres() {
            true => "CREATE ROLE {0} LOGIN; GRANT CREATE ON DATABASE postgres TO {0}",
            false => {
                "CREATE DATABASE {0}; CREATE USER {0}@'%'; GRANT ALL ON `{1}`.* TO {0}@'%'; \
                 GRANT ALL ON `{1}$%`.* TO {0}@'%'"
            }
        };
        let role = role.replace("{0}", &place.name).replace("{1}", &place.name.replace('_', "\\_"));
        // PostgreSQL does not allow concurrent grants on one database.
        static ONE: Mutex<()> = Mutex::const_new(());
        let _one = ONE.lock().await;
        place.beside().await.run(&role).await;
        place
    }

    /// Makes the PostgreSQL role act as another role, which has the privileges and owns all created objects.
    pub async fn act_as_another(&self) {
        let grant = "CREATE ROLE {}_owner; GRANT CREATE ON DATABASE postgres TO {}_owner; GRANT {}_owner TO {}; \
            ALTER ROLE {} SET role = '{}_owner'";
        self.beside().await.run(&grant.replace("{}", &self.name)).await;
    }

    /// Another place, on the same kind of server.
    pub async fn another(&self) -> Self {
        Self::on(self.kind).await
    }

    /// Executes a dump. On PostgreSQL as the test's role, which then owns the objects; MariaDB and MySQL have
    /// no owners.
    pub fn load(&self, dump: &str) {
        crate::dump::load(if self.is_postgres() { &self.url } else { &self.owner }, dump);
    }

    /// The dump of the log, and of the state and the rows beside it.
    pub async fn dump(&self) -> String {
        let schemas = self.beside().await.schemas(&self.name).await;
        crate::dump::dump(&self.owner, crate::dump::Of::Schemas(&schemas))
    }

    /// A connection of the server's administrator.
    pub async fn beside(&self) -> Beside {
        match self.is_postgres() {
            true => Beside::Postgres(PgConnection::connect(&self.owner).await.unwrap()),
            false => Beside::MySql(MySqlConnection::connect(&self.owner).await.unwrap()),
        }
    }

    /// Drops a schema of PostgreSQL, or a database of MariaDB or MySQL, with everything in it.
    pub async fn drop_schema(&self, name: &str) {
        let drop = match self.is_postgres() {
            true => format!("DROP SCHEMA \"{name}\" CASCADE"),
            false => format!("DROP DATABASE `{name}`"),
        };
        self.beside().await.run(&drop).await;
    }

    /// The kind of its server.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether its server has the protocol and the SQL of PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        self.kind.is_postgres()
    }

    /// The type to which a whole number is cast.
    pub fn whole(&self) -> &'static str {
        if self.is_postgres() { "BIGINT" } else { "SIGNED" }
    }

    /// Deletes the events after this position, as a failover to a standby without them would.
    pub async fn lose(&self, after: u64) {
        let name = &self.name;
        let mut owner = self.beside().await;
        owner.run(&format!("DELETE FROM {name}.events WHERE position > {after}")).await;
        owner.run(&format!("DELETE FROM {name}.event_tags WHERE position > {after}")).await;
        if !self.is_postgres() {
            owner.run(&format!("UPDATE {name}.log SET position = {after}")).await;
            owner.run(&format!("DELETE FROM {name}.entities")).await;
            owner
                .run(&format!(
                    "INSERT INTO {name}.entities SELECT entity_type, entity_id, MAX(entity_version), MAX(position)
                    FROM {name}.events GROUP BY entity_type, entity_id"
                ))
                .await;
        }
    }

    /// Ends the connections of the test's role; returns their number.
    pub async fn cut(&self) -> usize {
        let mut beside = self.beside().await;
        match &mut beside {
            Beside::Postgres(connection) => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
                sqlx::query(sql).bind(&self.name).fetch_all(connection).await.unwrap().len()
            }
            Beside::MySql(connection) => {
                let sql = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = ?";
                let rows = sqlx::query(sql).bind(&self.name).fetch_all(&mut *connection).await.unwrap();
                let mut cut = 0;
                for row in rows {
                    let kill = format!("KILL {}", row.get::<i64, _>(0));
                    // The connection may have ended by itself.
                    cut += usize::from(connection.execute(AssertSqlSafe(kill)).await.is_ok());
                }
                cut
            }
        }
    }
}

/// A connection beside those under test.
#[derive(Debug)]
pub enum Beside {
    /// To PostgreSQL.
    Postgres(PgConnection),
    /// To MariaDB or MySQL.
    MySql(MySqlConnection),
}

impl Beside {
    /// Executes these statements.
    pub async fn run(&mut self, sql: &str) {
        match self {
            Self::Postgres(connection) => drop(connection.execute(AssertSqlSafe(sql)).await.unwrap()),
            Self::MySql(connection) => drop(connection.execute(AssertSqlSafe(sql)).await.unwrap()),
        }
    }

    /// The number that a query returns.
    pub async fn number(&mut self, sql: &str) -> i64 {
        match self {
            Self::Postgres(connection) => connection.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0),
            Self::MySql(connection) => connection.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0),
        }
    }

    /// The schemas whose names begin with this prefix.
    pub async fn schemas(&mut self, prefix: &str) -> Vec<String> {
        let sql = "SELECT schema_name FROM information_schema.schemata";
        let mut names: Vec<String> = match self {
            Self::Postgres(connection) => {
                connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
            Self::MySql(connection) => {
                connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        };
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        names
    }
}

/// Generates tests of the functions with these names: each gets a [`Place`](crate::place::Place) on each
/// server of this run.
#[macro_export]
macro_rules! on_each_database {
    ($($name:ident,)*) => {
        $crate::on_each_database!(@on postgres Postgres $($name)*);
        $crate::on_each_database!(@on newest_postgres NewestPostgres $($name)*);
        $crate::on_each_database!(@on mariadb MariaDb $($name)*);
        $crate::on_each_database!(@on newest_mariadb NewestMariaDb $($name)*);
        $crate::on_each_database!(@on mysql MySql $($name)*);
    };
    (@on $module:ident $kind:ident $($name:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                if $crate::kind::Kind::$kind.is_chosen() {
                    super::$name($crate::place::Place::on($crate::kind::Kind::$kind).await).await;
                }
            })*
        }
    };
}
