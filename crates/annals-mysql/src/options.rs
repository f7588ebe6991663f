//! How a store on MariaDB or MySQL is opened, and where it is.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Error, Invalid, Limits, Result, SystemClock};
use sqlx::mysql::MySqlConnectOptions;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// How large an append may be. What the server's `max_allowed_packet` does not let through is refused as well.
    pub limits: Limits,
    /// Where recorded times come from.
    pub clock: Arc<dyn Clock>,
    /// Connections for reads. Beside them a store has one that writes. 8 by default.
    pub connections_max: u32,
    /// How long a read waits for a connection, and an append for the lock of the log. 10 seconds by default. A statement
    /// that is not answered in twice this time is given up.
    pub patience: Duration,
    /// How often the head is polled while a reader waits, and so the delay until what another process has written is seen. 25
    /// milliseconds by default. When no event has come for ten seconds, it is polled a quarter as often.
    pub poll: Duration,
    /// Whether appends are written although the log is fenced: for the copy of a log that moves.
    pub moving: bool,
    /// Whether the server must only read (`read_only`), as one that follows another: for the replica of a log
    /// ([`Replicated`](annals_sql::Replicated)). Reads are refused once it takes writes, and no tables are made.
    pub replica: bool,
    /// Whether the log must be there: no tables are made, and none are changed. For those who only read.
    pub existing: bool,
}

impl Options {
    /// A server that has not answered a statement for this long is given up: twice the patience.
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

/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 16;

/// What an address may say behind its `?`: what the driver reads, without what a store sets itself.
const PARAMETERS: [&str; 9] =
    ["sslmode", "ssl-mode", "sslca", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key", "socket"];

/// Where a log is: a server, and a database that is the log's.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) connect: MySqlConnectOptions,
    pub(crate) database: String,
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, with what else sqlx knows of.
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
        // A server limits the prepared statements of all its clients together; the connections of a store keep
        // none, those of the state few.
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
