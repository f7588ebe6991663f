//! Options of a store on PostgreSQL, and its address: the parts of its URL.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Error, Invalid, Limits, Result, SystemClock};
use sqlx::postgres::PgConnectOptions;

/// Options of a store.
#[derive(Clone)]
pub struct Options {
    /// Limits on the size of an append.
    pub limits: Limits,
    /// The source of recorded times.
    pub clock: Arc<dyn Clock>,
    /// Most connections for reads. A store has two more, one that writes and one that listens. 8 by default.
    pub connections_max: u32,
    /// How long a read waits for a connection, and an append for the lock of the log. 10 seconds by default.
    /// A statement without a response after twice this time fails.
    pub patience: Duration,
    /// How often the head is polled while a reader waits, in case a notification is lost. 1 second by
    /// default.
    pub poll: Duration,
    /// Whether to append although the log is fenced: for the copy of a log that is being moved.
    pub moving: bool,
    /// Whether the server must be a standby: for the replica of a log
    /// ([`Replicated`](annals_sql::Replicated)). Reads are refused once it is promoted, and no tables are
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
            poll: Duration::from_secs(1),
            moving: false,
            replica: false,
            existing: false,
        }
    }
}

/// The default schema of a log.
const SCHEMA: &str = "annals";

/// The parameters of an address: those of the store, and those of the driver.
const PARAMETERS: [&str; 20] = [
    "schema",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "application_name",
    "options",
    "options[",
];

/// The location of a log: a server, a database, and a schema in it.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) connect: PgConnectOptions,
    pub(crate) schema: String,
}

impl FromStr for Address {
    type Err = Error;

    /// Parses `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=SCHEMA`, with the other parameters of
    /// PostgreSQL's URLs.
    fn from_str(url: &str) -> Result<Self> {
        let (url, _) = annals_sql::split_replica(url)?;
        annals_sql::check_parameters(&url, &PARAMETERS)?;
        let (place, query) = url.split_once('?').unwrap_or((&url, ""));
        let (own, theirs): (Vec<_>, Vec<_>) =
            query.split('&').filter(|pair| !pair.is_empty()).partition(|pair| pair.starts_with("schema="));
        let schema = own.last().map_or(SCHEMA, |pair| &pair["schema=".len()..]);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || schema.len() > 48 || !schema.chars().all(plain) {
            // Without the value, which may be the end of a password.
            let problem = "has a `schema`, which must be 1 to 48 of a to z, 0 to 9 and _";
            return Err(Invalid::new("store", problem).into());
        }
        let url = if theirs.is_empty() { place.to_owned() } else { format!("{place}?{}", theirs.join("&")) };
        let connect = PgConnectOptions::from_str(&url).map_err(|error| {
            let error = annals_core::without_secrets(&error.to_string(), &url);
            let problem = format!("is no URL of a PostgreSQL database: {error}");
            Error::from(Invalid::new("store", problem))
        })?;
        Ok(Self { connect: connect.application_name("annals"), schema: schema.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_taken_from_the_url() {
        let schema = |url: &str| url.parse::<Address>().map(|address| address.schema);
        assert_eq!(schema("postgres://localhost/db").unwrap(), "annals");
        assert_eq!(schema("postgres://localhost/db?schema=shop_1").unwrap(), "shop_1");
        assert_eq!(schema("postgres://localhost/db?sslmode=require&schema=shop").unwrap(), "shop");
        for wrong in [
            "postgres://localhost/db?schema=",
            "postgres://localhost/db?schema=Shop",
            "postgres://localhost/db?schma=shop",
            "postgres://h:x/",
        ] {
            assert!(matches!(schema(wrong), Err(Error::Invalid(_))), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_does_not_show_a_password() {
        for wrong in [
            "postgres://kim:12?schema=s3cret@db/shop",
            "postgres://kim:12?s3cret=x@db/shop",
            "postgres://kim:12?s3cret@db/shop",
            "postgres://kim:s3cret@db:5x/shop",
            "postgres://kim:s3cret@db:s3cret/shop",
            "postgres://kim:s3cret@[::1/shop",
            "postgres://kim:s3cret@/shop?sslmode=s3cret",
            "postgres://db/shop?password=a&s3cret",
        ] {
            let refused = wrong.parse::<Address>().map(drop).expect_err(wrong).to_string();
            assert!(!refused.contains("s3cret"), "{wrong}: {refused}");
        }
    }
}
