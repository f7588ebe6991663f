//! Options of a store on MariaDB or MySQL, and its address.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Error, Invalid, Limits, Result, SystemClock};
use sqlx::mysql::MySqlConnectOptions;

/// Options of a store.
#[derive(Clone)]
pub struct Options {
    /// Limits on the size of an append. An append beyond the server's `max_allowed_packet` is refused as
    /// well.
    pub limits: Limits,
    /// The source of recorded times.
    pub clock: Arc<dyn Clock>,
    /// Most connections for reads. A store has one more, which writes. 8 by default.
    pub connections_max: u32,
    /// How long a read waits for a connection, and an append for the lock of the log. 10 seconds by default.
    /// A statement without a response after twice this time fails.
    pub patience: Duration,
    /// How often the head is polled while a reader waits, which is the delay until it sees an event from
    /// another process. 25 milliseconds by default. After ten seconds without an event, it is polled a
    /// quarter as often.
    pub poll: Duration,
    /// Whether to append although the log is fenced: for the copy of a log that is being moved.
    pub moving: bool,
    /// Whether the server must be read-only (`read_only`), as a replica is: for the replica of a log
    /// ([`Replicated`](annals_sql::Replicated)). Reads are refused once it takes writes, and no tables are
    /// created.
    pub replica: bool,
    /// Whether the log must exist: no tables are created or changed. For read-only use.
    pub existing: bool,
}

impl Options {
    /// The time limit of a statement: twice the patience.
    pub(crate) fn silence(&self) -> Duration {
        self.patience * 2
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            connections_max: 8,
            patience: Duration::from_secs(10),
            poll: Duration::from_millis(25),
            moving: false,
            replica: false,
            existing: false,
        }
    }
}

/// Most prepared statements of a connection.
const STATEMENTS: usize = 16;

/// The parameters of an address: those of the driver, except those that the store sets itself.
const PARAMETERS: [&str; 9] =
    ["sslmode", "ssl-mode", "sslca", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key", "socket"];

/// The location of a log: a server, and a database for the log alone.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) connect: MySqlConnectOptions,
    pub(crate) database: String,
}

impl FromStr for Address {
    type Err = Error;

    /// Parses `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, with the other parameters of sqlx.
    fn from_str(url: &str) -> Result<Self> {
        let (url, _) = annals_sql::split_replica(url)?;
        annals_sql::check_parameters(&url, &PARAMETERS)?;
        let connect = MySqlConnectOptions::from_str(&url).map_err(|error| {
            let error = annals_core::without_secrets(&error.to_string(), &url);
            let problem = format!("is no URL of a MariaDB or MySQL database: {error}");
            Error::from(Invalid::new("store", problem))
        })?;
        let database = connect.get_database().map(str::to_owned);
        let database = database.ok_or_else(|| Invalid::new("store", "names no database"))?;
        // A server limits the prepared statements of all its clients together; connections to a log prepare
        // none, those to the state few.
        let connect = connect.charset("utf8mb4").statement_cache_capacity(STATEMENTS);
        Ok(Self { connect, database })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_named() {
        let database = |url: &str| url.parse::<Address>().map(|address| address.database);
        assert_eq!(database("mysql://kim@localhost/shop").unwrap(), "shop");
        for wrong in ["mysql://localhost", "mysql://localhost:x/shop", "mysql://localhost/shop?schema=a"] {
            assert!(matches!(database(wrong), Err(Error::Invalid(_))), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_does_not_show_a_password() {
        for wrong in [
            "mysql://kim:12?schema=s3cret@db/shop",
            "mysql://kim:12?s3cret=x@db/shop",
            "mysql://kim:12?s3cret@db/shop",
            "mysql://kim:s3cret@db:5x/shop",
            "mysql://kim:s3cret@db:s3cret/shop",
            "mysql://kim:s3cret@[::1/shop",
            "mysql://kim:s3cret@/shop?sslmode=s3cret",
            "mysql://db/shop?password=a&s3cret",
        ] {
            let refused = wrong.parse::<Address>().map(drop).expect_err(wrong).to_string();
            assert!(!refused.contains("s3cret"), "{wrong}: {refused}");
        }
    }
}
