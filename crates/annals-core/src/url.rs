//! The one way to name a store, the same in the library, the command line, the server and the tests.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Invalid;
use crate::redaction::{redacted, unescaped, unknown_password};

/// The address of a store: `memory:`, `file:DIRECTORY`, `postgres://…` or `mysql://…`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// A store that ends with the process.
    Memory,
    /// The embedded store in this directory.
    File(PathBuf),
    /// A log in a PostgreSQL database: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=SCHEMA`.
    Postgres(DatabaseUrl),
    /// A log in a MariaDB or MySQL database: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`.
    MySql(DatabaseUrl),
}

impl FromStr for StoreUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known =
            "`memory:`, `file:DIRECTORY`, `postgres://USER@HOST/DATABASE` or `mysql://USER@HOST/DATABASE`";
        match text.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("file", "")) => Err(Invalid::new(
                "store",
                "names no directory; write `file:DIRECTORY`, such as `file:./data`",
            )),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(database(text)?)),
            Some(("mysql" | "mariadb", _)) => Ok(Self::MySql(database(text)?)),
            Some((scheme, _)) => {
                Err(Invalid::new("store", format!("`{scheme}:` is not a kind of store; write {known}")))
            }
            None => Err(Invalid::new("store", format!("`{}` is not a store; write {known}", redacted(text)))),
        }
    }
}

fn database(text: &str) -> Result<DatabaseUrl, Invalid> {
    if let Some((sign, escape)) = unescaped(text) {
        let problem = format!("has a `{sign}` in its user or password: write it as `{escape}`");
        return Err(Invalid::new("store", problem));
    }
    if let Some(name) = unknown_password(text) {
        let problem = format!("has a parameter `{name}`, which no driver reads; a password is `password`");
        return Err(Invalid::new("store", problem));
    }
    Ok(DatabaseUrl(text.to_owned()))
}

impl fmt::Display for StoreUrl {
    /// Without a password, should there be one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Postgres(url) | Self::MySql(url) => url.fmt(f),
        }
    }
}

/// The address of a database. It may have a password in it, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;

    /// Accepts any text: the database's driver reports what is wrong with it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl DatabaseUrl {
    /// The whole address, with the password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written() {
        for (text, url) in [
            ("memory:", StoreUrl::Memory),
            ("file:./data", StoreUrl::File("./data".into())),
            ("file:/var/lib/annals", StoreUrl::File("/var/lib/annals".into())),
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap(), url);
            assert_eq!(url.to_string(), text);
        }
        assert_eq!("file:///var".parse::<StoreUrl>().unwrap(), StoreUrl::File("/var".into()));
    }

    #[test]
    fn a_password_is_not_shown() {
        for (text, shown) in [
            ("postgres://kim:s3:cr@t@db/shop?schema=a", "postgres://kim:***@db/shop?schema=a"),
            ("postgres://kim@db/shop", "postgres://kim@db/shop"),
            ("mysql://db/shop?password=secret&schema=x", "mysql://db/shop?password=***&schema=x"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("cr@t"), "{url:?}");
            assert!(matches!(url, StoreUrl::Postgres(url) | StoreUrl::MySql(url) if url.expose() == text));
        }
    }

    #[test]
    fn a_mistake_does_not_show_a_password() {
        for text in [
            "postgress://kim:s3cret@db/shop",
            "POSTGRES://kim:s3cret@db/shop",
            "jdbc:postgresql://kim:s3cret@db/shop",
            "kim:s3cret@db/shop",
            "s3cret@db/shop",
            "postgres://kim:s3cret?x@db/shop",
            "postgres://db/shop?PASSWORD=s3cret",
            "postgres://db/shop?sslpassword=s3cret",
        ] {
            let refused = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(!refused.contains("s3cret"), "{refused}");
        }
        let refused = "postgres://kim:s3cr?et@db/shop".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(refused.contains("write it as `%3F`"), "{refused}");
    }

    #[test]
    fn a_file_has_no_password() {
        let url: DatabaseUrl = "sqlite:a:b@c.db?mode=rwc".parse().unwrap();
        assert_eq!(url.to_string(), "sqlite:a:b@c.db?mode=rwc");
    }

    #[test]
    fn an_unknown_url_says_what_is_known() {
        for text in ["", "data", "memory:x", "redis://localhost", "file:"] {
            let refused = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(refused.contains("file:DIRECTORY"), "{text}: {refused}");
        }
    }
}
